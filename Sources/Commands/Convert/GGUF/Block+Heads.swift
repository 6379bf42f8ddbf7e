import Files

// ggml turns neighbouring rows of a head, transformers row i together with row i + rows / 2; so
// llama.cpp's converter puts the rows of q and k into another order.
extension Block {
  /// Puts the rows of each head's halves side by side: row i becomes row 2i, and row i + rows / 2
  /// row 2i + 1.
  func interleave(rows: Int, rowByteCount: Int, into other: inout Block) {
    let headByteCount = rows * rowByteCount
    var written = other.mutableBytes(byteCount)
    let read = bytes(byteCount)
    for head in stride(from: 0, to: byteCount - headByteCount + 1, by: headByteCount) {
      for row in 0..<rows {
        let from = head + row * rowByteCount
        let to = head + (row % (rows / 2) * 2 + row / (rows / 2)) * rowByteCount
        var target = written._mutatingExtracting(to..<to + rowByteCount)
        target.copy(read.extracting(from..<from + rowByteCount))
      }
    }
  }
}
