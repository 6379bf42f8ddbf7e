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
    /// Whether moments are kept in 8 bits: bitsandbytes' `AdamW8bit`.
    package var isEightBit = false

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
  private let moments: [Moments]
  /// The steps that were made.
  package private(set) var stepCount: Int

  /// A parameter's mean of its gradients, and of their squares.
  private enum Moments {
    case floats(first: Rows, second: Rows)
    case codes(QuantizedMoments)
  }

  /// The numbers of a piece of work.
  private static let pieceCount = 1 << 18

  /// Moments of zeros.
  package init(_ parameters: [TrainableParameter], _ settings: Settings, stepCount: Int = 0) {
    self.parameters = parameters
    self.settings = settings
    self.stepCount = stepCount
    moments = parameters.map { parameter in
      if settings.isEightBit, parameter.elementCount >= QuantizedMoments.leastCount {
        return .codes(QuantizedMoments(count: parameter.elementCount))
      }
      let (count, columns) = (parameter.values.count, parameter.values.columns)
      return .floats(first: Rows(count, columns), second: Rows(count, columns))
    }
  }

  /// The bytes of the moments of parameters of so many numbers each.
  package static func byteCount(of counts: [Int], isEightBit: Bool) -> Int {
    counts.reduce(0) { sum, count in
      let isCoded = isEightBit && count >= QuantizedMoments.leastCount
      return sum + (isCoded ? QuantizedMoments.byteCount(of: count) : 8 * count)
    }
  }

  /// The moments by the names under which checkpoints save them: torch's, or bitsandbytes'.
  var state: [TensorFile.Item] {
    zip(parameters, moments).flatMap { parameter, moments -> [TensorFile.Item] in
      switch moments {
      case .floats(let first, let second):
        let shape = [first.count, first.columns]
        return [
          .init(name: parameter.name + ".exp_avg", shape: shape, rows: first),
          .init(name: parameter.name + ".exp_avg_sq", shape: shape, rows: second),
        ]
      case .codes(let moments): return moments.state(of: parameter.name)
      }
    }
  }

  /// Makes the moments of a matrix those of its rows' combinations, where its gradients become turn
  /// times what they were, of which the first rows stay and the others are 0.
  ///
  /// The first moment is so to the last digits; the second takes gradients of rows for independent.
  /// - Parameter turn: a square of as many rows as the matrix has.
  func turnMoments(of parameter: TrainableParameter, by turn: Matrix<Double>, rank: Int) {
    guard let place = parameters.firstIndex(where: { $0 === parameter }) else { return }
    guard case .floats(let first, let second) = moments[place] else {
      preconditionFailure("moments in 8 bits are not turned")
    }
    let squares = Matrix(
      rows: turn.rows, columns: turn.columns, elements: turn.elements.map { $0 * $0 })
    for (moment, turn) in [(first, turn), (second, squares)] {
      let values = Matrix<Double>(Matrix(moment))
      let turned = Matrix<Float>(product(turn.firstRows(rank), values))
      moment.clear()
      moment.rows(0..<rank).copy(from: turned.elements)
    }
  }

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
    let pieces = moments.indices.flatMap { place -> [Piece] in
      switch moments[place] {
      case .floats(let first, let second):
        (0..<parameters[place].elementCount).cut(into: Self.pieceCount)
          .map { .floats(place, first.elements($0), second.elements($0), $0) }
      case .codes(let moments): moments.pieces.map { .codes(place, $0) }
      }
    }
    team.forEach(pieces.count) { _, item in
      let piece = pieces[item]
      let (parameter, rate) = (parameters[piece.place], rates[piece.place])
      let decay = parameter.isDecayed ? settings.weightDecay : 0
      let isLate = settings.style == .transformers
      let step = pef_adamw(
        decay: isLate ? 1 : Float(1 - rate * decay), beta2: Float(settings.beta2),
        one_less_beta1: Float(1 - settings.beta1), one_less_beta2: Float(1 - settings.beta2),
        step_size: Float(rate * (isLate ? root : 1) / correction),
        root: isLate ? 1 : Float(root), epsilon: Float(settings.epsilon),
        late_decay: isLate ? Float(-rate * decay) : 0)
      parameter.values.elements(piece.elements).withSpan { values in
        parameter.gradient.elements(piece.elements).withSpan { gradient in
          switch piece {
          case .codes(_, let moments): moments.step(step, &values, gradient.span)
          case .floats(_, let first, let second, _):
            first.withSpan { first in
              second.withSpan { second in
                Self.move(step, &values, &first, &second, gradient.span)
              }
            }
          }
        }
      }
    }
  }

  private static func move(
    _ step: pef_adamw, _ values: inout MutableSpan<Float>, _ first: inout MutableSpan<Float>,
    _ second: inout MutableSpan<Float>, _ gradient: Span<Float>
  ) {
    precondition(first.count == values.count && second.count == values.count)
    precondition(gradient.count == values.count, "a number for each")
    var step = step
    // Four lists of one length, of which the kernel reads and writes as many elements.
    unsafe values.withUnsafeMutableBufferPointer { p in
      unsafe first.withUnsafeMutableBufferPointer { m in
        unsafe second.withUnsafeMutableBufferPointer { v in
          unsafe gradient.withUnsafeBufferPointer { g in
            unsafe pef_adamw_f32(
              &step, p.baseAddress, m.baseAddress, v.baseAddress, g.baseAddress, p.count)
          }
        }
      }
    }
  }
}

extension AdamW {
  /// A piece of work: some numbers of a parameter, with their moments.
  private enum Piece {
    case floats(Int, Rows, Rows, Range<Int>)
    case codes(Int, QuantizedMoments.Piece)

    var place: Int {
      switch self {
      case .floats(let place, _, _, _), .codes(let place, _): place
      }
    }

    var elements: Range<Int> {
      switch self {
      case .floats(_, _, _, let elements): elements
      case .codes(_, let moments): moments.elements
      }
    }
  }
}

extension Rows {
  /// Some floats of rows without gaps, as one row.
  fileprivate func elements(_ range: Range<Int>) -> Rows {
    reshaped(1, count * columns).columns(range)
  }
}
