import Checkpoints
import Files
package import Tensors

/// An output tensor with its changes' factors in memory, ready for its rows to be merged.
///
/// Memory: the factors A and B in the type that is computed in, and where a norm runs over columns
/// two numbers a column.
package final class PreparedTensor<R: Real>: Sendable {
  let tensor: OutputTensor
  let rounding: Rounding
  let changes: [PreparedChange<R>]

  /// The whole of the only change, with weight 1: then the result is W' itself, and not
  /// W + (W' − W).
  let isSole: Bool

  /// The dtype that an adapter's full values are rounded to first, the base's as in PEFT; nil where
  /// another one is written, for then no merge of PEFT's is there to be equal to, and where they are
  /// the result: that is rounded once.
  let ownRounding: DType?

  /// Reads the factors; a DoRA norm over columns takes a pass over the tensor.
  ///
  /// - Throws: `io`, `damaged` for an adapter's value that is NaN or infinite.
  init(_ tensor: OutputTensor, _ rounding: Rounding) throws(PeftoolError) {
    self.tensor = tensor
    self.rounding = rounding
    isSole = tensor.changes.count == 1 && tensor.changes[0].weight == 1
    let hasPeer = rounding != .once || tensor.dtype == tensor.baseDType
    let isResult = rounding == .once && isSole && tensor.changes[0].change.update == nil
    ownRounding = hasPeer && !isResult ? tensor.baseDType : nil
    var changes: [PreparedChange<R>] = []
    for change in tensor.changes {
      changes.append(
        try PreparedChange(
          change, of: tensor, roundsLikePEFT: rounding != .once || isSole && hasPeer,
          roundsAll: rounding == .peftSafe, ownRounding: ownRounding))
    }
    self.changes = changes
  }
}

/// A change with its factors.
struct PreparedChange<R: Real>: Sendable {
  let weight: R
  let own: StoredTensor?
  let update: PreparedUpdate<R>?

  init(
    _ weighted: OutputTensor.WeightedChange, of tensor: OutputTensor, roundsLikePEFT: Bool,
    roundsAll: Bool, ownRounding: DType?
  ) throws(PeftoolError) {
    weight = R(weighted.weight)
    own = weighted.change.own
    update =
      switch weighted.change.update {
      case nil: nil
      case .lowRank(let d):
        .lowRank(
          try PreparedLowRank(
            d, isRounded: roundsAll || roundsLikePEFT && d.isRoundedByPEFT, of: tensor))
      case .dora(let d, let magnitude, let axis):
        try Self.dora(
          PreparedLowRank(d, isRounded: false, of: tensor),
          magnitude.values(R.self), axis, weighted.change.own ?? tensor.base, ownRounding)
      case .sparse(let s): .sparse(try s.entries(R.self))
      case .multiply(let l, .rows): .multiplyRows(try l.values(R.self))
      case .multiply(let l, .columns(let repeated)):
        .multiplyColumns(
          try l.values(R.self).flatMap { repeatElement($0, count: repeated) })
      case .add(let x, let scaling):
        .add(try x.values(R.self), scaling: R(scaling))
      case .replaceRows(let x, let rows):
        .replaceRows(
          Dictionary(uniqueKeysWithValues: rows.enumerated().map { ($0.element, $0.offset) }),
          try x.values(R.self))
      }
  }

  private static func dora(
    _ d: PreparedLowRank<R>, _ magnitude: [R], _ axis: Change.Axis, _ start: StoredTensor,
    _ rounding: DType?
  ) throws(PeftoolError) -> PreparedUpdate<R> {
    guard axis != .rows else { return .doraRows(d, magnitude: magnitude) }
    var tile = Tile<R>(columns: start.columnCount)
    let norms = try tile.columnNorms(of: start, in: rounding ?? start.dtype, adding: d)
    return .doraColumns(d, factors: zip(magnitude, norms).map { $0 / R($1) })
  }
}

/// The arithmetic of an update with its values.
enum PreparedUpdate<R: Real>: Sendable {
  case lowRank(PreparedLowRank<R>)
  case sparse(SparseEntries<R>)
  case doraRows(PreparedLowRank<R>, magnitude: [R])
  case doraColumns(PreparedLowRank<R>, factors: [R])
  case multiplyRows([R])
  case multiplyColumns([R])
  case add([R], scaling: R)
  /// For a row of the tensor the row of the values.
  case replaceRows([Int: Int], [R])
}

/// A low-rank product with its factors.
struct PreparedLowRank<R: Real>: Sendable {
  let factors: Factors<R>
  let scaling: R
  /// The dtype that the product is rounded to before the sum; nil where it is not.
  let rounding: DType?

  init(_ d: LowRank, isRounded: Bool, of tensor: OutputTensor) throws(PeftoolError) {
    factors = try d.factors(R.self)
    scaling = R(d.scaling)
    // A wide base is computed in f64, where rounding the product would only lose precision.
    rounding = isRounded && !tensor.baseDType.isWide ? tensor.baseDType : nil
  }
}
