import Examples
import LinearAlgebra
import Models
import Reports
import Training

/// How long training will take, from a short measurement.
enum StepTiming {
  /// The most tokens that are measured.
  private static let tokenCount = 512

  /// Tokens a second of a forward and a backward pass over the first examples, the second of two.
  ///
  /// The gradients that come of it are cleared.
  static func tokensPerSecond(
    _ trainer: Trainer, _ data: TokenExamples, team: ThreadTeam, plan: FinetunePlan
  ) -> Double {
    var texts: [(tokens: [Int32], labels: [Int32?])] = []
    var left = min(Self.tokenCount, plan.tokensPerBatch)
    for number in 0..<data.count where left > 1 {
      let range = data.range(number).prefix(left)
      texts.append(
        (
          Array(data.ids[range]),
          data.labels[range].map { $0 == TokenExamples.ignored ? nil : $0 }
        ))
      left -= range.count
    }
    let batch = TokenBatch(texts)
    let pass = LossPass(
      trainer.model, team: team, tokens: batch.tokens.count,
      longest: texts.map(\.tokens.count).max() ?? 1, keeping: plan.keeping,
      groupSize: plan.groupSize)
    var seconds = 0.0
    // The first pass fills caches and memory.
    for _ in 0..<2 {
      let start = monotonicSeconds()
      _ = pass.addGradients(
        batch, scale: 1, dropout: Dropout(seed: 0, step: 0, batch: 0))
      seconds = monotonicSeconds() - start
    }
    for parameter in trainer.parameters { parameter.gradient.clear() }
    return Double(batch.tokens.count) / max(seconds, 1e-9)
  }
}
