import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Tensors
import Testing

@testable import Commands

/// A small Llama as a directory, of one layer and in F32, to which a test does something.
private struct TinyDirectory {
  var config: [String: JSON] = [
    "model_type": .string("llama"), "num_hidden_layers": .number(1), "hidden_size": .number(4),
    "intermediate_size": .number(3), "num_attention_heads": .number(2),
    "num_key_value_heads": .number(1), "head_dim": .number(4),
    "max_position_embeddings": .number(16), "vocab_size": .number(5),
    "tie_word_embeddings": .bool(true), "bos_token_id": .number(3),
  ]
  var vocabulary = #"{"a": 0, "b": 1, "ab": 2}"#
  var merges = #"[["a", "b"]]"#
  var added = #"[{"id": 3, "content": "<s>", "special": true}]"#
  var model = #""type": "BPE""#
  var cutting = #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}"#
  var others = ""
  var settings: String? = "{}"
  var tensors = [
    Values("model.embed_tokens.weight", [5, 4]), Values("model.norm.weight", [4]),
    Values("model.layers.0.input_layernorm.weight", [4]),
    Values("model.layers.0.self_attn.q_proj.weight", [8, 4]),
    Values("model.layers.0.self_attn.k_proj.weight", [4, 4]),
    Values("model.layers.0.self_attn.v_proj.weight", [4, 4]),
    Values("model.layers.0.self_attn.o_proj.weight", [4, 8]),
    Values("model.layers.0.post_attention_layernorm.weight", [4]),
    Values("model.layers.0.mlp.gate_proj.weight", [3, 4]),
    Values("model.layers.0.mlp.up_proj.weight", [3, 4]),
    Values("model.layers.0.mlp.down_proj.weight", [4, 3]),
  ]

  /// A tensor whose elements are their places.
  struct Values {
    let name: String
    let shape: [Int]
    init(_ name: String, _ shape: [Int]) { (self.name, self.shape) = (name, shape) }
  }

  var tokenizer: String {
    """
    {"added_tokens": \(added), "normalizer": null, "pre_tokenizer": \(cutting), \(others)
     "model": {\(model), "vocab": \(vocabulary), "merges": \(merges)}}
    """
  }
}

@Suite struct GGUFWritingTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func write(_ model: TinyDirectory, dtype: DType? = .f32) throws -> GGUFFile {
    try scratch.write(
      "m/model.safetensors",
      model.tensors.map { tensor in
        TestTensor(
          tensor.name, .f32, (0..<tensor.shape.reduce(1, *)).map { Float($0) }, shape: tensor.shape)
      })
    let config = JSON.object(model.config.map { .init($0.key, $0.value) })
    try scratch.write("m/config.json", config.text())
    try scratch.write("m/tokenizer.json", model.tokenizer)
    if let settings = model.settings { try scratch.write("m/tokenizer_config.json", settings) }
    let writing = try GGUFWriting(Checkpoint(opening: scratch.path("m")), dtype: dtype)
    try writing.run(to: scratch.path("m.gguf"), isForced: true, threads: 2) { _ in }
    return try GGUFFile(opening: scratch.path("m.gguf"))
  }

  private func assertRejects(
    _ reason: String, _ kind: PeftoolError.Kind, at file: String = "m", tensor: String? = nil,
    offset: Int? = nil, sourceLocation: SourceLocation = #_sourceLocation,
    _ change: (inout TinyDirectory) -> Void
  ) {
    var model = TinyDirectory()
    change(&model)
    #expect(
      throws: PeftoolError(
        kind, reason, offset: offset, tensor: tensor, path: scratch.path(file)),
      sourceLocation: sourceLocation
    ) { try write(model) }
    #expect(!Folder.exists(scratch.path("m.gguf")), sourceLocation: sourceLocation)
  }

  @Test func aDirectoryIsWritten() throws {
    let file = try write(TinyDirectory())
    #expect(file.tensors.count == 11)
    #expect(file.header["general.architecture"]?.text == "llama")
    #expect(file.header["general.file_type"]?.int == 0)
    #expect(file.header["llama.rope.dimension_count"]?.int == 4)
    #expect(file.header["tokenizer.ggml.pre"]?.text == "gpt-2")
    #expect(tokens(file) == ["a", "b", "ab", "<s>", "[PAD4]"])
    #expect(file.header["tokenizer.ggml.bos_token_id"]?.int == 3)
    #expect(file.header["tokenizer.ggml.add_bos_token"] == nil)
  }

  private func tokens(_ file: GGUFFile) -> [String]? {
    guard case .array(let array) = file.header["tokenizer.ggml.tokens"] else { return nil }
    return array.strings?.map { String(decoding: $0, as: UTF8.self) }
  }

  @Test func rowsOfQAndKAreInterleaved() throws {
    let file = try write(TinyDirectory())
    let tensor = try #require(file.tensors.first { $0.name == "blk.0.attn_q.weight" })
    let values = floats(try file.bytes(of: tensor))
    // Rows of 4 numbers; of each head of 4 rows the halves are 0, 1 and 2, 3.
    #expect(stride(from: 0, to: 32, by: 4).map { values[$0] / 4 } == [0, 2, 1, 3, 4, 6, 5, 7])
  }

  private func floats(_ bytes: [UInt8]) -> [Float] {
    stride(from: 0, to: bytes.count, by: 4).map { start in
      Float(bitPattern: bytes[start..<start + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) })
    }
  }

  @Test func anOutputOfItsOwn() throws {
    var model = TinyDirectory()
    model.tensors.append(.init("lm_head.weight", [5, 4]))
    // transformers does not read it, either.
    #expect(try write(model).tensors.count == 11)
    model.config["tie_word_embeddings"] = .bool(false)
    #expect(try write(model).tensors.contains { $0.name == "output.weight" })
    model.tensors.removeLast()
    #expect(
      throws: PeftoolError(
        .different, "there is no such tensor", tensor: "lm_head.weight", path: scratch.path("m"))
    ) { try write(model) }
  }

  @Test func merges() throws {
    var model = TinyDirectory()
    model.merges = #"["a b"]"#
    #expect(try write(model).header["tokenizer.ggml.merges"]?.summary == "1 strings")
    assertTexts(try write(model), "tokenizer.ggml.merges", ["a b"])
    model.vocabulary = #"{"a ": 0, "b": 1, "a b": 2}"#
    model.merges = #"[["a ", "b"]]"#
    assertTexts(try write(model), "tokenizer.ggml.merges", ["a\u{120} b"])
  }

  private func assertTexts(
    _ file: GGUFFile, _ key: String, _ expected: [String],
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let array =
      if case .array(let array) = file.header[key] { array.strings } else { nil as [[UInt8]]? }
    #expect(
      array?.map { String(decoding: $0, as: UTF8.self) } == expected,
      sourceLocation: sourceLocation)
  }

  @Test func kindsOfTokens() throws {
    var model = TinyDirectory()
    model.added = """
      [{"id": 2, "content": "ab"}, {"id": 3, "content": "<|x|>"},
       {"id": 4, "content": "\u{2581}y", "special": false}]
      """
    let file = try write(model)
    guard case .array(let kinds) = file.header["tokenizer.ggml.token_type"] else {
      Issue.record("no types")
      return
    }
    #expect(kinds.integers == [1, 1, 4, 3, 4])
    #expect(tokens(file) == ["a", "b", "ab", "<|x|>", " y"])
  }

  @Test func scoresPutMergesIntoTheirOrder() throws {
    var model = TinyDirectory()
    model.model = #""type": "BPE", "byte_fallback": true, "unk_token": "<unk>""#
    model.cutting = "null"
    model.others = #""decoder": {"type": "Sequence", "decoders": []},"#
    model.vocabulary = #"{"<unk>": 0, "<0x0A>": 1, "a": 2, "aab": 4, "b": 5, "ab": 6}"#
    model.merges = #"[["a", "b"], ["a", "ab"]]"#
    model.config["vocab_size"] = .number(8)
    model.tensors[0] = .init("model.embed_tokens.weight", [8, 4])
    let file = try write(model)
    guard case .array(let scores) = file.header["tokenizer.ggml.scores"],
      case .array(let kinds) = file.header["tokenizer.ggml.token_type"]
    else {
      Issue.record("no scores")
      return
    }
    #expect(kinds.integers == [2, 6, 1, 3, 1, 1, 1, 5])
    #expect(scores.numbers == [0, 0, -2, 0, -1, -3, 0, -10000])
    // Nothing puts a space before a text here.
    #expect(file.header["tokenizer.ggml.add_space_prefix"] == .bool(false))
  }

  @Test func theBeginningOfATextIsMarkedWhereTheTokenizerDoes() throws {
    var model = TinyDirectory()
    model.others = """
      "post_processor": {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]},
      """
    #expect(try write(model).header["tokenizer.ggml.add_bos_token"] == .bool(true))
    model.settings = #"{"bos_token": {"content": "<s>"}, "add_bos_token": false}"#
    let file = try write(model)
    #expect(file.header["tokenizer.ggml.add_bos_token"] == .bool(false))
    #expect(file.header["tokenizer.ggml.bos_token_id"]?.int == 3)
    model.settings = #"{"bos_token": "a"}"#
    #expect(try write(model).header["tokenizer.ggml.add_bos_token"] == .bool(false))
  }

  @Test func aWayOfCuttingThatHasNoName() {
    let reason =
      "its normalizer, pre_tokenizer and ignore_merges are those of no way of cutting text that "
      + "peftool has a llama.cpp name for; it knows gpt-2, smollm, llama-bpe, tekken, qwen2, "
      + "deepseek-r1-qwen"
    assertRejects(reason, .unsupported, at: "m/tokenizer.json") {
      $0.cutting = #"{"type": "Whitespace"}"#
    }
    assertRejects(reason, .unsupported, at: "m/tokenizer.json") {
      $0.model += #", "ignore_merges": true"#
    }
  }

  @Test func anotherModelOfATokenizer() {
    assertRejects(
      "its model is \"Unigram\", expected \"BPE\"", .unsupported, at: "m/tokenizer.json"
    ) {
      $0.model = #""type": "Unigram""#
    }
    assertRejects("its model has no vocab", .damaged, at: "m/tokenizer.json") {
      $0.vocabulary = "{}"
    }
  }

  @Test func tokensThatDoNotFit() {
    assertRejects("\"a\" and \"b\" have the same number, 0", .damaged, at: "m/tokenizer.json") {
      $0.vocabulary = #"{"a": 0, "b": 0}"#
    }
    assertRejects("token \"a\" stands twice", .damaged, at: "m/tokenizer.json") {
      $0.vocabulary = #"{"a": 0, "a": 1}"#
    }
    assertRejects("token \"a\" has two numbers", .damaged, at: "m/tokenizer.json") {
      $0.added = #"[{"id": 4, "content": "a"}]"#
    }
    assertRejects(
      "token \"<s>\" has the number 5, vocab_size is 5", .different, at: "m/tokenizer.json"
    ) { $0.added = #"[{"id": 5, "content": "<s>"}]"# }
    assertRejects(
      "merge \"a b c\" is none of two parts", .damaged, at: "m/tokenizer.json", offset: 245
    ) { $0.merges = #"["a b c"]"# }
    assertRejects("a merge of 3 parts, expected 2", .damaged, at: "m/tokenizer.json", offset: 245) {
      $0.merges = #"[["a", "b", "c"]]"#
    }
  }

  @Test func noTokenizer() throws {
    _ = try write(TinyDirectory())
    try FileManager.default.removeItem(atPath: scratch.path("m/tokenizer.json"))
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has no tokenizer.json, which transformers writes with "
          + "AutoTokenizer.from_pretrained(…).save_pretrained(…)", path: scratch.path("m"))
    ) { try GGUFWriting(Checkpoint(opening: scratch.path("m")), dtype: nil) }
  }

  @Test func aModelOfAnotherKind() {
    assertRejects(
      "model_type is gemma, expected one of llama, mistral, qwen2, qwen3", .unsupported,
      at: "m/config.json"
    ) { $0.config["model_type"] = .string("gemma") }
    assertRejects("hidden_act is \"gelu\", expected silu", .unsupported, at: "m/config.json") {
      $0.config["hidden_act"] = .string("gelu")
    }
    assertRejects(
      "has a quantization_config: make plain numbers of it first, with peftool dequantize; of int4 "
        + "--dtype q4_1 keeps its codes",
      .unsupported, at: "m/config.json"
    ) { $0.config["quantization_config"] = .object([]) }
    assertRejects(
      "rope_scaling.rope_type is dynamic, expected default, linear, yarn or llama3", .unsupported,
      at: "m/config.json"
    ) {
      $0.config["rope_scaling"] = .object([
        .init("type", .string("dynamic")), .init("factor", .number(2)),
      ])
    }
    assertRejects(
      "rope_scaling.mscale has no place in a GGUF file that peftool knows", .unsupported,
      at: "m/config.json"
    ) {
      $0.config["rope_scaling"] = .object([
        .init("type", .string("yarn")), .init("factor", .number(2)), .init("mscale", .number(1)),
      ])
    }
  }

  @Test func aSizeThatIsMissing() {
    assertRejects("has no hidden_size", .damaged, at: "m/config.json") {
      $0.config["hidden_size"] = nil
    }
    assertRejects("num_hidden_layers is 0, expected 1 to 2147483648", .damaged, at: "m/config.json")
    {
      $0.config["num_hidden_layers"] = .number(0)
    }
    assertRejects("has 11 tensors, too few for 2147483648 layers", .different) {
      $0.config["num_hidden_layers"] = .number(1 << 31)
    }
  }

  @Test func tensorsThatDoNotFit() {
    assertRejects("there is no such tensor", .different, tensor: "model.norm.weight") {
      $0.tensors.remove(at: 1)
    }
    assertRejects(
      "has no place in a LlamaForCausalLM of 1 layers", .unsupported, tensor: "score.weight"
    ) { $0.tensors.append(.init("score.weight", [2, 4])) }
    assertRejects(
      "is [5], config.json says [4]", .different, tensor: "model.norm.weight"
    ) { $0.tensors[1] = .init("model.norm.weight", [5]) }
  }
}

@Suite struct ModelNameTests {
  @Test func namesAreTakenApart() {
    let name = ModelName("org/Base-1.5-7b-Chat-v2", parameterCount: 7_000_000_000)
    #expect(name.organization == "org")
    #expect(name.basename == "Base-1.5")
    #expect(name.sizeLabel == "7B")
    #expect(name.finetune == "Chat")
    #expect(name.version == "v2")
    #expect(ModelName.title(name.name) == "Base 1.5 7b Chat v2")
    // Far from the number of parameters it is a context's length.
    let long = ModelName("base-128K", parameterCount: 7_000_000_000)
    #expect(long.sizeLabel == nil && long.finetune == "128k")
    #expect(ModelName("model", parameterCount: 1).basename == nil)
    #expect(ModelName.sizeLabel(134_515_008) == "135M")
    #expect(ModelName.sizeLabel(1_100_048_384) == "1.1B")
  }
}
