// The rows of a factor of AdaLoRA ought to be orthonormal, as singular vectors are.
extension TrainableParameter {
  /// Adds the gradient of weight·‖X·Xᵀ − I‖ (Frobenius) of the rows X: weight·2·(X·Xᵀ − I)·X / ‖·‖.
  ///
  /// Source: PEFT `adalora/model.py` (`forward`); nothing is added where the norm is 0.
  /// - Returns: the norm.
  package func addOrthogonality(_ weight: Double) -> Double {
    let (rank, width) = (values.count, values.columns)
    let excess = Rows(rank, rank)
    let panels = Rows(1, Panels.floatCount(depth: width, columns: rank))
    excess.multiply(values, Panels(transposing: values, in: panels))
    for place in 0..<rank { excess[place, place] -= 1 }
    let norm = excess.sumOfProducts(excess).squareRoot()
    guard norm > 0 else { return 0 }
    excess.scale(by: Float(2 * weight / norm))
    gradient.multiply(excess, values, adding: true)
    return norm
  }
}
