import LinearAlgebra

@testable import Adapters

/// s·B·A of each module.
func updates(_ adapter: LowRankAdapter) throws -> [String: Matrix<Double>] {
  var updates: [String: Matrix<Double>] = [:]
  for module in adapter.modules {
    let term = try module.term(weight: 1)
    updates[module.path] = product(term.b.scaled(by: term.scaling), term.a)
  }
  return updates
}

/// ‖left − right‖ / ‖right‖.
func relativeDistance(_ left: Matrix<Double>, _ right: Matrix<Double>) -> Double {
  let difference = zip(left.elements, right.elements).map { $0 - $1 }
  return (difference.squaredNorm / right.elements.squaredNorm).squareRoot()
}
