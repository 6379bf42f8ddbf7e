/// What went wrong, where, and what was expected: the one error type below `Commands`.
///
/// It is shown as one line, `FILE: tensor 'NAME': byte N: REASON`. Names in it may come out of
/// files; `description` escapes them.
package struct PeftoolError: Error, Equatable, Sendable {
  /// The kind decides nothing but how a caller may react; the status is 2 for each.
  package enum Kind: Sendable {
    /// Two things that should fit each other do not.
    case different
    /// A file breaks its format's rules, or is cut short.
    case damaged
    /// The file may be sound, but peftool does not do this with it.
    case unsupported
    /// The operating system refused.
    case io
    /// A signal or a failure elsewhere ended the work.
    case interrupted
  }

  /// What went wrong, roughly.
  package let kind: Kind
  /// What was found and what was expected.
  package let reason: String
  /// The place in the file, or in the tensor where that is known.
  package var offset: Int?
  /// The tensor's name.
  package var tensor: String?
  /// The file.
  package var path: String?

  /// An error with as much of its place as the thrower knows.
  package init(
    _ kind: Kind, _ reason: String, offset: Int? = nil, tensor: String? = nil, path: String? = nil
  ) {
    self.kind = kind
    self.reason = reason
    self.offset = offset
    self.tensor = tensor
    self.path = path
  }

  /// The same error with its place filled in where it was unknown.
  package func at(tensor: String? = nil, path: String? = nil) -> PeftoolError {
    var error = self
    error.tensor = error.tensor ?? tensor
    error.path = error.path ?? path
    return error
  }

  /// The error of a line of a file, unless it says already what it is of.
  package func at(line: Int, path: String) -> PeftoolError {
    self.path == nil ? PeftoolError(kind, "line \(line): \(reason)", path: path) : self
  }
}

extension PeftoolError: CustomStringConvertible {
  /// The line that a user reads, without the program's name.
  package var description: String {
    var parts: [String] = []
    if let path { parts.append(path.printable) }
    if let tensor { parts.append("tensor '\(tensor.printable)'") }
    if let offset { parts.append("byte \(offset)") }
    parts.append(reason)
    return parts.joined(separator: ": ")
  }
}
