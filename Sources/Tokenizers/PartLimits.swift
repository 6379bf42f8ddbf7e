import Files
import JSON

/// What a file's normalizer, pre-tokenizer and decoder may have, counted before any of it is read.
///
/// A pattern costs time when it is compiled, up to seconds for 4 KiB of classes that ignore case.
enum PartLimits {
  /// The most steps of a normalizer, a pre-tokenizer or a decoder.
  static let maximumStepCount = 256
  /// The most bytes of all regular expressions of a file together.
  static let maximumPatternByteCount = 4096

  /// Checks parts by their names.
  ///
  /// - Throws: `unsupported` where one has too many steps, or all have too long patterns.
  static func check(_ parts: [(name: String, json: JSON)]) throws(PeftoolError) {
    var patternByteCount = 0
    for part in parts {
      var stepCount = 0
      count(part.json, steps: &stepCount, patternBytes: &patternByteCount)
      try check(stepCount: stepCount, of: part.name)
    }
    guard patternByteCount <= maximumPatternByteCount else {
      throw PeftoolError(
        .unsupported,
        "its regular expressions have \(patternByteCount) bytes together, expected at most "
          + "\(maximumPatternByteCount)")
    }
  }

  /// - Throws: `unsupported` where there are too many steps.
  static func check(stepCount: Int, of name: String) throws(PeftoolError) {
    guard stepCount <= maximumStepCount else {
      throw PeftoolError(
        .unsupported, "\(name) has \(stepCount) steps, expected at most \(maximumStepCount)")
    }
  }

  /// Counts whatever has a type but sequences, and the bytes of every `Regex`.
  private static func count(_ json: JSON, steps: inout Int, patternBytes: inout Int) {
    switch json {
    case .object(let members):
      if let type = json["type"], type != .string("Sequence") { steps += 1 }
      for member in members {
        if case .string(let pattern) = member.value, member.key.isExactly("Regex") {
          patternBytes += pattern.utf8.count
        }
        count(member.value, steps: &steps, patternBytes: &patternBytes)
      }
    case .array(let elements):
      for element in elements { count(element, steps: &steps, patternBytes: &patternBytes) }
    default: break
    }
  }
}
