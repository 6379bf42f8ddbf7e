import CKernels
package import Files

/// Matrices turned around, as they lie in a file.
package enum Transposition {
  /// to (columns, rows) = from (rows, columns)ᵀ, for elements of 2 or 4 bytes.
  package static func transpose(
    _ from: RawSpan, rows: Int, columns: Int, elementByteCount: Int, into to: inout MutableRawSpan
  ) {
    precondition(elementByteCount == 2 || elementByteCount == 4)
    let byteCount = rows * columns * elementByteCount
    precondition(from.byteCount >= byteCount && to.byteCount >= byteCount)
    // The pointers live through the call, which touches no more than byteCount bytes of each.
    unsafe from.withUnsafeBytes { from in
      unsafe to.withUnsafeMutableBytes {
        unsafe pef_transpose(elementByteCount, from.baseAddress, rows, columns, $0.baseAddress)
      }
    }
  }
}

extension Block {
  /// A matrix turned around; elements have 2 or 4 bytes.
  package borrowing func transposed(
    rows: Int, columns: Int, elementByteCount: Int
  ) -> Block {
    let byteCount = rows * columns * elementByteCount
    var turned = Block(byteCount: byteCount)
    var span = turned.mutableBytes(byteCount)
    Transposition.transpose(
      bytes(byteCount), rows: rows, columns: columns, elementByteCount: elementByteCount,
      into: &span)
    return turned
  }
}
