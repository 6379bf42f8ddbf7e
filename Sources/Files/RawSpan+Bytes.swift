import Glibc

extension RawSpan {
  /// Whether another span has the same bytes.
  package func isEqual(to other: RawSpan) -> Bool {
    guard byteCount == other.byteCount else { return false }
    // Both buffers live through the comparison, and have as many bytes.
    return unsafe withUnsafeBytes { a in
      unsafe other.withUnsafeBytes { b in
        guard let left = a.baseAddress, let right = b.baseAddress else { return true }
        return unsafe memcmp(left, right, a.count) == 0
      }
    }
  }
}

extension MutableRawSpan {
  /// Its first bytes become those of another span, which is no longer than it is.
  package mutating func copy(_ bytes: RawSpan) {
    precondition(bytes.byteCount <= byteCount, "room for the bytes")
    // Both live through the call, and the precondition holds the copy inside.
    unsafe withUnsafeMutableBytes { to in
      unsafe bytes.withUnsafeBytes { unsafe to.copyMemory(from: $0) }
    }
  }
}

extension Block {
  /// Copies a range of its bytes to the beginning of a span.
  package borrowing func copy(_ range: Range<Int>, into span: inout MutableRawSpan) {
    span.copy(bytes(range.upperBound).extracting(range))
  }
}
