import Checkpoints
import Files
import Fixtures
import JSON
import Tensors
import Testing

@testable import Adapters

private let prefix = "base_model.model."
private let q = "model.layers.0.self_attn.q_proj"

/// A pair of factors for a module.
private func pair(_ module: String, _ a: [Int], _ b: [Int]) -> [Values] {
  [
    Values("\(prefix)\(module).lora_A.weight", a), Values("\(prefix)\(module).lora_B.weight", b),
  ]
}

/// What an adapter and the base `model.layers.0.self_attn.q_proj` (6, 4) give.
@Suite struct AdapterRefusalTests {
  private let scratch: Scratch
  private let base: String

  init() throws {
    scratch = try Scratch()
    base = try scratch.writeModel([
      Values("\(q).weight", [6, 4]), Values("model.norm.weight", [4]),
      Values("model.layers.0.conv.weight", [6, 4, 3]),
      Values("model.layers.0.ids", [2], dtype: .i64),
    ])
  }

  /// The one line that a merge ends with.
  private func refusal(_ adapter: () throws -> String) throws -> String {
    let adapter = try adapter()
    do {
      _ = try plan(base, [adapter])
      return "merged"
    } catch let error as PeftoolError {
      return error.description.replacing(scratch.path("adapter/"), with: "")
    }
  }

  private func expectRefusal(
    _ reason: String, fields: String = #""r": 2, "lora_alpha": 2"#, type: String = "LORA",
    _ tensors: [Values]
  ) throws {
    let found = try refusal { try scratch.writeAdapter(fields: fields, type: type, tensors) }
    #expect(found.contains(reason), "\(found)")
  }

  @Test func anAdapterThatFitsIsNotRefused() throws {
    let adapter = try scratch.writeAdapter(pair(q, [2, 4], [6, 2]))
    #expect(
      try plan(base, [adapter]).tensors.filter { !$0.changes.isEmpty }.map(\.name) == [
        "\(q).weight"
      ])
  }

  @Test func anAdapterWithoutTensorsIsRefused() throws {
    try expectRefusal("an adapter without tensors", [])
  }

  @Test func aKeyWithAnotherPrefixIsRefused() throws {
    try expectRefusal(
      "tensor 'diffusion.\(q).lora_A.weight': is no key of PEFT's",
      [Values("diffusion.\(q).lora_A.weight", [2, 4])])
  }

  @Test func anotherPrefixIsMapped() throws {
    let adapter = try scratch.writeAdapter([
      Values("net.\(q).lora_A.weight", [2, 4]), Values("net.\(q).lora_B.weight", [6, 2]),
    ])
    let found = try plan(
      base, [adapter], renaming: [.init(from: "net.", to: prefix)])
    #expect(found.tensors.contains { $0.name == "\(q).weight" && !$0.changes.isEmpty })
  }

  @Test func aModuleThatIsNotThereIsRefusedWithTheNearest() throws {
    try expectRefusal(
      "matches no tensor 'model.layers.1.self_attn.q_proj.weight' of \(base); "
        + "nearest: '\(q).weight'",
      pair("model.layers.1.self_attn.q_proj", [2, 4], [6, 2]))
  }

  @Test func halfAPairIsRefused() throws {
    try expectRefusal("has no lora_B beside it", [Values("\(prefix)\(q).lora_A.weight", [2, 4])])
    try expectRefusal(
      "tensor '\(prefix)\(q).lora_B.weight': stands alone",
      [Values("\(prefix)\(q).lora_B.weight", [6, 2])])
  }

  @Test func ranksThatDifferAreRefused() throws {
    try expectRefusal("of one rank expected", pair(q, [2, 4], [6, 3]))
    try expectRefusal("has rank 3, the configuration gives rank 2", pair(q, [3, 4], [6, 3]))
  }

  @Test func shapesThatDoNotFitAreRefused() throws {
    try expectRefusal("has shape [2, 5], expected one that makes", pair(q, [2, 5], [6, 2]))
    try expectRefusal(
      "has shape [2, 4], expected one for a tensor", pair("model.norm", [2, 4], [4, 2]))
    try expectRefusal(
      "for a convolution of shape [6, 4, 3]",
      pair("model.layers.0.conv", [2, 2, 3], [6, 2, 1]))
  }

  @Test func magnitudesAndDoRAGoTogether() throws {
    let magnitude = Values("\(prefix)\(q).lora_magnitude_vector", [6])
    let isDoRA = #""r": 2, "use_dora": true"#
    try expectRefusal(
      "has no lora_magnitude_vector beside it", fields: isDoRA, pair(q, [2, 4], [6, 2]))
    try expectRefusal(
      "the configuration has use_dora false", pair(q, [2, 4], [6, 2]) + [magnitude])
    try expectRefusal(
      "expected one with 6 magnitudes", fields: isDoRA,
      pair(q, [2, 4], [6, 2]) + [Values("\(prefix)\(q).lora_magnitude_vector", [4])])
    try expectRefusal(
      "means the same as", fields: isDoRA,
      pair(q, [2, 4], [6, 2]) + [
        magnitude, Values("\(prefix)\(q).lora_magnitude_vector.weight", [6]),
      ])
  }

  @Test func aDtypeWithoutArithmeticIsRefused() throws {
    try expectRefusal(
      "is C64, expected F64, F32",
      [Values("\(prefix)\(q).lora_A.weight", [2, 4], dtype: .c64)])
    try expectRefusal(
      "is I64, and \(prefix)model.layers.0.ids changes it",
      [Values("\(prefix)model.layers.0.ids", [2])])
  }

  @Test func biasesNeedTheirFlagAndTheBasesBias() throws {
    let bias = Values("\(prefix)\(q).lora_B.bias", [6])
    try expectRefusal(
      "the configuration says no lora_bias", pair(q, [2, 4], [6, 2]) + [bias])
    try expectRefusal(
      "the configuration says lora_bias", fields: #""r": 2, "lora_bias": true"#,
      pair(q, [2, 4], [6, 2]))
    try expectRefusal(
      "is a bias of lora_B, and '\(q)' has none in ", fields: #""r": 2, "lora_bias": true"#,
      pair(q, [2, 4], [6, 2]) + [bias])
  }

  @Test func oneTensorIsChangedInOneWayOnly() throws {
    try expectRefusal(
      "which the adapter changes in another way, too",
      pair(q, [2, 4], [6, 2]) + [
        Values("\(prefix)\(q).lora_embedding_A", [2, 6]),
        Values("\(prefix)\(q).lora_embedding_B", [4, 2]),
      ])
  }

  /// Shapes whose product is 0 from the left, and overflows from the second dimension on.
  @Test func emptyTensorsOfHugeDimensionsAreCounted() throws {
    let huge = [0, 1 << 33, 1 << 33]
    let base = try scratch.writeModel([
      Values("x.weight", huge, []), Values("\(q).weight", [6, 4]),
      Values("y.weight", [0, 1, 1 << 33, 1 << 33], []),
    ])
    let own = try scratch.writeAdapter([Values("\(prefix)x.weight", huge, [])])
    #expect(try plan(base, [own]).tensors.map(\.name) == ["x.weight", "\(q).weight", "y.weight"])
    let tokens = try scratch.writeAdapter(
      fields: #""r": 2, "trainable_token_indices": {"x": [0]}"#,
      [Values("\(prefix)x.trainable_tokens_delta", [1, 4])])
    #expect(throws: PeftoolError.self) { try plan(base, [tokens]) }
    let factors = try scratch.writeAdapter(
      fields: "", type: "IA3", [Values("\(prefix)y.ia3_l", [1, 1, 1, 1])])
    #expect(try plan(base, [factors]).tensors.count == 3)
  }

  @Test func factorsThatDoNotFitTheBiasAreRefused() throws {
    let base = try scratch.writeModel([Values("x.weight", [6, 4]), Values("x.bias", [9])])
    let adapter = try scratch.writeAdapter(
      fields: "", type: "IA3", [Values("\(prefix)x.ia3_l", [6, 1])])
    #expect(throws: PeftoolError.self) { try plan(base, [adapter]) }
  }

  @Test func anAdapterOfAChangedBaseIsRefused() throws {
    try expectRefusal(
      #"init_lora_weights is "pissa""#, fields: #""r": 2, "init_lora_weights": "pissa""#,
      pair(q, [2, 4], [6, 2]))
  }
}

@Suite struct EmbeddingTests {
  private let scratch: Scratch
  private let tied: String

  init() throws {
    scratch = try Scratch()
    tied = try scratch.writeModel(
      config: #"{"tie_word_embeddings": true, "vocab_size": 5}"#,
      [Values("model.embed_tokens.weight", [5, 4])])
  }

  private func names(_ plan: MergePlan) -> [String] { plan.tensors.map(\.name) }

  @Test func anAdapterOnTheOutputUntiesIt() throws {
    let plan = try plan(tied, [scratch.writeAdapter(pair("lm_head", [2, 4], [5, 2]))])
    #expect(names(plan) == ["model.embed_tokens.weight", "lm_head.weight"])
    #expect(plan.tensors[0].isCopy)
    #expect(plan.tensors[1].changes.count == 1)
    #expect(plan.config?["tie_word_embeddings"] == .bool(false))
  }

  @Test func anAdapterOnTheInputUntiesIt() throws {
    let plan = try plan(
      tied,
      [
        scratch.writeAdapter([
          Values("\(prefix)model.embed_tokens.lora_embedding_A", [2, 5]),
          Values("\(prefix)model.embed_tokens.lora_embedding_B", [4, 2]),
        ])
      ])
    #expect(names(plan) == ["model.embed_tokens.weight", "lm_head.weight"])
    #expect(plan.tensors[0].changes.count == 1)
    #expect(plan.tensors[1].isCopy)
    #expect(plan.config?["tie_word_embeddings"] == .bool(false))
  }

  @Test func theSameAdapterOnBothEndsStaysTied() throws {
    let a = Values("\(prefix)model.embed_tokens.lora_embedding_A", [2, 5])
    let b = Values("\(prefix)model.embed_tokens.lora_embedding_B", [4, 2])
    func transposed(_ values: Values, _ name: String) -> Values {
      let (rows, columns) = (values.shape[0], values.shape[1])
      return Values(
        name, [columns, rows],
        (0..<columns).flatMap { column in
          (0..<rows).map { values.values[$0 * columns + column] }
        })
    }
    let plan = try plan(
      tied,
      [
        scratch.writeAdapter(
          fields: #""r": 2, "ensure_weight_tying": true"#,
          [
            a, b, transposed(b, "\(prefix)lm_head.lora_A.weight"),
            transposed(a, "\(prefix)lm_head.lora_B.weight"),
          ])
      ])
    #expect(names(plan) == ["model.embed_tokens.weight"])
    #expect(plan.config == nil)
  }

  @Test func trainedTokensStayTied() throws {
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "trainable_token_indices": [4, 1]"#,
      [
        Values("\(prefix)model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 4])
      ])
    let plan = try plan(tied, [adapter])
    #expect(names(plan) == ["model.embed_tokens.weight"])
    #expect(plan.config == nil)
  }

  @Test(arguments: ["[5, 1]", "[-1, 1]", "[1, 1]", "[1]", "null"])
  func tokensThatDoNotFitAreRefused(indices: String) throws {
    let adapter = try scratch.writeAdapter(
      fields: "\"r\": 2, \"trainable_token_indices\": \(indices)",
      [
        Values("\(prefix)model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 4])
      ])
    #expect(throws: PeftoolError.self) { try plan(tied, [adapter]) }
  }

  @Test func aResizedVocabularyIsForOneAdapterAlone() throws {
    let adapter = try scratch.writeAdapter([
      Values("\(prefix)model.embed_tokens.weight", [7, 4]),
      Values(
        "\(prefix)lm_head.weight", [7, 4],
        Values("\(prefix)model.embed_tokens.weight", [7, 4]).values),
    ])
    let alone = try plan(tied, [adapter])
    #expect(names(alone) == ["model.embed_tokens.weight"])
    #expect(alone.tensors[0].base.shape == [7, 4])
    #expect(alone.config?["vocab_size"] == .number(7))
    #expect(throws: PeftoolError.self) { try plan(tied, [adapter], weights: [0.5]) }
  }

  /// An update of the old size, with full values of a new one under another spelling of the
  /// module's name, or at the other end.
  @Test(arguments: ["embed_tokens", "lm_head"])
  func anUpdateFitsTheValuesThatItIsMadeOf(own: String) throws {
    let adapter = try scratch.writeAdapter([
      Values("\(prefix)\(own).weight", [7, 4]),
      Values("\(prefix)model.embed_tokens.lora_embedding_A", [2, 5]),
      Values("\(prefix)model.embed_tokens.lora_embedding_B", [4, 2]),
    ])
    #expect(throws: PeftoolError.self) { try plan(tied, [adapter]) }
  }

  @Test func theOutputHasOneName() throws {
    let adapter = try scratch.writeAdapter(
      pair("lm_head", [2, 4], [5, 2]) + pair("model.lm_head", [2, 4], [5, 2]))
    #expect(throws: PeftoolError.self) { try plan(tied, [adapter]) }
  }

  @Test func trainedTokensReachBothEndsOfAFile() throws {
    let base = try scratch.writeModel(
      config: #"{"tie_word_embeddings": true}"#,
      [Values("model.embed_tokens.weight", [5, 4]), Values("lm_head.weight", [5, 4])])
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "trainable_token_indices": {"tokens": [9], "embed_tokens": [4, 1]}"#,
      [Values("\(prefix)model.embed_tokens.token_adapter.trainable_tokens_delta", [2, 4])])
    let plan = try plan(base, [adapter])
    #expect(plan.tensors.map { $0.changes.count } == [1, 1])
    #expect(plan.config == nil)
  }

  @Test func aWeightOfZeroLeavesEveryByte() throws {
    let adapter = try scratch.writeAdapter(pair("lm_head", [2, 4], [5, 2]))
    #expect(try plan(tied, [adapter], weights: [0]).tensors.allSatisfy { $0.isCopy })
  }
}

@Suite struct Conv1DTests {
  /// An image captioner says nothing of the GPT-2 inside it; a Qwen has a `c_attn` that is linear.
  @Test(arguments: [([4, 12], true), ([12, 4], false)])
  func theShapeTellsWhereTheModelTypeDoesNot(shape: [Int], isConv1D: Bool) throws {
    let scratch = try Scratch()
    let base = try scratch.writeModel(
      config: #"{"model_type": "vision-encoder-decoder"}"#,
      [
        Values("decoder.transformer.h.0.attn.c_attn.weight", shape),
        Values("decoder.transformer.h.0.attn.c_proj.weight", [4, 4]),
      ])
    let module = "decoder.transformer.h.0.attn.c_proj"
    let plan = try plan(base, [scratch.writeAdapter(pair(module, [2, 4], [4, 2]))])
    guard case .lowRank(let d) = plan.tensors[1].changes[0].change.update else {
      Issue.record("no low-rank update")
      return
    }
    #expect(d.layout == (isConv1D ? .transposed : .plain))
  }
}

@Suite struct SquareExpertsTests {
  @Test(arguments: [
    ("gpt_oss", true), ("aria_text", true), ("openai_privacy_filter", true), ("mixtral", false),
  ])
  func theModelTypeTellsHowTheyLie(modelType: String, isTransposed: Bool) throws {
    let scratch = try Scratch()
    let base = try scratch.writeModel(
      config: "{\"text_config\": {\"model_type\": \"\(modelType)\"}}",
      [Values("mlp.experts.down_proj", [3, 4, 4])])
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "target_parameters": ["experts.down_proj"]"#,
      pair("mlp.experts", [6, 4], [4, 6]))
    let plan = try plan(base, [adapter])
    guard case .lowRank(let d) = plan.tensors[0].changes[0].change.update else {
      Issue.record("no low-rank update")
      return
    }
    #expect(d.layout == .experts(3, isTransposed: isTransposed))
  }
}

@Suite struct LayerReplicationTests {
  @Test func aSmallFileMakesNoLargeModel() throws {
    let scratch = try Scratch()
    let base = try scratch.writeModel(
      (0..<40).map { Values("layers.0.w\($0).weight", [2, 2]) })
    let ranges = (0..<9_000).map { _ in "[0, 1]" }.joined(separator: ", ")
    let adapter = try scratch.writeAdapter(
      fields: "\"r\": 2, \"layer_replication\": [\(ranges)]", pair("layers.0.w0", [2, 2], [2, 2]))
    #expect {
      try plan(base, [adapter])
    } throws: {
      ($0 as? PeftoolError)?.reason.hasPrefix("would have more than 300000 tensors") == true
    }
  }

  @Test func layersInTwoPlacesAreRefused() throws {
    let scratch = try Scratch()
    let base = try scratch.writeModel([
      Values("layers.0.w.weight", [2, 2]), Values("vision.layers.0.w.weight", [2, 2]),
    ])
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "layer_replication": [[0, 1], [0, 1]]"#,
      pair("layers.0.w", [2, 2], [2, 2]))
    #expect(throws: PeftoolError.self) { try plan(base, [adapter]) }
  }

  @Test func layersAreCopiedAndCounted() throws {
    let scratch = try Scratch()
    let base = try scratch.writeModel(
      config: #"{"num_hidden_layers": 2, "layer_types": ["full", "sliding"]}"#,
      [
        Values("model.layers.0.w.weight", [2, 2]), Values("model.layers.1.w.weight", [2, 2]),
        Values("model.norm.weight", [2]),
      ])
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "layer_replication": [[0, 2], [1, 2]]"#,
      pair("model.layers.2.w", [2, 2], [2, 2]))
    let plan = try plan(base, [adapter])
    #expect(
      plan.tensors.map(\.name) == [
        "model.layers.0.w.weight", "model.layers.1.w.weight", "model.layers.2.w.weight",
        "model.norm.weight",
      ])
    #expect(plan.tensors.map { $0.changes.count } == [0, 0, 1, 0])
    #expect(plan.tensors[2].base.info.name == "model.layers.1.w.weight")
    #expect(plan.config?["num_hidden_layers"] == .number(3))
    #expect(
      plan.config?["layer_types"]
        == .array([.string("full"), .string("sliding"), .string("sliding")]))
  }
}
