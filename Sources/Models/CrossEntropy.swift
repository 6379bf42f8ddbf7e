import CKernels
import Checkpoints
import LinearAlgebra

/// The loss of the next token, a block of tokens at a time: the logits are never whole.
struct CrossEntropy: Sendable {
  /// The output embedding, (vocabulary, hidden).
  let head: ProjectionGroup

  /// The bytes of logits that are held at most.
  private static let logitByteCount = 48 << 20

  /// The tokens whose logits are held at once.
  private static func tokenCount(vocabulary: Int) -> Int {
    max(48, logitByteCount / (4 * max(1, vocabulary)) / 12 * 12)
  }

  /// The logits that are held at once, of so many tokens.
  static func logitCount(tokens: Int, vocabulary: Int) -> Int {
    min(tokens, tokenCount(vocabulary: vocabulary)) * stride(vocabulary: vocabulary)
  }

  /// The floats from a token's logits to the next one's.
  ///
  /// Never whole pages: the products read twelve rows side by side, and what lies whole pages apart
  /// shares a place in the cache.
  static func stride(vocabulary: Int) -> Int {
    vocabulary % Int(PEF_PAGE) == 0 ? vocabulary + Int(PEF_PANEL) : vocabulary
  }

  private var vocabulary: Int { head.projections[0].outputs }

  /// The loss of each row of h, (N, hidden), and with a scale the gradients.
  ///
  /// - Parameters:
  ///   - labels: the token that each row should have predicted.
  ///   - scale: what the sum of the losses is multiplied by; nil for the losses alone.
  ///   - logits: rows that are used for as many tokens at once.
  ///   - dh: the gradient of h, in memory of its own: an adapter of the head needs h until the end;
  ///     nil where nothing below the head is trained.
  func losses(
    _ h: Rows, labels: [Int32], scale: Float?, logits: Rows, dh: Rows?, _ work: Workspace
  ) -> [Double] {
    precondition(labels.count == h.count, "a label a row")
    precondition(labels.allSatisfy { $0 >= 0 && Int($0) < vocabulary }, "a known token")
    var losses: [Double] = []
    for tokens in (0..<h.count).cut(into: logits.count) {
      let z = logits.rows(0..<tokens.count)
      let work = work.dropping(work.dropout?.from(tokens.lowerBound))
      head.forward(h.rows(tokens), into: [z], work)
      losses += Self.losses(z, labels: Array(labels[tokens]), scale: scale, work)
      guard scale != nil else { continue }
      head.backward(h.rows(tokens), [z], ys: [nil], into: dh?.rows(tokens), work)
    }
    return losses
  }

  /// The loss of each row of logits, which become their gradients where there is a scale.
  private static func losses(
    _ z: Rows, labels: [Int32], scale: Float?, _ work: Workspace
  ) -> [Double] {
    var losses = [Double](repeating: 0, count: z.count)
    unsafe losses.withUnsafeMutableBufferPointer { losses in
      guard let results = losses.baseAddress else { return }
      work.team.forEach(z.count) { _, row in
        // A row of logits, its label and its loss, each within what there is.
        unsafe labels.withUnsafeBufferPointer { labels in
          guard let first = labels.baseAddress else { return }
          unsafe pef_cross_entropy_f32(
            z.rows(row..<row + 1).pointer, first + row, results + row, 1, z.columns, scale ?? 0,
            scale == nil ? 0 : 1)
        }
      }
    }
    return losses
  }
}
