import COniguruma
package import Files

/// Searches of one text for the matches of patterns, with a cap on the steps of them all.
///
/// Most searches take a few steps. One that takes more than `firstStepCount` is done anew with ten
/// times as many, up to what Oniguruma allows by itself, and what was done in vain is charged to
/// the text: a pattern whose time grows with the text's length stays far below `stepsPerByte`.
@safe
package struct PatternSearch: ~Copyable {
  // Both belong to this value alone, and are freed with it.
  private let region: UnsafeMutablePointer<OnigRegion>
  private let parameters: OpaquePointer
  private var stepsLeft: Int
  private var limit = 0

  private static let firstStepCount = 1000
  /// Oniguruma's own `retry_limit_in_match`, which the `tokenizers` library leaves as it is.
  package static let maximumStepCount = 10_000_000
  private static let stepsPerByte = 100
  /// 40 bytes each: a run of eight million spaces, say, matched by `\s+`.
  private static let maximumStackCount: UInt32 = 1 << 23

  /// Prepares for searches in a text; beside what grows with the text, so many steps may be taken.
  ///
  /// - Throws: `io` where memory is out.
  package init(
    textByteCount: Int, spareStepCount: Int = PatternSearch.maximumStepCount
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
  }

  deinit {
    unsafe onig_region_free(region, 1)
    unsafe onig_free_match_param(parameters)
  }

  /// The first match from a place on; what stands before that place is seen by lookbehinds only.
  ///
  /// - Throws: `unsupported` where the searches of this text take too many steps.
  package mutating func firstMatch(
    of expression: RegularExpression, in text: Span<UInt8>, from place: Int
  ) throws(PeftoolError) -> Range<Int>? {
    precondition((0...text.count).contains(place))
    var steps = Self.firstStepCount
    while true {
      let status = search(text, from: place, for: expression, steps: steps)
      if status >= 0 {
        // The region of a match has at least one group, that of the whole match.
        return unsafe Int(region.pointee.beg[0])..<Int(region.pointee.end[0])
      }
      if status == ONIG_MISMATCH { return nil }
      stepsLeft -= steps
      let isOutOfSteps =
        status == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER || status == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER
      guard isOutOfSteps, steps < Self.maximumStepCount, stepsLeft > 0 else {
        throw PeftoolError(
          .unsupported, "matching '\(expression.pattern.printable)' takes too many steps")
      }
      steps *= 10
    }
  }

  /// Calls Oniguruma; the result is negative where there is no match.
  private mutating func search(
    _ text: Span<UInt8>, from place: Int, for expression: RegularExpression, steps: Int
  ) -> Int32 {
    if limit != steps {
      unsafe onig_set_retry_limit_in_match_of_match_param(parameters, UInt(steps))
      unsafe onig_set_retry_limit_in_search_of_match_param(parameters, UInt(steps))
      limit = steps
    }
    // The pointers live through the call; onig_search keeps none of them but fills the region.
    return unsafe text.withUnsafeBufferPointer { buffer in
      // Without bytes there is no address, and Oniguruma wants one.
      var none: UInt8 = 0
      return unsafe withUnsafePointer(to: &none) { none in
        let start = unsafe buffer.baseAddress ?? none
        let end = unsafe start + buffer.count
        return unsafe onig_search_with_param(
          expression.compiled, start, end, start + place, end, region,
          OnigOptionType(ONIG_OPTION_NONE), parameters)
      }
    }
  }
}
