/// Memory for one block of a file, owned by one worker and used again for each block.
///
/// Aligned to 64 bytes, so that it can hold any element type. Its bytes start as zeros.
@safe
package struct Block: ~Copyable, @unchecked Sendable {
  // Who writes has the one owner to itself, so that any thread may have it.
  private let memory: UnsafeMutableRawBufferPointer

  /// Room for `byteCount` bytes.
  package init(byteCount: Int) {
    unsafe memory = .allocate(byteCount: max(byteCount, 1), alignment: 64)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe memory.deallocate() }

  /// Makes room for so many bytes, whose values do not matter.
  package mutating func reserve(_ byteCount: Int) {
    if self.byteCount < byteCount { self = Block(byteCount: byteCount) }
  }

  /// The bytes there is room for.
  package var byteCount: Int { unsafe memory.count }

  /// The first `count` bytes.
  @_lifetime(borrow self)
  package func bytes(_ count: Int) -> RawSpan {
    precondition(count >= 0 && count <= byteCount, "a part of the block")
    // The span cannot outlive the borrow of the owner, and the count has been checked.
    let span = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: memory[..<count]))
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// The first `count` bytes, to be written.
  @_lifetime(&self)
  package mutating func mutableBytes(_ count: Int) -> MutableRawSpan {
    precondition(count >= 0 && count <= byteCount, "a part of the block")
    // The span cannot outlive the exclusive access to the owner, and the count has been checked.
    let span = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: memory[..<count]))
    return unsafe _overrideLifetime(span, mutating: &self)
  }
}
