import Checkpoints
import Fixtures
import LinearAlgebra
import Testing

@testable import Adapters

/// Whole changes of two adapters against their definition in f64.
@Suite struct WholeChangesTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func weight(isTransposed: Bool) throws -> (Matrix<Double>, BaseWeight) {
    let values = random(9, 7, seed: 77).elements.map(Float.init)
    let matrix = Matrix<Double>(Matrix(rows: 9, columns: 7, elements: values))
    let stored = isTransposed ? matrix.transposed() : matrix
    let path = try scratch.write(
      "w.safetensors",
      [Values("w", [stored.rows, stored.columns], stored.elements.map(Float.init))])
    let checkpoint = try Checkpoint(opening: path)
    let info = try #require(checkpoint["w"])
    return (
      matrix,
      BaseWeight(
        stored: StoredTensor(info, in: checkpoint.source), isTransposed: isTransposed)
    )
  }

  /// W' − W, in the order of W.
  private func change(_ w: Matrix<Double>, _ term: Term, _ m: [Double]?) -> [Double] {
    let d = product(term.b, term.a)
    return (0..<9).flatMap { row -> [Double] in
      let range = row * 7..<(row + 1) * 7
      let v = range.map { w.elements[$0] + term.scaling * d.elements[$0] }
      let norm = v.reduce(0) { $0 + $1 * $1 }.squareRoot()
      return zip(v, range).map { $0 * (m.map { $0[row] / norm } ?? 1) - w.elements[$1] }
    }
  }

  @Test(arguments: [false, true], [0, 1, 2])
  func figuresAreThoseOfTheChanges(isTransposed: Bool, doraCount: Int) throws {
    let (w, stored) = try weight(isTransposed: isTransposed)
    let terms = terms(ranks: [2, 3], weights: [1, 1])
    let all = [5, 6].map { random(9, 1, seed: $0).elements.map { 1.5 + 0.2 * $0 } }
    let magnitudes = (0..<2).map { $0 < doraCount ? all[$0] : nil }
    let found = try WholeChanges(
      terms[0], terms[1], magnitudes: (magnitudes[0], magnitudes[1]), of: stored)
    let (one, two) = (change(w, terms[0], magnitudes[0]), change(w, terms[1], magnitudes[1]))
    #expect((found.squaredNorms.left.squareRoot() - one.norm).magnitude < 1e-13)
    #expect((found.squaredNorms.right.squareRoot() - two.norm).magnitude < 1e-13)
    #expect((found.inner - zip(one, two).reduce(0) { $0 + $1.0 * $1.1 }).magnitude < 1e-12)
    let difference = zip(one, two).map { $0 - $1 }.norm
    #expect((found.squaredDifference.squareRoot() - difference).magnitude < 1e-13)
  }

  /// A billionth of m is told as exactly as all of it.
  @Test func aSmallDifferenceIsNotLost() throws {
    let (w, stored) = try weight(isTransposed: false)
    let term = terms(ranks: [3], weights: [1])[0]
    let m = random(9, 1, seed: 5).elements.map { 1.5 + 0.2 * $0 }
    let other = m.map { $0 * (1 + 1e-9) }
    let found = try WholeChanges(term, term, magnitudes: (m, other), of: stored)
    let difference = zip(change(w, term, m), change(w, term, other)).map { $0 - $1 }.norm
    #expect((found.squaredDifference.squareRoot() / difference - 1).magnitude < 1e-5)
  }
}
