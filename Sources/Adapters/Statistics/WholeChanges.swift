import Files
import LinearAlgebra
import Tensors

/// What two adapters change in one weight, W'₁ − W and W'₂ − W, in figures.
///
/// DoRA's change is diag(f − 1)·W + diag(f)·d with f = m / ‖W + d‖ by rows and d = s·B·A; LoRA's is d.
/// The weight is read twice: for f, and for the changes, which are formed by blocks of rows.
///
/// Precision: f64; the difference of two changes is formed itself, so that it is as exact where they
/// are almost the same. Memory: (out, rank) numbers of both, and blocks of some MiB.
struct WholeChanges: Sendable {
  private(set) var squaredNorms = (left: 0.0, right: 0.0)
  /// ⟨W'₁ − W, W'₂ − W⟩.
  private(set) var inner = 0.0
  /// ‖W'₁ − W'₂‖².
  private(set) var squaredDifference = 0.0

  private static let blockElementCount = 1 << 18

  /// Reads a weight.
  ///
  /// - Parameters:
  ///   - left: the first adapter's update.
  ///   - right: the second's.
  ///   - magnitudes: m of both, nil for LoRA.
  /// - Throws: `io`, `damaged` where a value is not finite, or a row of W + d has no length.
  init(
    _ left: Term, _ right: Term, magnitudes: (left: [Double]?, right: [Double]?),
    of weight: BaseWeight
  ) throws(PeftoolError) {
    let a = Matrix(stacking: [left.a, right.a])
    let base = try BaseProjection(of: weight, onto: a)
    let first = try Rows(left, from: 0, of: a.rows, magnitudes.left, base)
    let second = try Rows(right, from: left.rank, of: a.rows, magnitudes.right, base)
    let difference = first.minus(second)
    let (stored, isTransposed) = (weight.stored, weight.isTransposed)
    let (rows, columns) = (stored.rowCount, stored.columnCount)
    let step = max(1, Self.blockElementCount / max(1, columns))
    for start in stride(from: 0, to: rows, by: step) {
      let range = start..<min(start + step, rows)
      var block = Matrix(
        rows: range.count, columns: columns, elements: try stored.values(rows: range))
      // Of a weight that lies turned around the block has all outputs, and some of the inputs.
      let inputs = isTransposed ? a.columns(range) : a
      let outputs = isTransposed ? 0..<columns : range
      if isTransposed { block = block.transposed() }
      let one = first.change(of: block, outputs, inputs)
      let two = second.change(of: block, outputs, inputs)
      let between = difference.change(of: block, outputs, inputs)
      squaredNorms.left += one.elements.squaredNorm
      squaredNorms.right += two.elements.squaredNorm
      inner += zip(one.elements, two.elements).reduce(0) { $0 + $1.0 * $1.1 }
      squaredDifference += between.elements.squaredNorm
    }
  }

  /// A change diag(x)·W + C·Â in its factors, Â the A of both below each other.
  private struct Rows {
    /// x, f − 1 of each row.
    var factors: [Double]
    /// C, (out, rank of both).
    var c: Matrix<Double>

    init(
      _ term: Term, from start: Int, of rank: Int, _ magnitude: [Double]?, _ base: BaseProjection
    ) throws(PeftoolError) {
      let outputs = term.b.rows
      var elements = [Double](repeating: 0, count: outputs * rank)
      var factors = [Double](repeating: 0, count: outputs)
      for row in 0..<outputs {
        let place = row * rank
        for column in 0..<term.rank {
          elements[place + start + column] =
            term.scaling * term.b.elements[row * term.rank + column]
        }
        guard let magnitude else { continue }
        let f = try base.factor(
          ofRow: row, adding: elements[place..<place + rank], magnitude: magnitude[row])
        factors[row] = f - 1
        for column in place..<place + rank { elements[column] *= f }
      }
      self.factors = factors
      c = Matrix(rows: outputs, columns: rank, elements: elements)
    }

    /// This less another.
    func minus(_ other: Rows) -> Rows {
      var rest = self
      rest.factors = zip(factors, other.factors).map { $0 - $1 }
      rest.c.elements = zip(c.elements, other.c.elements).map { $0 - $1 }
      return rest
    }

    /// A part of the change: of some outputs, and of the inputs that W and Â are given for.
    func change(
      of weight: Matrix<Double>, _ outputs: Range<Int>, _ a: Matrix<Double>
    ) -> Matrix<Double> {
      let part = Matrix(
        rows: outputs.count, columns: c.columns,
        elements: Array(
          c.elements[outputs.lowerBound * c.columns..<outputs.upperBound * c.columns]))
      var change = product(part, a)
      // A list of its own, in which sums are made in place.
      var elements = change.elements
      var span = elements.mutableSpan
      for row in 0..<outputs.count where factors[outputs.lowerBound + row] != 0 {
        Double.addScaled(
          weight.elements.span, by: factors[outputs.lowerBound + row], to: &span,
          at: row * weight.columns, count: weight.columns)
      }
      change.elements = elements
      return change
    }
  }
}
