import Files

// ggml turns neighbouring rows of a head, transformers row i together with row i + rows / 2; so
// llama.cpp's converter puts the rows of q and k into another order.
extension Block {
  /// Puts the even rows of each head before its odd ones: row 2i becomes row i, and row 2i + 1 row
  /// i + rows / 2.
  func deinterleave(rows: Int, rowByteCount: Int, into other: inout Block) {
    moveRows(of: rows, rowByteCount, into: &other) { row in row / 2 + row % 2 * (rows / 2) }
  }

  /// The opposite: row i becomes row 2i, and row i + rows / 2 row 2i + 1.
  func interleave(rows: Int, rowByteCount: Int, into other: inout Block) {
    moveRows(of: rows, rowByteCount, into: &other) { row in
      row % (rows / 2) * 2 + row / (rows / 2)
    }
  }

  /// Gives each row of each head of so many rows its place in another block.
  private func moveRows(
    of rows: Int, _ rowByteCount: Int, into other: inout Block, to place: (Int) -> Int
  ) {
    let headByteCount = rows * rowByteCount
    var written = other.mutableBytes(byteCount)
    let read = bytes(byteCount)
    for head in stride(from: 0, to: byteCount - headByteCount + 1, by: headByteCount) {
      for row in 0..<rows {
        let from = head + row * rowByteCount
        let to = head + place(row) * rowByteCount
        var target = written._mutatingExtracting(to..<to + rowByteCount)
        target.copy(read.extracting(from..<from + rowByteCount))
      }
    }
  }
}
