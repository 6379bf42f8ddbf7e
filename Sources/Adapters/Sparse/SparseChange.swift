import Checkpoints
package import Files
package import Tensors

/// A sparse change of a linear layer's weight: W' = W + S, as SHiRA adapters have it.
///
/// Source: `ShiraLayer.get_delta_weight` of PEFT; the paper is Bhardwaj and others 2024.
package struct SparseChange: Sendable {
  /// The entries of S, (n).
  package let values: StoredTensor
  /// Where they are, (2, n): the row of each, then the column of each.
  package let indices: StoredTensor
  /// The shape of the weight, (out, in).
  let rowCount: Int
  let columnCount: Int

  /// Reads the entries and puts them in order.
  ///
  /// - Throws: `io`; `damaged` where a value is not finite, a place is outside the weight, or two
  ///   entries have one.
  package func entries<R: Real>(_ type: R.Type) throws(PeftoolError) -> SparseEntries<R> {
    let values = try values.values(R.self)
    let places = try indices.integers()
    precondition(places.count == 2 * values.count, "two numbers for each entry")
    var keys: [(place: Int, entry: Int)] = []
    keys.reserveCapacity(values.count)
    for entry in values.indices {
      let (row, column) = (places[entry], places[values.count + entry])
      guard (0..<rowCount).contains(row), (0..<columnCount).contains(column) else {
        throw indices.at(
          PeftoolError(
            .damaged,
            "entry \(entry) is at row \(row), column \(column) of a weight of shape "
              + [rowCount, columnCount].shapeText))
      }
      keys.append((row * columnCount + column, entry))
    }
    keys.sort { $0.place < $1.place }
    for (key, next) in zip(keys, keys.dropFirst()) where key.place == next.place {
      throw indices.at(
        PeftoolError(
          .damaged,
          "has two entries at row \(key.place / columnCount), column \(key.place % columnCount)"))
    }
    var starts = [0]
    starts.reserveCapacity(rowCount + 1)
    var place = 0
    for row in 1...max(1, rowCount) {
      while place < keys.count, keys[place].place < row * columnCount { place += 1 }
      starts.append(place)
    }
    return SparseEntries(
      starts: starts, columns: keys.map { $0.place % columnCount },
      values: keys.map { values[$0.entry] })
  }
}

/// The entries of a sparse matrix by rows.
package struct SparseEntries<R: Real>: Sendable {
  /// Where each row's entries begin, and where the last row's end.
  let starts: [Int]
  /// The column of each.
  let columns: [Int]
  let values: [R]

  /// Adds weight times some rows to a matrix of these rows alone.
  func add(_ rows: Range<Int>, times weight: R, to matrix: inout [R], columnCount: Int) {
    for row in rows {
      let start = (row - rows.lowerBound) * columnCount
      for place in starts[row]..<starts[row + 1] {
        matrix[start + columns[place]] += weight * values[place]
      }
    }
  }
}

extension StoredTensor {
  /// All its values as whole numbers.
  ///
  /// - Throws: `unsupported` for a dtype other than I32 and I64, `io`.
  func integers() throws(PeftoolError) -> [Int] {
    guard dtype == .i32 || dtype == .i64 else {
      throw at(PeftoolError(.unsupported, "is \(dtype.rawValue), expected I32 or I64"))
    }
    let bytes = try source.bytes(of: info)
    let byteCount = dtype.bitCount / 8
    return stride(from: 0, to: bytes.count, by: byteCount).map { start in
      var bits: UInt64 = 0
      for place in 0..<byteCount { bits |= UInt64(bytes[start + place]) << (8 * place) }
      return dtype == .i32
        ? Int(Int32(truncatingIfNeeded: bits)) : Int(Int64(bitPattern: bits))
    }
  }
}
