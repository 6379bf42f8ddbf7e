import Files
import Fixtures
import Tensors
import Testing

@testable import Adapters

/// Parameters that adapters save whole.
@Suite struct SavedSumTests {
  /// Half an ulp of F32, of numbers below 1.
  private static let f32Rounding = 0x1p-24

  private func operands(_ count: Int, in scratch: Scratch) throws -> [Operand] {
    try (0..<count).map { place in
      let path = try scratch.writeAdapter(
        named: "a\(place)",
        fields: #""r": 1, "lora_alpha": 1, "modules_to_save": ["head"]"#,
        [
          Values("base_model.model.q.lora_A.weight", [1, 3]),
          Values("base_model.model.q.lora_B.weight", [2, 1]),
          Values(
            "base_model.model.head.weight", [2, 2], [1, 2, 3, 4].map { $0 / Float(place + 4) }),
        ])
      return try Operand(opening: path)
    }
  }

  /// 0.1 ten times is less than 1 in f64, by an ulp.
  @Test func weightsThatSumToOneButForRoundingNeedNoBase() throws {
    let scratch = try Scratch()
    let operands = try operands(10, in: scratch)
    let weights = [Double](repeating: 0.1, count: 10)
    #expect(weights.reduce(0, +) != 1)
    let combination = try Combination(
      operands, weights: weights.map { Parameter($0) }, CombinationSettings())
    let adapter = try combination.run(as: .f32, threads: 1) { _ in }.adapter
    let saved = try #require(adapter.saved.first)
    #expect(adapter.saved.count == 1)
    let mean = (4..<14).reduce(0.0) { $0 + 0.1 / Double($1) }
    for (value, factor) in zip(try saved.tensor.values(), [1.0, 2, 3, 4]) {
      #expect((value - factor * mean).magnitude < Self.f32Rounding)
    }
  }

  @Test func otherWeightsNeedTheBase() throws {
    let scratch = try Scratch()
    let operands = try operands(2, in: scratch)
    #expect {
      try Combination(operands, weights: [0.5, 0.5001], CombinationSettings())
    } throws: {
      ($0 as? PeftoolError)?.reason.contains("weighted only with the base's: --base MODEL") == true
    }
  }
}
