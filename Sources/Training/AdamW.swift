import CKernels
import Checkpoints
import Glibc
package import LinearAlgebra
package import Models

/// AdamW with torch's semantics or transformers', on parameters that are trained in f32.
///
/// Two moments a parameter. Each step is `torch.optim.AdamW`'s, to the last digit but for its square
/// root, as training.h says, or that of transformers' former `AdamW`.
package final class AdamW {
  /// The settings, by torch's names.
  package struct Settings: Equatable, Sendable {
    /// How much of the mean of the gradients stays at each step.
    package var beta1 = 0.9
    /// How much of the mean of their squares stays at each step.
    package var beta2 = 0.999
    /// What is added to the divisor.
    package var epsilon = 1e-8
    /// What part of a value goes at each step, times the learning rate.
    package var weightDecay = 0.0
    /// Whose formula it is.
    package var style = Style.torch

    package init() {}
  }

  /// Whose formula of AdamW it is.
  package enum Style: Sendable {
    /// Weights decay first, and epsilon is added to the corrected root.
    case torch
    /// Weights decay last, and epsilon is added to the root before it is corrected.
    case transformers
  }

  private let settings: Settings
  /// What it moves.
  package let parameters: [TrainableParameter]
  /// For each parameter the mean of its gradients, and of their squares.
  package let moments: [(first: Rows, second: Rows)]
  /// The steps that were made.
  package private(set) var stepCount: Int

  /// The numbers of a piece of work.
  private static let pieceCount = 1 << 18

  /// Moments of zeros.
  package init(_ parameters: [TrainableParameter], _ settings: Settings, stepCount: Int = 0) {
    self.parameters = parameters
    self.settings = settings
    self.stepCount = stepCount
    moments = parameters.map { parameter in
      let (count, columns) = (parameter.values.count, parameter.values.columns)
      return (Rows(count, columns), Rows(count, columns))
    }
  }

  /// The bytes of the moments.
  package var byteCount: Int { 8 * parameters.reduce(0) { $0 + $1.elementCount } }

  /// Brings the count of steps to what it was when the moments were saved.
  package func restore(stepCount: Int) { self.stepCount = stepCount }

  /// Changes the parameters by their gradients.
  ///
  /// - Parameter rates: for each parameter its learning rate.
  package func step(rates: [Double], _ team: ThreadTeam) {
    precondition(rates.count == parameters.count, "a rate a parameter")
    stepCount += 1
    let exponent = Double(stepCount)
    let root = (1 - pow(settings.beta2, exponent)).squareRoot()
    let correction = 1 - pow(settings.beta1, exponent)
    let pieces = parameters.indices.flatMap { place in
      let values = parameters[place].values
      return (0..<values.count).cut(into: max(1, Self.pieceCount / max(1, values.columns)))
        .map { (place, $0) }
    }
    team.forEach(pieces.count) { _, item in
      let (place, rows) = pieces[item]
      let (parameter, moments) = (parameters[place], moments[place])
      let decay = parameter.isDecayed ? settings.weightDecay : 0
      let isLate = settings.style == .transformers
      var step = pef_adamw(
        decay: isLate ? 1 : Float(1 - rates[place] * decay), beta2: Float(settings.beta2),
        one_less_beta1: Float(1 - settings.beta1), one_less_beta2: Float(1 - settings.beta2),
        step_size: Float(rates[place] * (isLate ? root : 1) / correction),
        root: isLate ? 1 : Float(root), epsilon: Float(settings.epsilon),
        late_decay: isLate ? Float(-rates[place] * decay) : 0)
      parameter.values.rows(rows).withSpan { values in
        moments.first.rows(rows).withSpan { first in
          moments.second.rows(rows).withSpan { second in
            parameter.gradient.rows(rows).withSpan { gradient in
              // Four lists of one length, of which the kernel reads and writes as many elements.
              unsafe values.withUnsafeMutableBufferPointer { p in
                unsafe first.withUnsafeMutableBufferPointer { m in
                  unsafe second.withUnsafeMutableBufferPointer { v in
                    unsafe gradient.withUnsafeMutableBufferPointer { g in
                      unsafe pef_adamw_f32(
                        &step, p.baseAddress, m.baseAddress, v.baseAddress, g.baseAddress,
                        p.count)
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
  }
}
