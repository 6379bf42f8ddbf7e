import Files
import JSON
import LinearAlgebra
import Testing

@testable import Models

/// torch raises to powers in f32 with an error of about a unit in the last place, twice with YaRN.
private let powerTolerance = 4e-7

/// A case of `Samples/training/rotary.json`.
private struct RotaryCase {
  let configuration: LlamaConfiguration
  let length: Int
  let frequencies, cosines, sines: [Double]
  let factor: Double

  init(_ place: Int) throws {
    let cases = try JSON(opening: TrainingSamples.path("rotary.json")).array(named: "cases")
    let json = cases[place]
    func numbers(_ key: String) throws -> [Double] {
      try json.array(at: key).map { try $0.double(named: key) }
    }
    configuration = try LlamaConfiguration(#require(json["config"]))
    length = try json.int(at: "length")
    factor = try json.double(at: "attention_factor")
    (frequencies, cosines, sines) = (
      try numbers("frequencies"), try numbers("cosines"), try numbers("sines")
    )
  }

  static let count = 20
}

@Suite struct RotaryScalingTests {
  @Test(arguments: 0..<RotaryCase.count) func frequenciesAreThoseOfTransformers(
    place: Int
  ) throws {
    let known = try RotaryCase(place)
    let (found, factor) = known.configuration.rotary.frequencies(
      headSize: known.configuration.headSize, length: known.length)
    #expect(found.count == known.frequencies.count)
    for (found, frequency) in zip(found, known.frequencies) {
      #expect(abs(Double(found) - frequency) <= powerTolerance * frequency)
    }
    #expect(abs(Double(factor) - known.factor) <= powerTolerance * known.factor)
  }

  @Test func everyCaseIsTested() throws {
    let cases = try JSON(opening: TrainingSamples.path("rotary.json")).array(named: "cases")
    #expect(cases.count == RotaryCase.count)
  }

  /// The last position of the text, where a pair (1, 0) turns to cosine and sine.
  @Test(arguments: 0..<RotaryCase.count) func anglesAreThoseOfTransformers(place: Int) throws {
    let known = try RotaryCase(place)
    let size = known.configuration.headSize
    let x = Rows(1, size)
    for column in 0..<size / 2 { x[0, column] = 1 }
    RotaryEmbedding(known.configuration.rotary, headSize: size, count: known.length).rotate(
      x, headSize: size, positions: [Int32(known.length - 1)], workspace())
    // An angle is off by its position times what the frequency is off by.
    let tolerance = powerTolerance * Double(known.length)
    #expect(error(x.columns(0..<size / 2).values, known.cosines, of: 1) < tolerance)
    #expect(error(x.columns(size / 2..<size).values, known.sines, of: 1) < tolerance)
  }

  /// θ = 5·10⁵, D = 128, a factor of 8, 1 to 4 of 8192: 29 stay, 6 are blended, 29 divided.
  @Test func llama3StretchesLongWaves() {
    let plain = RotaryScaling(theta: 5e5).frequencies(headSize: 128, length: 1).frequencies
    let scaled = RotaryScaling(
      theta: 5e5, kind: .llama3(factor: 8, low: 1, high: 4, original: 8192)
    ).frequencies(headSize: 128, length: 1).frequencies
    let kept = zip(plain, scaled).count { $0 == $1 }
    let divided = zip(plain, scaled).count { $0 / 8 == $1 }
    #expect(kept == 29 && divided == 29)
    for (place, expected) in [(30, 1.37189e-3), (32, 5.24846e-4), (40, 3.42810e-5)] {
      #expect(abs(Double(scaled[place]) - expected) < 5e-6 * expected)
    }
  }

  /// θ = 10⁶, D = 128, a factor of 4 over 32768: the ramp goes from 23 to 40.
  @Test func yarnBlendsBetweenTwoPairs() throws {
    let rotary = try Self.yarn("")
    let (scaled, factor) = rotary.frequencies(headSize: 128, length: 1)
    let plain = RotaryScaling(theta: 1e6).frequencies(headSize: 128, length: 1).frequencies
    #expect(abs(factor - 1.138629) < 5e-7)
    #expect(scaled[23] == plain[23] && scaled[24] < plain[24])
    #expect(scaled[40] == plain[40] / 4 && scaled[39] > plain[39] / 4)
  }

  /// transformers has `or 32` there.
  @Test func aBetaOf0IsNone() throws {
    #expect(try Self.yarn(", \"beta_fast\": 0, \"beta_slow\": 0.0") == Self.yarn(""))
    #expect(try Self.yarn(", \"beta_fast\": 16") != Self.yarn(""))
    let reason = "rope_scaling.beta_slow is -1.0, expected more than 0.0"
    #expect(throws: PeftoolError(.damaged, reason)) {
      try Self.yarn(", \"beta_slow\": -1")
    }
  }

  private static func yarn(_ fields: String) throws -> RotaryScaling {
    let json = """
      {"model_type": "llama", "vocab_size": 1, "hidden_size": 128, "intermediate_size": 1,
       "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 131072,
       "rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0,
       "original_max_position_embeddings": 32768\(fields)}}
      """
    return try LlamaConfiguration(JSON(parsing: Array(json.utf8))).rotary
  }

  @Test func dynamicStretchesLongTextsOnly() {
    let scaling = RotaryScaling(theta: 1e4, kind: .dynamic(factor: 2, original: 64))
    let plain = RotaryScaling(theta: 1e4).frequencies(headSize: 32, length: 64).frequencies
    #expect(scaling.frequencies(headSize: 32, length: 64).frequencies == plain)
    let long = scaling.frequencies(headSize: 32, length: 65).frequencies
    #expect(long[0] == 1 && long[15] < plain[15])
  }

  @Test func undoingARotationGivesBackWhatWasTurned() {
    let yarn = RotaryScaling(theta: 1e4, kind: .yarn(factor: 4, original: 16))
    let rotary = RotaryEmbedding(yarn, headSize: 8, count: 20)
    let (x, work) = (randomRows(20, 24, seed: 1), workspace())
    let before = x.doubles
    let positions = (0..<20).map(Int32.init)
    rotary.rotate(x, headSize: 8, positions: positions, work)
    #expect(error(x.values, before) > 0.1)
    rotary.undo(x, headSize: 8, positions: positions, work)
    #expect(error(x.values, before) < f32Tolerance)
  }
}

extension RotaryScaling.Kind {
  fileprivate static func yarn(factor: Double, original: Int) -> Self {
    .yarn(
      .init(
        factor: factor, original: original, betaFast: 32, betaSlow: 1, attentionFactor: 1.25,
        truncates: true))
  }
}
