import Testing

@testable import Models

/// The tables are what the classes named make of these logits in transformers 5.23.
@Suite struct SamplingTests {
  private let logits: [Float] = [1.5, -0.5, 3.0, 2.0, -2.0, 2.0, 0.25, -1.0]
  private let none: [Int32] = []

  private func tokens(_ sampling: Sampling) -> [Int32] {
    sampling.candidates(logits, after: none).map(\.token)
  }

  @Test func withoutATemperatureTheLikeliestIsTaken() {
    #expect(Sampling().token(logits, after: none, index: 0) == 2)
    #expect(Sampling().token([1, 4, 4], after: none, index: 9) == 1)
  }

  @Test func temperatureDivides() {
    let left = Sampling(temperature: 0.5).candidates(logits, after: none)
    #expect(left.map(\.logit) == logits.map { $0 / 0.5 })
    #expect(left.map(\.token) == Array(0..<8))
  }

  @Test(
    arguments: [
      (1, [2]), (2, [2, 3, 5]), (3, [2, 3, 5]), (4, [0, 2, 3, 5]), (6, [0, 1, 2, 3, 5, 6]),
      (100, Array(0..<8)),
    ] as [(Int, [Int32])])
  func topKKeepsTies(count: Int, expected: [Int32]) {
    #expect(tokens(Sampling(temperature: 1, topK: count)) == expected)
  }

  /// The shares are, from the likeliest: 0.481, 0.177, 0.177, 0.107, 0.031, 0.015, 0.009, 0.003.
  @Test(
    arguments: [
      (0.01, [2]), (0.45, [2]), (0.9, [0, 2, 3, 5]), (0.95, [0, 2, 3, 5, 6]),
      (0.98, [0, 1, 2, 3, 5, 6]), (0.99, [0, 1, 2, 3, 5, 6, 7]), (0.996, [0, 1, 2, 3, 5, 6, 7]),
      (1, Array(0..<8)),
    ] as [(Float, [Int32])])
  func topPKeepsTheShare(share: Float, expected: [Int32]) {
    #expect(tokens(Sampling(temperature: 1, topP: share)) == expected)
  }

  @Test func topPIsOfWhatTopKLeaves() {
    #expect(tokens(Sampling(temperature: 1, topK: 3, topP: 0.5)) == [2])
    #expect(tokens(Sampling(temperature: 1, topK: 3, topP: 0.8)) == [2, 3, 5])
  }

  @Test func penaltyDividesPositiveAndMultipliesNegative() {
    let left = Sampling(temperature: 1, repetitionPenalty: 2).candidates(
      logits, after: [2, 4, 4, 2, 1] as [Int32])
    #expect(left.map(\.logit) == [1.5, -1, 1.5, 2, -4, 2, 0.25, -1])
    #expect(
      Sampling(repetitionPenalty: 2).token(logits, after: [2] as [Int32], index: 0) == 3)
  }

  @Test func tokensOfTheTextBeyondTheLogitsAreNone() {
    let left = Sampling(temperature: 1, repetitionPenalty: 2).candidates(
      logits, after: [900] as [Int32])
    #expect(left.map(\.logit) == logits)
  }

  @Test func theSeedAndTheIndexDecide() {
    func drawn(_ seed: UInt64) -> [Int32?] {
      let sampling = Sampling(temperature: 1, seed: seed)
      return (0..<50).map { sampling.token(logits, after: none, index: $0) }
    }
    #expect(drawn(1) == drawn(1))
    #expect(drawn(1) != drawn(2))
    #expect(Set(drawn(1)).count > 3)
  }

  @Test func drawsAreAsOftenAsTheirProbability() {
    let sampling = Sampling(temperature: 1, topK: 4, seed: 3)
    var counts: [Int32: Int] = [:]
    for index in 0..<20_000 {
      counts[sampling.token(logits, after: none, index: index) ?? -1, default: 0] += 1
    }
    // e^3, e^2, e^2 and e^1.5, by their sum.
    for (token, share) in [(2, 0.5108), (3, 0.1879), (5, 0.1879), (0, 0.1140)] as [(Int32, Double)]
    {
      #expect(abs(Double(counts[token] ?? 0) / 20_000 - share) < 0.015)
    }
    #expect(counts.count == 4)
  }

  @Test func aVocabularyWithoutAnyNumberHasNoToken() {
    #expect(Sampling().token([.nan, -.infinity], after: none, index: 0) == nil)
  }
}
