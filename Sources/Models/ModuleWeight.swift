import Checkpoints

/// A module's weight (outputs, inputs): frozen, or floats that are trained, all rows or some.
package enum ModuleWeight: Sendable {
  /// As it lies in the file.
  case frozen(FrozenWeight)
  /// Trained whole: PEFT's `modules_to_save`.
  case whole(TrainableParameter)
  /// Frozen but for some rows.
  case rows(FrozenWeight, TrainedRows)

  /// The rows.
  package var outputs: Int {
    switch self {
    case .frozen(let weight), .rows(let weight, _): weight.outputs
    case .whole(let parameter): parameter.values.count
    }
  }

  /// The columns.
  package var inputs: Int {
    switch self {
    case .frozen(let weight), .rows(let weight, _): weight.inputs
    case .whole(let parameter): parameter.values.columns
    }
  }

  /// The bytes of what is frozen.
  package var byteCount: Int {
    switch self {
    case .frozen(let weight), .rows(let weight, _): weight.byteCount
    case .whole: 0
    }
  }

  /// Whether it is coded in few bits.
  package var isQuantized: Bool {
    switch self {
    case .frozen(let weight), .rows(let weight, _): weight.isQuantized
    case .whole: false
    }
  }

  /// Whether all or some of it is trained.
  var isTrained: Bool {
    if case .frozen = self { false } else { true }
  }

  /// All of it, in f32.
  package var values: [Float] {
    let rows = Rows(outputs, inputs)
    widen(rows: 0..<outputs, columns: 0..<inputs, into: rows)
    return rows.values
  }

  /// Some columns of some rows, in f32: as `FrozenWeight.widen`.
  func widen(rows: Range<Int>, columns: Range<Int>, into tile: Rows) {
    switch self {
    case .frozen(let weight): weight.widen(rows: rows, columns: columns, into: tile)
    case .whole(let parameter):
      tile.copy(from: parameter.values.rows(rows).columns(columns))
    case .rows(let weight, let trained):
      weight.widen(rows: rows, columns: columns, into: tile)
      for (row, place) in trained.within(rows) {
        let own = row - rows.lowerBound
        tile.rows(own..<own + 1).copy(
          from: trained.parameter.values.rows(place..<place + 1).columns(columns))
      }
    }
  }

  /// y = x·Wᵀ for some rows of W and few rows of x: as `FrozenWeight.multiply`.
  func multiply(rows: Range<Int>, by x: Rows, into y: Rows, tile: Rows) {
    switch self {
    case .frozen(let weight): weight.multiply(rows: rows, by: x, into: y, tile: tile)
    case .whole(let parameter): Self.multiply(parameter.values.rows(rows), by: x, into: y)
    case .rows(let weight, let trained):
      weight.multiply(rows: rows, by: x, into: y, tile: tile)
      for (row, place) in trained.within(rows) {
        let own = row - rows.lowerBound
        Self.multiply(
          trained.parameter.values.rows(place..<place + 1), by: x, into: y.columns(own..<own + 1))
      }
    }
  }

  private static func multiply(_ weight: Rows, by x: Rows, into y: Rows) {
    for place in 0..<x.count {
      weight.multiplyRows(by: x.rows(place..<place + 1), into: y.rows(place..<place + 1))
    }
  }

  /// What is trained of a weight that is trained whole.
  var whole: TrainableParameter? {
    if case .whole(let parameter) = self { parameter } else { nil }
  }

  /// The rows that are trained of a weight that is frozen but for them.
  var trainedRowCount: Int {
    if case .rows(_, let trained) = self { trained.tokens.count } else { 0 }
  }

  /// dW += dyᵀ·x of some of those rows: each number is added up by itself.
  ///
  /// Shapes: dy (N, outputs), x (N, inputs).
  func addRowGradients(of part: Range<Int>, _ dy: Rows, _ x: Rows) {
    guard case .rows(_, let trained) = self else { return }
    for place in part {
      let row = trained.tokens[place]
      trained.parameter.gradient.rows(place..<place + 1)
        .multiply(transposed: dy.columns(row..<row + 1), x, adding: true)
    }
  }
}

/// Rows that are trained in the place of a table's own: PEFT's `trainable_token_indices`.
package struct TrainedRows: Sendable {
  /// The rows, (tokens, hidden).
  package let parameter: TrainableParameter
  /// The table's row that each stands for; each once.
  package let tokens: [Int]
  private let sorted: [(row: Int, place: Int)]

  init(_ parameter: TrainableParameter, tokens: [Int]) {
    precondition(parameter.values.count == tokens.count, "a row a token")
    self.parameter = parameter
    self.tokens = tokens
    sorted = tokens.enumerated().map { ($1, $0) }.sorted { $0.row < $1.row }
  }

  /// Those that stand for some of the table's rows, with their own places.
  func within(_ rows: Range<Int>) -> ArraySlice<(row: Int, place: Int)> {
    let first = firstPlace(from: rows.lowerBound)
    return sorted[first..<max(first, firstPlace(from: rows.upperBound))]
  }

  /// The first in the order of the rows that stands for this row or a later one.
  private func firstPlace(from row: Int) -> Int {
    var (low, high) = (0, sorted.count)
    while low < high {
      let middle = (low + high) / 2
      if sorted[middle].row < row { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
