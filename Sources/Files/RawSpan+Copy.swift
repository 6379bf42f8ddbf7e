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
