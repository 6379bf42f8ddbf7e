import Foundation
import JSON
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

  @Test func oneIsLeftHoweverSmallTheShare() {
    #expect(tokens(Sampling(temperature: 1, topK: 1, topP: 1e-9)) == [2])
    let alike = Sampling(temperature: 1, topP: 1e-9).candidates([1, 1, 1], after: none)
    #expect(alike.map(\.token) == [0])
  }

  @Test func aTinyTemperatureTakesTheLikeliest() {
    let sampling = Sampling(temperature: 1e-38)
    #expect((0..<20).allSatisfy { sampling.token([1, 400, 2], after: none, index: $0) == 1 })
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

  @Test func aVocabularyWithoutAnyNumberHasNoToken() {
    #expect(Sampling().token([.nan, -.infinity], after: none, index: 0) == nil)
  }
}

/// `Samples/generation/sampling.json`, which transformers' own processors have made.
@Suite struct SamplingGoldenTests {
  /// Settings, and what is left to draw from.
  struct Case: CustomTestStringConvertible {
    var sampling: Sampling
    let logits: [Float]
    let text: [Int32]
    let left: [Sampling.Candidate]
    /// Whether logits are equal, so that torch leaves open which of them top-p drops.
    let hasEquals: Bool

    var testDescription: String { "\(sampling)\(hasEquals ? ", equal logits" : "")" }

    /// The probability of each token that is left.
    var shares: [Int32: Double] {
      let weights = left.map { ($0.token, exp(Double($0.logit))) }
      let total = weights.reduce(0) { $0 + $1.1 }
      return Dictionary(uniqueKeysWithValues: weights.map { ($0.0, $0.1 / total) })
    }
  }

  static let cases: [Case] = {
    do {
      return try read()
    } catch {
      Issue.record("\(error)")
      return []
    }
  }()

  private static func read() throws -> [Case] {
    let json = try JSON(
      opening: URL(fileURLWithPath: TrainingSamples.path("../generation/sampling.json")).path)
    func floats(_ json: JSON) throws -> [Float] {
      try json.array(named: "numbers").map { Float(try $0.double(named: "a number")) }
    }
    let text = try json.array(at: "text").map { Int32(try $0.int(named: "a token")) }
    return try json.array(at: "cases").map { entry in
      func optional(_ key: String) -> JSON? { entry[key].flatMap { $0 == .null ? nil : $0 } }
      let name = try entry.string(at: "logits")
      let sampling = Sampling(
        temperature: Float(try entry.double(at: "temperature")),
        topK: try optional("topK")?.int(named: "topK"),
        topP: try optional("topP").map { Float(try $0.double(named: "topP")) },
        repetitionPenalty: Float(try entry.double(at: "repetitionPenalty")), seed: 11)
      return Case(
        sampling: sampling, logits: try floats(#require(json["logits"]?[name])), text: text,
        left: try entry.array(at: "left").map {
          let pair = try $0.array(named: "a token and its logit")
          return Sampling.Candidate(
            token: Int32(try pair[0].int(named: "a token")),
            logit: Float(try pair[1].double(named: "a logit")))
        }, hasEquals: name == "equal")
    }
  }

  @Test func thereAreCases() { #expect(Self.cases.count == 28) }

  @Test(arguments: cases)
  func whatIsLeftIsTransformers(example: Case) {
    let left = example.sampling.candidates(example.logits, after: example.text)
    if example.hasEquals, example.sampling.topP != nil {
      #expect(left.map(\.logit).sorted() == example.left.map(\.logit).sorted())
    } else {
      #expect(left == example.left)
    }
  }

  /// Pearson's χ² of the draws, whose mean is the degrees of freedom, n, and whose standard
  /// deviation is √(2·n).
  @Test(arguments: cases.filter { !$0.hasEquals })
  func tokensAreDrawnAsOftenAsTransformersSays(example: Case) {
    let draws = 4000
    var counts: [Int32: Int] = [:]
    for index in 0..<draws {
      let token = example.sampling.token(example.logits, after: example.text, index: index)
      counts[token ?? -1, default: 0] += 1
    }
    let shares = example.shares
    #expect(counts.keys.allSatisfy { shares[$0] != nil })
    // Rare tokens count as one: the approximation wants a few expected draws of each.
    var (sum, kinds, rare) = (0.0, 0, (found: 0.0, expected: 0.0))
    func add(_ found: Double, _ expected: Double) {
      sum += (found - expected) * (found - expected) / expected
      kinds += 1
    }
    for (token, share) in shares {
      let (found, expected) = (Double(counts[token] ?? 0), share * Double(draws))
      if expected < 8 {
        rare = (rare.found + found, rare.expected + expected)
      } else {
        add(found, expected)
      }
    }
    if rare.expected > 0 { add(rare.found, rare.expected) }
    let freedom = Double(kinds - 1)
    #expect(sum < freedom + 4 * (2 * freedom).squareRoot() + 1e-9, "χ² \(sum) of \(freedom)")
  }
}
