import Checkpoints
import Files
import Fixtures
import JSON
import Tensors
import Testing

@testable import Adapters

@Suite struct BaseModelTests {
  /// GPT-2's configuration does not say that it is tied, and its PyTorch files have both ends.
  @Test(
    arguments: [
      ("{}", true, true), ("{}", false, false), (#"{"tie_word_embeddings": false}"#, true, false),
      (#"{"tie_word_embeddings": true}"#, false, true),
    ])
  func valuesTellWhereNobodySaysWhetherItIsTied(
    config: String, areEqual: Bool, isTied: Bool
  ) throws {
    let folder = try Scratch()
    let values: [Float] = [1, 2, 3, 4, 5, 6]
    let model = try folder.writeModel(
      config: config,
      [
        Values("transformer.wte.weight", [3, 2], values),
        Values("lm_head.weight", [3, 2], areEqual ? values : values.reversed()),
      ])
    #expect(try BaseModel(Checkpoint(opening: model)).isTied == isTied)
  }

  @Test(
    arguments: [
      (#"{"model_type": "gpt2"}"#, true), (#"{"model_type": "llama"}"#, false),
      (#"{"model_type": "vision-encoder-decoder", "decoder": {"model_type": "gpt2"}}"#, true),
      ("{}", nil),
    ] as [(String, Bool?)])
  func anyModelOfAConfigurationMayHaveConv1D(config: String, isConv1D: Bool?) throws {
    let config = try JSON(parsing: Array(config.utf8))
    #expect(BaseModel.isConv1D("h.0.attn.c_attn", config) == isConv1D)
    #expect(BaseModel.isConv1D("h.0.attn.q_proj", config) == false)
  }

  @Test func everyPartOfAConfigurationHasTheDType() throws {
    let config = try JSON(
      parsing: Array(
        #"{"dtype": "float32", "vision_config": {"torch_dtype": "float16"}, "#.utf8
      ) + Array(#""quantization_config": {"dtype": "uint8"}, "text_config": {"dtype": null}}"#.utf8)
    )
    #expect(
      config.with(.bf16).text()
        == #"{"dtype":"bfloat16","vision_config":{"torch_dtype":"bfloat16"},"#
        + #""quantization_config":{"dtype":"uint8"},"text_config":{"dtype":null}}"#)
  }
}
