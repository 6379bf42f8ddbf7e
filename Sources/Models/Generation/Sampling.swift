import Glibc
import LinearAlgebra

/// How the next token is chosen from a model's logits.
///
/// The steps and their order are those of transformers 5 (`RepetitionPenaltyLogitsProcessor`,
/// `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper` in
/// `generation/logits_process.py`), the logits its f32. Tokens are drawn by the project's own
/// random numbers, one for each token of the text: the same seed gives the same text.
package struct Sampling: Equatable, Sendable {
  /// What logits are divided by; 0 takes the most likely token, whatever `topK` and `topP`.
  package var temperature: Float
  /// How many of the most likely tokens are left, with those as likely as the last; nil for all.
  package var topK: Int?
  /// The share of the probability that the tokens left have at least, the most likely first; nil
  /// for all.
  package var topP: Float?
  /// What logits of tokens that are in the text already are divided by where they are positive,
  /// and multiplied by where they are not; 1 changes nothing.
  package var repetitionPenalty: Float
  /// The seed of the random numbers.
  package var seed: UInt64

  /// The most likely token each time, unless told otherwise.
  package init(
    temperature: Float = 0, topK: Int? = nil, topP: Float? = nil, repetitionPenalty: Float = 1,
    seed: UInt64 = 0
  ) {
    precondition(temperature >= 0 && repetitionPenalty > 0, "positive factors")
    precondition(topK ?? 1 > 0 && (0...1).contains(topP ?? 1), "a count and a share")
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.repetitionPenalty = repetitionPenalty
    self.seed = seed
  }

  /// A token that may come next.
  package struct Candidate: Equatable, Sendable {
    /// Its number.
    package let token: Int32
    /// Its logit, as the steps have left it.
    package var logit: Float
  }

  /// The token after `text`, which is number `index` of those drawn; nil where no logit is a number.
  package func token(_ logits: [Float], after text: some Sequence<Int32>, index: Int) -> Int32? {
    let penalized = penalized(logits, after: text)
    guard temperature > 0 else { return Self.largest(penalized) }
    return draw(candidates(penalized), index: index)
  }

  /// The tokens that are left to draw from, in the order of their numbers.
  package func candidates(_ logits: [Float], after text: some Sequence<Int32>) -> [Candidate] {
    candidates(penalized(logits, after: text))
  }

  private func penalized(_ logits: [Float], after text: some Sequence<Int32>) -> [Float] {
    guard repetitionPenalty != 1 else { return logits }
    var logits = logits
    for token in Set(text) where logits.indices.contains(Int(token)) {
      let logit = logits[Int(token)]
      logits[Int(token)] = logit < 0 ? logit * repetitionPenalty : logit / repetitionPenalty
    }
    return logits
  }

  private static func largest(_ logits: [Float]) -> Int32? {
    var best: (token: Int, logit: Float)?
    // As torch's argmax: the first of equals.
    for (token, logit) in logits.enumerated() where logit > best?.logit ?? -.infinity {
      best = (token, logit)
    }
    return best.map { Int32($0.token) }
  }

  private func candidates(_ logits: [Float]) -> [Candidate] {
    let factor = temperature > 0 ? temperature : 1
    var left: [Candidate] = []
    left.reserveCapacity(logits.count)
    for (token, logit) in logits.enumerated() where logit > -.infinity {
      left.append(Candidate(token: Int32(token), logit: logit / factor))
    }
    if let topK, topK < left.count {
      let last = Self.largest(topK, of: left)
      left.removeAll { $0.logit < last }
    }
    if let topP, topP < 1 { left = Self.likeliest(left, share: topP) }
    return left
  }

  /// The smallest of the `count` largest logits, which a heap finds in one pass.
  private static func largest(_ count: Int, of candidates: [Candidate]) -> Float {
    var heap = candidates.prefix(count).map(\.logit)
    func sink(_ start: Int) {
      var place = start
      while 2 * place + 1 < heap.count {
        var child = 2 * place + 1
        if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
        guard heap[child] < heap[place] else { return }
        heap.swapAt(child, place)
        place = child
      }
    }
    for place in (0..<heap.count / 2).reversed() { sink(place) }
    for candidate in candidates.dropFirst(count) where candidate.logit > heap[0] {
      heap[0] = candidate.logit
      sink(0)
    }
    return heap[0]
  }

  /// Leaves out the least likely tokens that have together no more than 1 − share; one is left.
  private static func likeliest(_ candidates: [Candidate], share: Float) -> [Candidate] {
    let weights = weights(candidates)
    let total = weights.reduce(0, +)
    let limit = Double(1 - share) * total
    // All those below the mean of what may be left out have together no more than that.
    let mean = limit / Double(max(1, candidates.count))
    var sum = 0.0
    var rest: [(weight: Double, place: Int)] = []
    for (place, weight) in weights.enumerated() {
      if weight <= mean { sum += weight } else { rest.append((weight, place)) }
    }
    rest.sort { ($0.weight, -$0.place) < ($1.weight, -$1.place) }
    var isLeft = [Bool](repeating: false, count: candidates.count)
    for (number, entry) in rest.enumerated() {
      sum += entry.weight
      if sum > limit || number == rest.count - 1 { isLeft[entry.place] = true }
    }
    // A share that is next to nothing, or many that are alike.
    if rest.isEmpty, let first = weights.firstIndex(of: weights.max() ?? 0) {
      isLeft[first] = true
    }
    return zip(candidates, isLeft).filter(\.1).map(\.0)
  }

  /// What is proportional to the probability of each.
  private static func weights(_ candidates: [Candidate]) -> [Double] {
    let top = candidates.map(\.logit).max() ?? 0
    // What is infinite for a small temperature is as likely as another that is.
    return candidates.map { $0.logit == top ? 1 : exp(Double($0.logit - top)) }
  }

  private func draw(_ candidates: [Candidate], index: Int) -> Int32? {
    let weights = Self.weights(candidates)
    var rest = RandomNumbers(seed: seed).uniform(index) * weights.reduce(0, +)
    for (candidate, weight) in zip(candidates, weights) {
      rest -= weight
      if rest < 0 { return candidate.token }
    }
    return candidates.last?.token
  }
}
