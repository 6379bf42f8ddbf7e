import Adapters
import Files
import JSON
import Tensors
import Testing

@testable import Models

extension TinyModel {
  /// Its sizes by `config.json` alone, with the adapters that it gets.
  fileprivate func plannedSize(_ form: ModelSize.Form = .numbers) throws -> ModelSize {
    try ModelSize(
      planning: LlamaConfiguration(JSON(parsing: Array(config.utf8))), dtype: .f32, form: form,
      training: training
    ) { (layer) throws(PeftoolError) in
      guard modules.isEmpty || modules.contains(where: layer.module.hasSuffix) else { return nil }
      var size = AdapterSize(inputs: layer.inputs, outputs: layer.outputs, rank: 2)
      size.hasMagnitude = isDoRA
      size.dropsInputs = dropout > 0
      return size
    }
  }
}

/// What is planned of `config.json` alone against a model that is there.
@Suite struct ModelSizeTests {
  @Test(
    arguments: [
      TinyModel(), .init(family: "qwen2", isDoRA: true),
      .init(family: "qwen3", layerCount: 3, dropout: 0.1),
      .init(family: "llama", fields: #""tie_word_embeddings": true"#, modules: ["q_proj"]),
      .init(family: "llama", fields: #""attention_bias": true, "mlp_bias": true"#),
      .init(family: "mistral", isDoRA: true, modules: ["o_proj"]),
      .init(
        family: "qwen3", modules: ["v_proj"],
        training: .init(modules: ["embed_tokens", "input_layernorm", "norm"], tokens: [])),
      .init(
        fields: #""tie_word_embeddings": true"#, modules: ["v_proj"],
        training: .init(modules: ["embed_tokens"], tokens: [])),
      .init(family: "qwen2", training: .wholeModel(sharingGradients: true)),
      .init(family: "qwen3", layerCount: 3, training: .wholeModel(sharingGradients: false)),
      .init(
        fields: #""tie_word_embeddings": true"#, training: .wholeModel(sharingGradients: true)),
    ]) func thePlannedModelIsTheLoadedOne(tiny: TinyModel) throws
  {
    var loaded = tiny
    if tiny.training.isWholeModel { loaded.modules = ["none"] }
    var planned = tiny
    if tiny.training.isWholeModel { planned.modules = ["none"] }
    #expect(try planned.plannedSize() == loaded.load().size)
  }

  @Test func codesTakeWhatTheyAreSaidTo() throws {
    for tiny in [TinyModel(), .init(family: "qwen2")] {
      #expect(try tiny.plannedSize(.nf4) == tiny.load(quantizing: true).size)
    }
  }

  @Test(
    arguments: [
      (ModelSize.Form.numbers, 2 * 48), (.nf4, 24 + 4), (.int8, 48 + 4 * 6),
      (.groups(size: 4), 24 + 8 * 6 * 2), (.groups(size: nil), 24 + 8 * 6),
    ]) func matricesTakeTheirBytes(form: ModelSize.Form, bytes: Int)
  {
    #expect(form.byteCount(.bf16, 6, 8) == bytes)
  }

  /// Sums of absurd widths would not be numbers any more.
  @Test(arguments: ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"])
  func modelsThatNobodyMakesAreRefused(field: String) throws {
    var fields: [String: JSON] = [
      "model_type": .string("llama"), "vocab_size": .number(1 << 20),
      "hidden_size": .number(1 << 16), "intermediate_size": .number(1 << 16),
      "num_hidden_layers": .number(100), "num_attention_heads": .number(64),
      "max_position_embeddings": .number(64),
    ]
    let json = { () throws in JSON.object(fields.sorted { $0.key < $1.key }.map { .init($0, $1) }) }
    try LlamaConfiguration(json()).checkSize()
    fields[field] = .number(field == "num_hidden_layers" ? 10_000 : 1 << 30)
    let configuration = try LlamaConfiguration(json())
    let error = #expect(throws: PeftoolError.self) { try configuration.checkSize() }
    #expect(error?.kind == .damaged)
  }
}
