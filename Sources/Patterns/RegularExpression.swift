import COniguruma
package import Files
import Synchronization

/// A regular expression in Python's syntax, as PEFT's configuration files hold them, or in
/// Oniguruma's own, as a `tokenizer.json` does.
///
/// Compiled and matched by Oniguruma with a cap on the pattern's length and nesting and on the
/// steps that a match may take, as the pattern may come out of a hostile file.
@safe
package final class RegularExpression: @unchecked Sendable {
  // Written once in init; Oniguruma only reads it afterwards.
  let compiled: OnigRegex
  let pattern: String

  /// How a pattern is spelt.
  package enum Syntax: Sendable {
    /// As for Python's `re`.
    case python
    /// As the `tokenizers` library takes it.
    case oniguruma
  }

  private static let maximumPatternByteCount = 4096
  private static let maximumRetryCount: UInt = 10_000

  /// Held while Oniguruma sets itself up and compiles.
  ///
  /// Both write tables of its own that all threads share; matching does not.
  private static let compiling = Mutex(())

  /// Compiles a pattern.
  ///
  /// - Throws: `damaged` where it is no regular expression or longer than 4,096 bytes.
  package init(_ pattern: String, syntax: Syntax = .python) throws(PeftoolError) {
    guard pattern.utf8.count <= Self.maximumPatternByteCount else {
      throw PeftoolError(
        .damaged,
        "a pattern of \(pattern.utf8.count) bytes, at most \(Self.maximumPatternByteCount) are taken"
      )
    }
    let bytes = Array(pattern.utf8)
    let (status, regex) = unsafe Self.compiling.withLock { _ in
      onig_set_parse_depth_limit(100)
      var encodings: [OnigEncoding?] = unsafe [Self.utf8]
      unsafe onig_initialize(&encodings, 1)
      var regex: OnigRegex?
      var info = unsafe OnigErrorInfo()
      // The pointers live through the call, and onig_new keeps none of them.
      let status = unsafe bytes.withUnsafeBufferPointer { text in
        let start = text.baseAddress
        return unsafe onig_new(
          &regex, start, start.map { unsafe $0 + text.count }, OnigOptionType(ONIG_OPTION_NONE),
          Self.utf8, syntax == .python ? Self.pythonSyntax : Self.ownSyntax, &info)
      }
      nonisolated(unsafe) let result = unsafe regex
      return unsafe (status, result)
    }
    guard status == ONIG_NORMAL, let regex = unsafe regex else {
      throw PeftoolError(.damaged, "'\(pattern.printable)' is no regular expression")
    }
    unsafe compiled = regex
    self.pattern = pattern
  }

  deinit { unsafe onig_free(compiled) }

  /// Whether the pattern matches from the text's first character on (Python's `re.match`).
  ///
  /// - Throws: `unsupported` where the match takes too many steps.
  package func matchesStart(of text: String) throws(PeftoolError) -> Bool {
    let bytes = Array(text.utf8)
    return try unsafe matching { parameters in
      // The pointers live through the call, and onig_match keeps none of them.
      unsafe bytes.withUnsafeBufferPointer { text in
        let start = text.baseAddress
        let end = unsafe start.map { unsafe $0 + text.count }
        return unsafe onig_match_with_param(
          compiled, start, end, start, nil, OnigOptionType(ONIG_OPTION_NONE), parameters)
      }
    } >= 0
  }

  /// Does a match with a cap on its steps; the result is Oniguruma's, negative for no match.
  func matching(_ match: (OpaquePointer) -> Int32) throws(PeftoolError) -> Int32 {
    guard let parameters = unsafe onig_new_match_param() else {
      throw PeftoolError(.io, "no memory to match '\(pattern.printable)'")
    }
    defer { unsafe onig_free_match_param(parameters) }
    unsafe onig_initialize_match_param(parameters)
    unsafe onig_set_retry_limit_in_match_of_match_param(parameters, Self.maximumRetryCount)
    let status = unsafe match(parameters)
    guard status >= 0 || status == ONIG_MISMATCH else {
      throw PeftoolError(
        .unsupported, "matching '\(pattern.printable)' takes too many steps")
    }
    return status
  }

  // Three constants of Oniguruma's that C spells as macros over its globals, which it never changes.
  private static var utf8: OnigEncoding { unsafe pef_onig_utf8() }
  private static var pythonSyntax: UnsafeMutablePointer<OnigSyntaxType> {
    unsafe pef_onig_python_syntax()
  }
  private static var ownSyntax: UnsafeMutablePointer<OnigSyntaxType> {
    unsafe pef_onig_own_syntax()
  }
}
