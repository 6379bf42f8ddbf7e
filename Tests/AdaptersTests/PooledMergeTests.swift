import Checkpoints
import Files
import Fixtures
import JSON
import Tensors
import Testing

@testable import Adapters

private let (outputs, inputs, rank) = (3, 16, 2)

/// QA-LoRA's change of a weight and of offsets, beside its formula in f64.
@Suite struct PooledMergeTests {
  private let a: (Int) -> Values = { groupSize in
    Values("base_model.model.m.lora_A.weight", [rank, inputs / groupSize])
  }
  private let b = Values("base_model.model.m.lora_B.weight", [outputs, rank])

  private func adapter(
    _ scratch: borrowing Scratch, groupSize: Int, alpha: Double, _ more: String = ""
  ) throws -> String {
    try scratch.writeAdapter(
      fields: #""r": \#(rank), "lora_alpha": 1, "alpha_pattern": {"m": \#(alpha)}, "#
        + #""use_qalora": true, "qalora_group_size": \#(groupSize)\#(more)"#,
      [a(groupSize), b])
  }

  /// s·c/g · B·A, a number for each group of a row.
  private func change(groupSize: Int, factor: Double) -> [Double] {
    let (a, groups) = (a(groupSize).values, inputs / groupSize)
    return (0..<outputs * groups).map { place in
      (0..<rank).reduce(0) {
        $0 + factor / Double(groupSize) * Double(b.values[place / groups * rank + $1])
          * Double(a[$1 * groups + place % groups])
      }
    }
  }

  private func merged(_ plan: MergePlan, _ name: String) throws -> [Float] {
    let source = MergedSource(plan)
    let tensor = try #require(source.tensors.first { $0.name == name })
    var values = [Float](repeating: 0, count: tensor.elementCount)
    let bytes = try source.bytes(of: tensor)
    var span = values.mutableSpan
    Float.read(bytes.span.bytes, tensor.dtype, into: &span, count: tensor.elementCount)
    return values
  }

  /// PEFT's factor is the number of groups; alpha brings it to those of the authors' program, 1, and
  /// of their paper, the size of a group.
  @Test(arguments: [2, 4, 8, 16], ["1", "g", "in/g"])
  func aWeightChangesByGroups(groupSize: Int, kind: String) throws {
    let groups = Double(inputs / groupSize)
    let factors: [String: Double] = ["1": 1, "g": Double(groupSize), "in/g": groups]
    let factor = try #require(factors[kind])
    let scratch = try Scratch()
    let w = Values("m.weight", [outputs, inputs])
    let plan = try plan(
      scratch.write("base.safetensors", [w]),
      [adapter(scratch, groupSize: groupSize, alpha: 3 * factor / groups)])
    let expected = change(groupSize: groupSize, factor: 3 / Double(rank) * factor)
    for (place, value) in try merged(plan, "m.weight").enumerated() {
      let group = place / inputs * (inputs / groupSize) + place % inputs / groupSize
      #expect(abs(Double(value) - Double(w.values[place]) - expected[group]) < 1e-6)
    }
  }

  /// A base as MLX has it, in groups of 4: the adapter's groups are these, or made up of them.
  private func offsets(_ scratch: borrowing Scratch, groupSize: Int) throws -> MergePlan {
    try plan(
      scratch.write(
        "base.safetensors",
        [
          Values("m.weight", [outputs, inputs / 8], [0, 0, 0, 0, 0, 0], dtype: .u32),
          Values("m.scales", [outputs, inputs / 4]), Values("m.biases", [outputs, inputs / 4]),
        ]), [adapter(scratch, groupSize: groupSize, alpha: 2)])
  }

  @Test(arguments: [4, 8, 16]) func offsetsChangeAsTheirGroups(groupSize: Int) throws {
    let scratch = try Scratch()
    let plan = try offsets(scratch, groupSize: groupSize)
    #expect(plan.tensors.filter(\.isChanged).map(\.name) == ["m.biases"])
    let (groups, parts) = (inputs / groupSize, groupSize / 4)
    let expected = change(groupSize: groupSize, factor: 2 / Double(rank) * Double(groups))
    let before = Values("m.biases", [outputs, inputs / 4]).values
    for (place, value) in try merged(plan, "m.biases").enumerated() {
      let group = place / (inputs / 4) * groups + place % (inputs / 4) / parts
      #expect(abs(Double(value) - Double(before[place]) - expected[group]) < 1e-6)
    }
  }

  @Test func smallerGroupsThanTheBasesAreRefused() throws {
    let scratch = try Scratch()
    #expect {
      _ = try offsets(scratch, groupSize: 2)
    } throws: { error in
      (error as? PeftoolError)?.reason
        == "is for groups of 2 inputs, of which the base's of 4 are no parts: such a change is no "
        + "offset of 'm.weight'"
    }
  }

  @Test func groupsThatMakeNoWeightAreRefused() throws {
    let scratch = try Scratch()
    let base = try scratch.write("base.safetensors", [Values("m.weight", [outputs, inputs + 4])])
    #expect {
      _ = try plan(base, [adapter(scratch, groupSize: 4, alpha: 1)])
    } throws: { error in
      (error as? PeftoolError)?.reason
        == "has shape [2, 4], expected one for groups of 4 inputs, with lora_B the change of [3, 20], "
        + "for 'm.weight'"
    }
  }

  /// What zero points lose, by hand: of a change of 0.3 steps all, of one of 1.4 steps 0.4.
  @Test func zeroPointsLoseWhatIsNoStep() throws {
    let scratch = try Scratch()
    // One group of 16; all scales 1, zero points 0, and E = B·A.
    let path = try scratch.writeModel(
      config: #"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16, "#
        + #""checkpoint_format": "gptq_v2"}}"#,
      [
        Values("m.qweight", [2, 8], [Float](repeating: 0, count: 16), dtype: .i32),
        Values("m.qzeros", [1, 1], [0], dtype: .i32),
        Values("m.scales", [1, 8], [Float](repeating: 1, count: 8), dtype: .f16),
      ])
    let adapter = try scratch.writeAdapter(
      fields: #""r": 1, "lora_alpha": 16, "use_qalora": true, "qalora_group_size": 16"#,
      [
        Values("base_model.model.m.lora_A.weight", [1, 1], [-1]),
        Values(
          "base_model.model.m.lora_B.weight", [8, 1], [0.3, 1.4, 0, 0, 0, 0, 0, 0]),
      ])
    let base = try Checkpoint(opening: path)
    let weights = try QuantizedWeight.all(in: base).compactMap { weight in
      if case .groups(let groups) = weight.form { groups } else { nil }
    }
    let plan = try MergePlan(
      base.dequantized(otherDType: .f32), [Adapter(opening: adapter)], .init(weights: [1]))
    let loss = try ZeroPointLoss(of: plan, weights: weights, in: base)
    let expected = ((0.09 + 0.16) / (0.09 + 1.96)).squareRoot()
    #expect(abs(loss.value - expected) < 1e-6)
  }
}
