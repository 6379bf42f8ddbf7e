/// Bytes that are written once and then held by several.
@safe
package final class Bytes: @unchecked Sendable {
  // Written in `init` alone, and read by any thread after.
  private let memory: UnsafeMutableRawBufferPointer
  /// How many there are.
  package var count: Int { unsafe memory.count }

  /// Bytes that a closure writes over zeros.
  ///
  /// - Throws: what the closure throws.
  package init(
    count: Int, _ fill: (inout MutableRawSpan) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    unsafe memory = .allocate(byteCount: count, alignment: 64)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
    // The memory is this object's alone until it is there.
    var bytes = unsafe MutableRawSpan(_unsafeBytes: memory)
    try fill(&bytes)
  }

  deinit { unsafe memory.deallocate() }

  /// The bytes.
  package var span: RawSpan {
    @_lifetime(borrow self) borrowing get {
      // The memory lives as long as this object, whose borrow the span cannot outlive.
      let span = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(memory))
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }
}
