import Checkpoints
import Files
import Fixtures
import LinearAlgebra
import Testing

@testable import Adapters

/// A sum of DoRA updates against its definition in f64.
@Suite struct DoRASumTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// A (9, 7) weight in a file, or turned around.
  private func weight(isTransposed: Bool) throws -> (Matrix<Double>, StoredTensor) {
    let values = random(9, 7, seed: 77).elements.map(Float.init)
    let matrix = Matrix<Double>(Matrix(rows: 9, columns: 7, elements: values))
    let stored = isTransposed ? matrix.transposed() : matrix
    let path = try scratch.write(
      "w\(isTransposed).safetensors",
      [Values("w", [stored.rows, stored.columns], stored.elements.map(Float.init))])
    let checkpoint = try Checkpoint(opening: path)
    let info = try #require(checkpoint["w"])
    return (matrix, StoredTensor(info, in: checkpoint.source))
  }

  /// diag(m / ‖W + d‖)·(W + d), or W + d.
  private func merged(
    _ w: Matrix<Double>, _ term: Term, _ m: [Double]?
  ) -> Matrix<Double> {
    let d = product(term.b, term.a)
    var v = w
    for place in v.elements.indices { v.elements[place] += term.scaling * d.elements[place] }
    guard let m else { return v }
    for row in 0..<9 {
      let range = row * 7..<(row + 1) * 7
      let norm = v.elements[range].reduce(0) { $0 + $1 * $1 }.squareRoot()
      for place in range { v.elements[place] *= m[row] / norm }
    }
    return v
  }

  @Test(arguments: [false, true])
  func aMixtureIsADoRAUpdate(isTransposed: Bool) throws {
    let (w, stored) = try weight(isTransposed: isTransposed)
    let terms = terms(ranks: [2, 3, 4], weights: [0.7, -0.6, 0.9])
    let magnitudes: [[Double]?] = [
      random(9, 1, seed: 5).elements.map { 1.5 + 0.2 * $0 }, nil,
      random(9, 1, seed: 6).elements.map { 1.5 + 0.2 * $0 },
    ]
    var target = w
    for (term, m) in zip(terms, magnitudes) {
      let merged = merged(w, term, m)
      for place in target.elements.indices {
        target.elements[place] += term.weight * (merged.elements[place] - w.elements[place])
      }
    }
    let base = try BaseProjection(
      of: BaseWeight(stored: stored, isTransposed: isTransposed),
      onto: Matrix(stacking: terms.map(\.a)))
    let (pair, factors, magnitude) = try DoRASum.combine(terms, magnitudes: magnitudes, base: base)
    let found = merged(
      w, Term(a: pair.a, b: pair.b, scaling: 1, weight: 1), magnitude)
    #expect(distance(found, target) < 1e-13)
    let scaled = merged(w, Term(a: pair.a, b: pair.b, scaling: 1, weight: 1), nil)
      .scaled(rows: factors)
    #expect(distance(scaled, target) < 1e-13)
  }

  @Test func aRowThatIsTurnedAroundIsRefused() throws {
    let (w, stored) = try weight(isTransposed: false)
    let terms = terms(ranks: [2], weights: [-3])
    let base = try BaseProjection(
      of: BaseWeight(stored: stored, isTransposed: false), onto: terms[0].a)
    // f is far above 1, so that c = 1 − 3·(f − 1) is below 0.
    let m = (0..<9).map { _ in 50.0 }
    #expect(w.rows == 9)
    #expect {
      try DoRASum.combine(terms, magnitudes: [m], base: base)
    } throws: {
      ($0 as? PeftoolError)?.reason.contains("no DoRA adapter can hold it") == true
    }
  }
}
