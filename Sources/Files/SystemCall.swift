import Glibc

/// Calls the operating system, and again for as long as a signal interrupts it (EINTR).
///
/// - Throws: `io` with the system's own message, for any other failure.
@discardableResult
package func systemCall<Result: SignedInteger>(
  _ name: String, path: String? = nil, _ body: () -> Result
) throws(PeftoolError) -> Result {
  let result = uninterrupted(body)
  guard result != -1 else { throw .system(name, path: path) }
  return result
}

/// Calls the operating system, and again for as long as a signal interrupts it (EINTR).
///
/// Where the result is -1, `errno` tells why.
func uninterrupted<Result: SignedInteger>(_ body: () -> Result) -> Result {
  while true {
    let result = body()
    if result != -1 || errno != EINTR { return result }
  }
}

extension PeftoolError {
  /// The error of the system call that has just failed, from `errno`.
  package static func system(_ call: String, path: String? = nil) -> PeftoolError {
    let code = errno
    // strerror returns a valid C string for every code; it is copied at once.
    let message = unsafe String(cString: strerror(code))
    return PeftoolError(.io, "\(call): \(message)", path: path)
  }
}

/// What the system says of an open file.
func fileStatus(_ descriptor: Int32, path: String?) throws(PeftoolError) -> stat {
  var status = stat()
  // fstat fills the one struct that it is given.
  try systemCall("cannot look at it", path: path) { unsafe fstat(descriptor, &status) }
  return status
}
