import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Synchronization
import Tensors
import Testing

@testable import Commands

/// A small Llama in GGUF, of one layer and in F32, to which a test does something.
private struct TinyModel {
  var architecture = "llama"
  var settings: [String: UInt32] = [
    "block_count": 1, "embedding_length": 4, "feed_forward_length": 3, "context_length": 16,
    "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 4,
  ]
  var tokens = ["a", "b", "ab", "<s>"]
  var kinds: [Int32]? = [1, 1, 1, 3]
  var merges: [String]? = ["a b"]
  var pre = "gpt-2"
  var tokenizerModel = "gpt2"
  var specials: [String: UInt32] = ["bos": 3]
  /// Shapes by name, the slowest dimension first, and the value of all elements.
  var tensors: [(name: String, shape: [Int], value: Float)] = [
    ("token_embd.weight", [4, 4], 1), ("blk.0.attn_norm.weight", [4], 1),
    ("blk.0.attn_q.weight", [8, 4], 1), ("blk.0.attn_k.weight", [4, 4], 1),
    ("blk.0.attn_v.weight", [4, 4], 1), ("blk.0.attn_output.weight", [4, 8], 1),
    ("blk.0.ffn_norm.weight", [4], 1), ("blk.0.ffn_gate.weight", [3, 4], 1),
    ("blk.0.ffn_up.weight", [3, 4], 1), ("blk.0.ffn_down.weight", [4, 3], 1),
    ("output_norm.weight", [4], 1),
  ]
  /// The tensors whose bytes are blocks of Q8_0, all zeros.
  var blocks: Set<String> = []
  /// Numbers of attn_q, each of its own where they are wanted.
  var counts = false

  var bytes: [UInt8] {
    var pairs: [[UInt8]] = []
    func add(_ key: String, _ type: UInt32, _ value: [UInt8]) {
      pairs.append(string(key) + little(type) + value)
    }
    add("general.architecture", 8, string(architecture))
    for (key, value) in settings.sorted(by: { $0.key < $1.key }) {
      add("\(architecture).\(key)", 4, little(value))
    }
    add("\(architecture).attention.layer_norm_rms_epsilon", 6, little(Float(1e-5).bitPattern))
    add("tokenizer.ggml.model", 8, string(tokenizerModel))
    add("tokenizer.ggml.pre", 8, string(pre))
    add("tokenizer.ggml.tokens", 9, array(8, tokens.map(string)))
    if let kinds { add("tokenizer.ggml.token_type", 9, array(5, kinds.map(little))) }
    if let merges { add("tokenizer.ggml.merges", 9, array(8, merges.map(string))) }
    for (key, value) in specials.sorted(by: { $0.key < $1.key }) {
      add("tokenizer.ggml.\(key)_token_id", 4, little(value))
    }
    var entries: [UInt8] = []
    var data: [UInt8] = []
    for tensor in tensors {
      entries += string(tensor.name) + little(UInt32(tensor.shape.count))
      entries += tensor.shape.reversed().flatMap { little(UInt64($0)) }
      let isBlocks = blocks.contains(tensor.name)
      entries += little(UInt32(isBlocks ? 8 : 0)) + little(UInt64(data.count))
      let count = tensor.shape.reduce(1, *)
      if isBlocks { data += Array(repeating: 0, count: count / 32 * 34) }
      for place in 0..<(isBlocks ? 0 : count) {
        let value = counts && tensor.name == "blk.0.attn_q.weight" ? Float(place) : tensor.value
        data += little(value.bitPattern)
      }
      data += Array(repeating: 0, count: (32 - data.count % 32) % 32)
    }
    let head: [UInt8] =
      Array("GGUF".utf8) + little(UInt32(3)) + little(UInt64(tensors.count))
      + little(UInt64(pairs.count)) + pairs.flatMap { $0 } + entries
    return head + Array(repeating: 0, count: (32 - head.count % 32) % 32) + data
  }

  private func little<I: FixedWidthInteger>(_ value: I) -> [UInt8] {
    (0..<I.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
  private func string(_ text: String) -> [UInt8] {
    little(UInt64(text.utf8.count)) + Array(text.utf8)
  }
  private func array(_ type: UInt32, _ elements: [[UInt8]]) -> [UInt8] {
    little(type) + little(UInt64(elements.count)) + elements.flatMap { $0 }
  }
}

@Suite struct ConversionTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func convert(
    _ model: TinyModel, dtype: DType? = nil, threads: Int = 1, shardByteCount: Int = 1 << 30
  ) throws -> Checkpoint {
    let path = try scratch.write("m.gguf", model.bytes)
    try convert(
      path, to: scratch.path("out"), dtype: dtype, threads: threads, shardByteCount: shardByteCount)
    return try Checkpoint(opening: scratch.path("out"))
  }

  private func convert(
    _ path: String, to output: String, dtype: DType? = nil, threads: Int = 1,
    shardByteCount: Int? = nil
  ) throws {
    var options = CheckpointSelection.Options()
    options.dtype = dtype
    let job = try ConversionJob(
      Checkpoint(opening: path), options, to: .directory(output), shardByteCount: shardByteCount,
      overflow: .refused(hint: "; a hint"))
    try job.conversion.run(
      force: true, threads: threads, progress: { _ in }, companions: job.companions.write)
  }

  private func assertRejects(
    _ reason: String, tensor: String? = nil, kind: PeftoolError.Kind,
    dtype: DType? = nil, sourceLocation: SourceLocation = #_sourceLocation,
    _ change: (inout TinyModel) -> Void
  ) {
    var model = TinyModel()
    change(&model)
    #expect(
      throws: PeftoolError(kind, reason, tensor: tensor, path: scratch.path("m.gguf")),
      sourceLocation: sourceLocation
    ) { try convert(model, dtype: dtype) }
    #expect(!Folder.exists(scratch.path("out")), sourceLocation: sourceLocation)
  }

  @Test func aModelIsConverted() throws {
    let model = try convert(TinyModel())
    #expect(model.tensors.count == 11)
    #expect(model["model.layers.0.self_attn.q_proj.weight"]?.shape == [8, 4])
    #expect(model["lm_head.weight"] == nil)
    let config = try #require(try model.config)
    #expect(config["tie_word_embeddings"] == .bool(true))
    #expect(config["rms_norm_eps"] == .number("1e-05"))
    #expect(config["head_dim"] == .number(4))
    #expect(model.otherFiles.contains("tokenizer.json"))
    #expect(model.source.metadata.map(\.key) == ["format"])
  }

  @Test func rowsOfQAndKArePutBack() throws {
    var tiny = TinyModel()
    tiny.counts = true
    let model = try convert(tiny)
    // Rows of 4 numbers; of each head of 4 rows the even ones come first.
    let rows = try queries(of: model).enumerated().filter { $0.offset % 4 == 0 }
    #expect(rows.map { Int($0.element) / 4 } == [0, 2, 1, 3, 4, 6, 5, 7])
    var qwen = tiny
    qwen.architecture = "qwen3"
    qwen.tensors += [("blk.0.attn_q_norm.weight", [4], 1), ("blk.0.attn_k_norm.weight", [4], 1)]
    #expect(try queries(of: convert(qwen)) == (0..<32).map { Float($0) })
  }

  /// However large a file says that heads are, and however small the parts.
  @Test func noRowOfAHeadIsReadTwice() throws {
    let (rows, columns) = (1000, 3)
    let tensor = TensorInfo(
      name: "q", dtype: .f32, shape: [2 * rows, columns], byteRange: 0..<8 * rows * columns,
      fileIndex: 0)
    let stored = CountingSource(tensor: tensor)
    let source = HeadOrderSource(stored: stored, headRowCounts: ["q": rows])
    var bytes = Block(byteCount: tensor.byteCount)
    var found = bytes.mutableBytes(tensor.byteCount)
    for part in (0..<tensor.byteCount).cut(into: 20) {
      var span = found._mutatingExtracting(part)
      try source.read(tensor, bytes: part, into: &span)
    }
    #expect(stored.readByteCount == tensor.byteCount)
    let values = (0..<2 * rows).map { row in
      Int(found.bytes.unsafeLoad(fromByteOffset: row * columns * 4, as: UInt32.self)) / columns
    }
    let head = Array(stride(from: 0, to: rows, by: 2)) + stride(from: 1, to: rows, by: 2)
    #expect(values == head + head.map { $0 + rows })
  }

  private func queries(of model: Checkpoint) throws -> [Float] {
    let tensor = try #require(model["model.layers.0.self_attn.q_proj.weight"])
    let bytes = try model.source.bytes(of: tensor)
    var values = [Float](repeating: 0, count: 32)
    var span = values.mutableSpan
    Float.read(bytes.span.bytes, .f32, into: &span, count: 32)
    return values
  }

  @Test(arguments: [1, 2, 7]) func threadsDoNotChangeTheBytes(threads: Int) throws {
    var tiny = TinyModel()
    tiny.counts = true
    _ = try convert(tiny, threads: 1)
    let expected = try scratch.bytes("out/model.safetensors")
    _ = try convert(tiny, threads: threads)
    #expect(try scratch.bytes("out/model.safetensors") == expected)
  }

  @Test func shardsHaveAnIndex() throws {
    let model = try convert(TinyModel(), shardByteCount: 200)
    #expect(model.kind == .sharded)
    #expect(model.tensors.count == 11)
  }

  @Test func anotherArchitecture() {
    assertRejects(
      "its architecture is gemma, expected llama (Llama, Mistral), qwen2 or qwen3",
      kind: .unsupported
    ) { $0.architecture = "gemma" }
  }

  @Test func aSettingThatIsMissing() {
    assertRejects("has no llama.block_count", kind: .damaged) {
      $0.settings["block_count"] = nil
    }
    assertRejects("llama.block_count is 0, expected 1 to 2147483648", kind: .damaged) {
      $0.settings["block_count"] = 0
    }
  }

  @Test func headsOfTwoSizes() {
    assertRejects(
      "llama.attention.value_length is 8, expected 4, the size of a head", kind: .unsupported
    ) { $0.settings["attention.value_length"] = 8 }
  }

  /// As many heads as the embeddings have numbers leave one for each, twice as many none.
  @Test(arguments: [4, 8]) func headsOfOneRowOrNone(count: UInt32) {
    assertRejects(
      "heads have \(4 / count) rows, expected an even number", kind: .damaged
    ) {
      $0.settings["attention.head_count"] = count
      $0.settings["attention.key_length"] = nil
    }
  }

  /// Rows of one element have no blocks.
  @Test func aVectorOfBlocks() {
    assertRejects(
      "is a vector of Q8_0, expected numbers one by one", tensor: "blk.0.attn_q.bias",
      kind: .unsupported
    ) {
      $0.settings["attention.key_length"] = 32
      let (q, k) = (64, 32)
      for (place, shape) in [(2, [q, 4]), (3, [k, 4]), (4, [k, 4]), (5, [4, q])] {
        $0.tensors[place].shape = shape
      }
      for (name, count) in [("q", q), ("k", k), ("v", k), ("output", 4)] {
        $0.tensors.append(("blk.0.attn_\(name).bias", [count], 0))
      }
      $0.blocks = ["blk.0.attn_q.bias"]
    }
  }

  @Test func moreLayersThanTensors() {
    assertRejects("has 11 tensors, too few for 2147483648 layers", kind: .different) {
      $0.settings["block_count"] = 1 << 31
    }
  }

  @Test func aTensorThatIsMissing() {
    assertRejects("there is no such tensor", tensor: "blk.0.ffn_up.weight", kind: .different) {
      $0.tensors.remove(at: 8)
    }
  }

  @Test func aTensorThatHasNoPlace() {
    assertRejects(
      "has no place in a LlamaForCausalLM of 1 layers", tensor: "blk.0.ffn_gate_inp.weight",
      kind: .unsupported
    ) { $0.tensors.append(("blk.0.ffn_gate_inp.weight", [4], 1)) }
  }

  @Test func aTensorOfAnotherShape() {
    assertRejects(
      "is [4, 8], the metadata say [8, 4]", tensor: "blk.0.attn_q.weight", kind: .different
    ) { $0.tensors[2].shape = [4, 8] }
  }

  @Test func factorsThatNobodyKnows() {
    assertRejects(
      "these factors for frequencies are none of Llama 3's scaling", tensor: "rope_freqs.weight",
      kind: .unsupported
    ) { $0.tensors.append(("rope_freqs.weight", [3], 2)) }
  }

  @Test func numbersThatF16DoesNotHold() {
    assertRejects(
      "12 numbers too large for F16, whose largest is 65504; a hint",
      tensor: "blk.0.ffn_up.weight", kind: .different, dtype: .f16
    ) { $0.tensors[8].value = 65520 }
  }

  @Test func aWayOfCuttingThatNobodyKnows() {
    assertRejects(
      "tokenizer.ggml.pre is \"poro\", a way of cutting text that peftool does not know",
      kind: .unsupported
    ) { $0.pre = "poro" }
  }

  @Test func aTokenizerOfAnotherKind() {
    assertRejects(
      "its tokenizer is \"bert\", expected gpt2 (BPE) or llama (SentencePiece)",
      kind: .unsupported
    ) { $0.tokenizerModel = "bert" }
  }

  @Test func aTokenTwice() {
    assertRejects("token 1, \"a\", stands twice in the vocabulary", kind: .damaged) {
      $0.tokens[1] = "a"
    }
  }

  @Test(arguments: ["a c", "ab", "ab a", " a b"]) func aMergeOfNoTokens(merge: String) {
    assertRejects("merge 0, \"\(merge)\", is none of two tokens to a third", kind: .damaged) {
      $0.merges = [merge]
    }
  }

  @Test func tokenTypesThatAreNone() {
    assertRejects("token 2 is of type 7, expected 1 to 6", kind: .damaged) {
      $0.kinds = [1, 1, 7, 1]
    }
    assertRejects("tokenizer.ggml.token_type has 1 elements, expected 4", kind: .damaged) {
      $0.kinds = [1]
    }
  }

  @Test func aSpecialTokenPastTheEnd() {
    assertRejects(
      "tokenizer.ggml.eos_token_id is 4, the vocabulary has 4 tokens", kind: .damaged
    ) { $0.specials["eos"] = 4 }
  }

  @Test(
    arguments: [
      ("gpt-2", "null", "ByteLevel", false), ("smollm", "null", "Sequence", false),
      ("llama-bpe", "null", "Sequence", true), ("qwen2", "{\"type\":\"NFC\"}", "Sequence", false),
    ])
  func textIsCutAsTheNamedModelsDo(
    pre: String, normalizer: String, type: String, ignoresMerges: Bool
  ) throws {
    var tiny = TinyModel()
    tiny.pre = pre
    _ = try convert(tiny)
    let tokenizer = try JSON(opening: scratch.path("out/tokenizer.json"))
    #expect(tokenizer["normalizer"]?.text() == normalizer)
    #expect(try tokenizer.string(at: "pre_tokenizer", "type") == type)
    #expect(try tokenizer.bool(at: "model", "ignore_merges") == ignoresMerges)
  }

  @Test func paddingOfTheVocabularyIsLeftOut() throws {
    var tiny = TinyModel()
    tiny.tokens.append("[PAD4]")
    tiny.kinds = [1, 1, 1, 3, 5]
    tiny.tensors[0].shape = [5, 4]
    _ = try convert(tiny)
    let tokenizer = try JSON(opening: scratch.path("out/tokenizer.json"))
    #expect(try tokenizer.object(at: "model", "vocab").map(\.key) == ["a", "b", "ab", "<s>"])
  }

  @Test func safetensorsAreNoGGUF() throws {
    _ = try convert(TinyModel())
    let path = scratch.path("out")
    #expect(
      throws: PeftoolError(.unsupported, "is safetensors, expected GGUF", path: path)
    ) { try GGUFImport(Checkpoint(opening: path), dtype: nil, hasCompanions: true) }
  }

  @Test func aBaseInGGUFIsConvertedBeforeAMerge() throws {
    let path = try scratch.write("m.gguf", TinyModel().bytes)
    #expect(
      throws: PeftoolError(
        .unsupported,
        "is a GGUF model, expected safetensors; peftool convert makes them of it", path: path)
    ) { try BaseModel(Checkpoint(opening: path)) }
    _ = try convert(TinyModel())
    #expect(try BaseModel(Checkpoint(opening: scratch.path("out"))).isTied)
  }

  @Test func theOutputIsNotOverTheInput() throws {
    let path = try scratch.write("in/m.gguf", TinyModel().bytes)
    #expect(
      throws: PeftoolError(
        .unsupported, "is or holds the input \(path): name another output",
        path: scratch.path("in"))
    ) {
      try convert(path, to: scratch.path("in"))
    }
  }
}

/// A tensor of U32 that count up, and how many of its bytes have been read.
private final class CountingSource: TensorSource {
  let path = ""
  let files: [InputFile] = []
  let tensors: [TensorInfo]
  let metadata: [(key: String, value: String)] = []
  private let count = Mutex(0)
  var readByteCount: Int { count.withLock { $0 } }

  init(tensor: TensorInfo) { tensors = [tensor] }

  func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? { nil }

  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    count.withLock { $0 += range.count }
    for (place, offset) in range.enumerated() {
      let number = UInt32(offset / 4)
      buffer.storeBytes(
        of: UInt8(truncatingIfNeeded: number >> (8 * (offset % 4))), toByteOffset: place,
        as: UInt8.self)
    }
  }
}
