import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Tensors

/// An adapter as a term of a sum: its low-rank updates by module.
package struct Operand: Sendable {
  /// The path that the user gave.
  package let path: String
  /// What it holds.
  package let adapter: LowRankAdapter
  private let places: [ExactName: Int]

  /// Opens an adapter of PEFT; of its tensors none is read but embeddings saved whole.
  ///
  /// - Parameter base: the model that it is for, which tells whether such an embedding is its own.
  /// - Throws: as `Adapter`, and `unsupported` where it holds what is no low-rank update.
  package init(opening path: String, base: BaseModel? = nil) throws(PeftoolError) {
    self.path = path
    adapter = try PEFTAdapter.read(path, .init(base: base, prefix: nil), for: .arithmetic)
    var places: [ExactName: Int] = [:]
    for (place, module) in adapter.modules.enumerated() { places[ExactName(module.path)] = place }
    self.places = places
  }

  /// What it has for a module.
  subscript(path: String) -> LowRankAdapter.Module? {
    places[ExactName(path)].map { adapter.modules[$0] }
  }
}

extension LowRankAdapter.Module {
  /// The columns of A as a matrix: a convolution's channels times its kernel.
  var inputCount: Int { a.shape.dropFirst().reduce(1, *) }

  /// The factors in numbers.
  ///
  /// - Throws: as `AdapterTensor.bytes`.
  func term(weight: Double, density: Double = 1) throws(PeftoolError) -> Term {
    try Term(
      a: Matrix(rows: rank, columns: inputCount, elements: try a.values()),
      b: Matrix(rows: outputCount, columns: rank, elements: try b.values()),
      scaling: scaling, weight: weight, density: density, bias: bias?.values())
  }
}

extension AdapterTensor {
  /// Its values.
  ///
  /// - Throws: as `bytes`.
  func values() throws(PeftoolError) -> [Double] {
    let bytes = try bytes()
    let count = shape.reduce(1, *)
    var values = [Double](repeating: 0, count: count)
    var span = values.mutableSpan
    // Any bit pattern is an element.
    unsafe Double.widen(bytes.span.bytes, dtype, into: &span, count: count)
    return values
  }
}
