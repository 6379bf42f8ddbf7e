import LinearAlgebra
import Models
import Synchronization
import Tensors

/// The norm of all gradients together, and their clipping.
///
/// Source: torch's `clip_grad_norm_`: the norm of the tensors' norms, and a factor of
/// min(1, limit / (norm + 10⁻⁶)).
enum GradientNorm {
  /// The norm, in f64.
  static func norm(of parameters: [TrainableParameter], _ team: ThreadTeam) -> Double {
    let squares = Mutex([Double](repeating: 0, count: parameters.count))
    team.forEach(parameters.count) { _, place in
      let sum = parameters[place].gradient.withSpan {
        Float.sumOfSquares($0.span, at: 0, count: $0.count)
      }
      squares.withLock { $0[place] = sum }
    }
    return squares.withLock { $0.reduce(0, +) }.squareRoot()
  }

  /// Multiplies all gradients so that their norm is at most the limit.
  static func clip(
    _ parameters: [TrainableParameter], norm: Double, to limit: Double, _ team: ThreadTeam
  ) {
    let factor = Float(min(1, limit / (norm + 1e-6)))
    guard factor < 1 else { return }
    team.forEach(parameters.count) { _, place in
      parameters[place].gradient.scale(by: factor)
    }
  }
}
