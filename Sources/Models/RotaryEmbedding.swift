import CKernels
import Glibc
import Tensors

/// Rotary positions: each pair (i, i + D/2) of a head turns by its position's angle.
///
/// The angles, their cosines and sines are rounded to f32 where transformers rounds them
/// (`modeling_rope_utils.py`, `LlamaRotaryEmbedding.forward`).
package struct RotaryEmbedding: Sendable {
  /// (positions, D/2).
  private let cosines: Rows
  private let sines: Rows
  /// What they have been multiplied by.
  private let factor: Float

  /// Tables for positions 0 to `count` − 1 of a sequence that long.
  package init(_ scaling: RotaryScaling, headSize: Int, count: Int) {
    self.init(scaling, headSize: headSize, positions: 0..<count, length: count)
  }

  /// Tables for some positions of a text of that length, of which the first becomes number 0.
  init(_ scaling: RotaryScaling, headSize: Int, positions: Range<Int>, length: Int) {
    let (frequencies, factor) = scaling.frequencies(headSize: headSize, length: length)
    self.factor = factor
    cosines = Rows(positions.count, headSize / 2)
    sines = Rows(positions.count, headSize / 2)
    for (row, position) in positions.enumerated() {
      for (place, frequency) in frequencies.enumerated() {
        let angle = Float(position) * frequency
        cosines[row, place] = cosf(angle) * factor
        sines[row, place] = sinf(angle) * factor
      }
    }
  }

  /// Undoes `rotate`: turns back, and takes off what both turns have multiplied by.
  func undo(_ x: Rows, headSize: Int, positions: [Int32], _ work: Workspace) {
    rotate(x, headSize: headSize, positions: positions, isInverse: true, work)
    guard factor != 1 else { return }
    work.forTokens(x.count) { _, tokens in
      for row in tokens {
        x.withSpan(row: row) {
          Float.scale(&$0, at: 0, by: 1 / (factor * factor), count: $0.count)
        }
      }
    }
  }

  /// Turns the heads of each row; backwards with `isInverse`, which is also the gradient.
  ///
  /// Shapes: x (N, heads·D), a position for each row, less than the tables' count.
  func rotate(
    _ x: Rows, headSize: Int, positions: [Int32], isInverse: Bool = false, _ work: Workspace
  ) {
    precondition(x.columns % headSize == 0 && positions.count == x.count, "whole heads")
    precondition(cosines.columns == headSize / 2, "tables for heads of that size")
    precondition(positions.allSatisfy { $0 >= 0 && Int($0) < cosines.count }, "a known position")
    work.forTokens(x.count) { _, tokens in
      let part = x.rows(tokens)
      // Positions have been checked against the tables, and the rows are there.
      unsafe positions.withUnsafeBufferPointer { positions in
        guard let first = positions.baseAddress else { return }
        unsafe pef_rope_f32(
          part.pointer, part.stride, part.count, x.columns / headSize, headSize,
          first + tokens.lowerBound, cosines.pointer, sines.pointer, isInverse ? 1 : 0)
      }
    }
  }
}
