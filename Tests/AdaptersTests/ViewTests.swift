import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Tensors
import Testing

/// The path of a sample, such as `bases/llama-f32`.
private func sample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/\(name)").path
}

/// Sources that compute what they hold: any part of a tensor is that part of the whole.
@Suite struct ViewTests {
  private func checkParts(of source: any TensorSource) throws {
    var random = SplitMix64(seed: 7)
    for tensor in source.tensors {
      let whole = try source.bytes(of: tensor)
      #expect(whole.count == tensor.byteCount)
      let size = tensor.dtype.bitCount / 8
      for _ in 0..<20 {
        let ends = [
          Int.random(in: 0...tensor.elementCount, using: &random),
          Int.random(in: 0...tensor.elementCount, using: &random),
        ].sorted()
        let range = ends[0] * size..<ends[1] * size
        var part = [UInt8](repeating: 0xAA, count: range.count)
        var span = part.mutableSpan
        var bytes = span.mutableBytes
        try source.read(tensor, bytes: range, into: &bytes)
        #expect(part == Array(whole[range]), "\(tensor.name) \(range)")
      }
    }
  }

  @Test(arguments: ["llama-nf4-double", "llama-fp4", "llama-int8", "gpt2-nf4"])
  func dequantized(name: String) throws {
    let model = try Checkpoint(opening: sample("quantized/\(name)")).dequantized()
    #expect(model.isView)
    #expect(try model.config?["quantization_config"] == nil)
    #expect(model.source is DequantizedSource)
    try checkParts(of: model.source)
  }

  @Test(
    arguments: [
      ("llama-bf16", "dora"), ("llama-bf16", "task-a"), ("gpt2-f32", "conv1d-dora"),
      ("layers-f32", "target-parameters"),
    ])
  func merged(base: String, adapter: String) throws {
    let plan = try MergePlan(
      Checkpoint(opening: sample("bases/\(base)")),
      [Adapter(opening: sample("adapters/\(adapter)"))], .init(weights: [1]))
    let source = MergedSource(plan)
    try checkParts(of: source)
    // What no adapter changes lies in the base's files.
    for (tensor, merged) in zip(source.tensors, plan.tensors) {
      #expect((source.place(of: tensor) == nil) == merged.isChanged)
    }
  }

  @Test func aModelThatIsNotQuantizedHasNoCodes() throws {
    let path = sample("bases/llama-f32")
    #expect(
      throws: PeftoolError(
        .unsupported, "has no weight that is quantized (bitsandbytes, MLX, GPTQ, AWQ or HQQ)",
        path: path
      )
    ) { try Checkpoint(opening: path).dequantized() }
  }
}
