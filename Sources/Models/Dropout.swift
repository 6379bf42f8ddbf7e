import CKernels
import LinearAlgebra

/// Which inputs the adapters leave out in a training pass: each with its adapter's probability, the
/// others multiplied by what makes up for it (`torch.nn.Dropout`).
///
/// A mask follows from the seed, the step, the batch, the layer's path and the place alone, so that
/// threads and breaks change nothing. torch draws other masks. A probability is rounded to 1/65536.
package struct Dropout: Sendable {
  private let seed: UInt64
  private let step: UInt64
  private let batch: UInt32
  /// The place of the first row among the pass's tokens.
  private var first = 0

  /// The masks of a step's batch of that number.
  package init(seed: UInt64, step: Int, batch: Int) {
    self.seed = seed
    self.step = UInt64(step)
    self.batch = UInt32(truncatingIfNeeded: batch)
  }

  /// The masks of the tokens from a place on.
  func from(_ place: Int) -> Dropout {
    var copy = self
    copy.first += place
    return copy
  }

  /// Writes the factors for some tokens' inputs to a layer, (tokens, inputs): 0, or what makes up.
  func fill(_ mask: Rows, tokens: Range<Int>, module: String, probability: Double) {
    let part = mask.rows(tokens)
    precondition(part.isDense && probability >= 0 && probability < 1, "a share of dense rows")
    // Multiples of an odd number, so that no step of a layer is another layer's.
    let stream = RandomNumbers.stream(named: module) &+ step &* 0x9e37_79b9_7f4a_7c15
    let kept = max(1, ((1 - probability) * 65_536).rounded())
    // The rows are there.
    unsafe pef_dropout_f32(
      part.pointer, first + tokens.lowerBound, part.count, part.columns, seed, stream, batch,
      UInt32(kept), Float(65_536 / kept))
  }
}
