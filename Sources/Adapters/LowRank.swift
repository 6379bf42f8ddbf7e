package import Files
package import Tensors

/// A low-rank update of a tensor: d = s·B·A, or AdaLoRA's s·B·diag(E)·A.
///
/// The tensor is seen as a matrix whose rows are its first dimension; fused experts (E, d1, d2) as
/// one of E·d1 rows.
package struct LowRank: Sendable {
  /// The factor A.
  package let a: StoredTensor
  /// The factor B.
  package let b: StoredTensor
  /// AdaLoRA's singular values (r, 1), one for each row of A.
  package var e: StoredTensor?
  /// The rank of one product; for experts of each of them.
  package let rank: Int
  /// The number s.
  package let scaling: Double
  /// How the factors lie to the tensor.
  package let layout: Layout
  /// The columns of the tensor that a column of A stands for: QA-LoRA's groups, of layout `plain`.
  package var columnRepeat = 1
  /// Whether PEFT rounds d to the base's dtype before the sum in its default merge, too: so for
  /// embeddings and `target_parameters`.
  package var isRoundedByPEFT = false
  /// The bias of `lora_B`, (out), where `ChangeResolver` has left it here.
  package var bias: StoredTensor?

  /// How the factors lie to the tensor.
  package enum Layout: Equatable, Sendable {
    /// Tensor (out, in…), A (r, in…), B (out, r…): linear layers and convolutions.
    case plain
    /// Tensor (in, out), A (r, in), B (out, r): Conv1D, and embeddings with in for the vocabulary.
    case transposed
    /// Tensor (E, out, in), or (E, in, out) where transposed; A (r·E, in) expert by expert,
    /// B (out, r·E) with the expert running fastest (PEFT's `ParamWrapper`).
    case experts(Int, isTransposed: Bool)
    /// One expert's tensor (rows, in): the rows of the fused output that it has.
    case expert(Int, of: Int, rows: Range<Int>)
  }

  /// A as it is multiplied by B, with a column for each of the tensor's: diag(E)·A of AdaLoRA.
  ///
  /// - Throws: as `factors`.
  package func inputRows<R: Real>(_ type: R.Type) throws(PeftoolError) -> [R] {
    var a = try a.values(R.self)
    if let e = try e?.values(R.self) {
      let columns = rank > 0 ? a.count / rank : 0
      for row in 0..<rank {
        for column in 0..<columns { a[row * columns + column] *= e[row] }
      }
    }
    return columnRepeat == 1 ? a : a.flatMap { repeatElement($0, count: columnRepeat) }
  }

  /// Reads the factors and lays them out for the kernel.
  ///
  /// - Throws: `io`, and `damaged` where a value is NaN or infinite.
  package func factors<R: Real>(_ type: R.Type) throws(PeftoolError) -> Factors<R> {
    let a = try inputRows(R.self)
    let b = try b.values(R.self)
    let expertCount =
      switch layout {
      case .plain, .transposed: 1
      case .experts(let count, _), .expert(_, let count, _): count
      }
    let inner = rank * expertCount
    let inputs = inner > 0 ? a.count / inner : 0
    let outputs = inner > 0 ? b.count / inner : 0

    /// B of one expert, (rows, rank).
    func left(_ expert: Int, rows: Range<Int>) -> [R] {
      var left: [R] = []
      left.reserveCapacity(rows.count * rank)
      for row in rows {
        for k in 0..<rank { left.append(b[row * inner + k * expertCount + expert]) }
      }
      return left
    }
    /// A of one expert, (rank, inputs).
    func right(_ expert: Int) -> ArraySlice<R> {
      a[(expert * rank * inputs)..<((expert + 1) * rank * inputs)]
    }

    switch layout {
    case .plain:
      return Factors(left: b, right: a, rank: rank, rowsPerSegment: outputs, columns: inputs)
    case .transposed:
      return Factors(
        left: a.transposed(rows: rank), right: b.transposed(rows: outputs), rank: rank,
        rowsPerSegment: inputs, columns: outputs)
    case .experts(let count, isTransposed: false):
      return Factors(
        left: (0..<count).flatMap { left($0, rows: 0..<outputs) }, right: a, rank: rank,
        rowsPerSegment: outputs, columns: inputs)
    case .experts(let count, isTransposed: true):
      return Factors(
        left: (0..<count).flatMap { Array(right($0)).transposed(rows: rank) },
        right: (0..<count).flatMap { left($0, rows: 0..<outputs).transposed(rows: outputs) },
        rank: rank, rowsPerSegment: inputs, columns: outputs)
    case .expert(let expert, _, let rows):
      return Factors(
        left: left(expert, rows: rows), right: Array(right(expert)), rank: rank,
        rowsPerSegment: rows.count, columns: inputs)
    }
  }
}

/// The factors of a low-rank product, as the kernel takes them: left · right.
///
/// The rows of the product come in segments, each with a right factor of its own: the experts.
package struct Factors<R: Real>: Sendable {
  /// For each row of the product, (rank).
  let left: [R]
  /// For each segment, (rank, columns).
  let right: [R]
  let rank: Int
  let rowsPerSegment: Int
  let columns: Int

  /// The rows `rows` of scaling · left · right, at the start of `product`.
  func multiply(rows: Range<Int>, scaling: R, into product: inout [R]) {
    var span = product.mutableSpan
    var row = rows.lowerBound
    while row < rows.upperBound {
      let segment = row / rowsPerSegment
      let end = min(rows.upperBound, (segment + 1) * rowsPerSegment)
      let start = (row - rows.lowerBound) * columns
      var part = span._mutatingExtracting(start..<start + (end - row) * columns)
      R.lowRank(
        into: &part, left: left.span.extracting(row * rank..<end * rank),
        right: right.span.extracting(
          segment * rank * columns..<(segment + 1) * rank * columns),
        rows: end - row, columns: columns, rank: rank, scaling: scaling)
      row = end
    }
  }
}

extension Array {
  /// A matrix of so many rows, transposed.
  fileprivate func transposed(rows: Int) -> [Element] {
    let columns = rows > 0 ? count / rows : 0
    var result: [Element] = []
    result.reserveCapacity(count)
    for column in 0..<columns {
      for row in 0..<rows { result.append(self[row * columns + column]) }
    }
    return result
  }
}
