import COniguruma
package import Files
import Glibc

/// Searches of one text for the matches of patterns, with caps on the steps and the time of them
/// all.
///
/// Most searches take a few steps. One that takes more than `firstStepCount` is done anew with ten
/// times as many, up to what Oniguruma allows by itself, and what was done in vain is charged to
/// the text.
///
/// Oniguruma counts as steps only the times that it goes back to try something else. What it reads
/// on the way it does not count: `a(?=[^c]*c)` reads all of the text at each `a`, and goes back
/// nowhere. So the time of the searches is bounded, too. Oniguruma cannot be stopped in the middle,
/// which is why it is asked for a match at one place after the other, and so the bound is kept up to
/// the time that `placesPerCheck` places take. A pattern that at one place alone takes a time that
/// grows with the square of the text's length is not bounded; such ones are for the caller to refuse.
@safe
package struct PatternSearch: ~Copyable {
  // Both belong to this value alone, and are freed with it.
  private let region: UnsafeMutablePointer<OnigRegion>
  private let parameters: OpaquePointer
  private var stepsLeft: Int
  private var limit = 0
  /// The time that searches may take, what is left of it by the clock on the wall, and what the
  /// thread had computed for before the first.
  private let nanoseconds: Int
  private var nanosecondsLeft: Int
  private let threadStart: Int

  private static let firstStepCount = 1000
  /// Oniguruma's own `retry_limit_in_match`, which the `tokenizers` library leaves as it is.
  package static let maximumStepCount = 10_000_000
  private static let stepsPerByte = 100
  /// 40 bytes each: a run of eight million spaces, say, matched by `\s+`.
  private static let maximumStackCount: UInt32 = 1 << 23
  /// What any text may take, and what it may take for each of its bytes: some 50 times what the
  /// patterns of known tokenizers do.
  package static let spareSeconds = 5
  private static let nanosecondsPerByte = 10_000
  /// How many places are tried between two looks at the clock.
  private static let placesPerCheck = 256

  /// Prepares for searches in a text; beside what grows with the text, so many steps and seconds
  /// may be taken.
  ///
  /// - Throws: `io` where memory is out.
  package init(
    textByteCount: Int, spareStepCount: Int = PatternSearch.maximumStepCount,
    spareSeconds: Int = PatternSearch.spareSeconds
  ) throws(PeftoolError) {
    guard let region = unsafe onig_region_new() else {
      throw PeftoolError(.io, "no memory to search for a pattern")
    }
    guard let parameters = unsafe onig_new_match_param() else {
      unsafe onig_region_free(region, 1)
      throw PeftoolError(.io, "no memory to search for a pattern")
    }
    unsafe onig_initialize_match_param(parameters)
    unsafe onig_set_match_stack_limit_size_of_match_param(parameters, Self.maximumStackCount)
    unsafe self.region = region
    unsafe self.parameters = parameters
    stepsLeft = spareStepCount + Self.stepsPerByte * textByteCount
    nanoseconds = spareSeconds * 1_000_000_000 + Self.nanosecondsPerByte * textByteCount
    nanosecondsLeft = nanoseconds
    threadStart = Self.nanoseconds(CLOCK_THREAD_CPUTIME_ID)
  }

  deinit {
    unsafe onig_region_free(region, 1)
    unsafe onig_free_match_param(parameters)
  }

  /// The first match from a place on; what stands before that place is seen by lookbehinds only.
  ///
  /// - Throws: `unsupported` where the searches of this text take too many steps, or too long.
  package mutating func firstMatch(
    of expression: RegularExpression, in text: Span<UInt8>, from place: Int
  ) throws(PeftoolError) -> Range<Int>? {
    precondition((0...text.count).contains(place))
    var start = place
    while true {
      try checkTime(expression)
      let time = Self.nanoseconds(CLOCK_MONOTONIC)
      defer { nanosecondsLeft -= Self.nanoseconds(CLOCK_MONOTONIC) - time }
      for _ in 0..<Self.placesPerCheck {
        if let match = try match(of: expression, in: text, at: start) { return match }
        guard start < text.count else { return nil }
        start += 1
        while start < text.count, text[start] & 0xC0 == 0x80 { start += 1 }
      }
    }
  }

  /// The match that begins at a place.
  private mutating func match(
    of expression: RegularExpression, in text: Span<UInt8>, at place: Int
  ) throws(PeftoolError) -> Range<Int>? {
    var steps = Self.firstStepCount
    while true {
      let status = match(text, at: place, of: expression, steps: steps)
      if status >= 0 {
        // The region of a match has at least one group, that of the whole match.
        return unsafe Int(region.pointee.beg[0])..<Int(region.pointee.end[0])
      }
      if status == ONIG_MISMATCH { return nil }
      stepsLeft -= steps
      guard status == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER, steps < Self.maximumStepCount,
        stepsLeft > 0
      else {
        throw PeftoolError(
          .unsupported, "matching '\(expression.pattern.printable)' takes too many steps")
      }
      steps *= 10
    }
  }

  /// - Throws: `unsupported` where there is no time left.
  private mutating func checkTime(_ expression: RegularExpression) throws(PeftoolError) {
    guard nanosecondsLeft <= 0 else { return }
    // On a busy machine the thread has computed for less than the clock says.
    nanosecondsLeft =
      nanoseconds - (Self.nanoseconds(CLOCK_THREAD_CPUTIME_ID) - threadStart)
    guard nanosecondsLeft > 0 else {
      throw PeftoolError(
        .unsupported, "matching '\(expression.pattern.printable)' takes too long")
    }
  }

  private static func nanoseconds(_ clock: clockid_t) -> Int {
    var time = timespec()
    // It fails for clocks that there are not, and these are.
    unsafe clock_gettime(clock, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
  }

  /// Calls Oniguruma; the result is negative where there is no match.
  private mutating func match(
    _ text: Span<UInt8>, at place: Int, of expression: RegularExpression, steps: Int
  ) -> Int32 {
    if limit != steps {
      unsafe onig_set_retry_limit_in_match_of_match_param(parameters, UInt(steps))
      limit = steps
    }
    // The pointers live through the call; onig_match keeps none of them but fills the region.
    return unsafe text.withUnsafeBufferPointer { buffer in
      // Without bytes there is no address, and Oniguruma wants one.
      var none: UInt8 = 0
      return unsafe withUnsafePointer(to: &none) { none in
        let start = unsafe buffer.baseAddress ?? none
        return unsafe onig_match_with_param(
          expression.compiled, start, start + buffer.count, start + place, region,
          OnigOptionType(ONIG_OPTION_NONE), parameters)
      }
    }
  }
}
