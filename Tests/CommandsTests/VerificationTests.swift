import Checkpoints
import Files
import Fixtures
import Foundation
import Tensors
import Testing

@testable import Commands

/// Faults of models; every fault is looked for by its whole line.
@Suite struct VerificationTests {
  private let folder: Scratch

  init() throws { folder = try Scratch() }

  private func floats(_ name: String, _ values: [Float] = [1]) -> TestTensor {
    TestTensor(name, .f32, values)
  }

  /// The faults as printed, without the test's folder.
  private func faults(
    _ name: String, base: String? = nil, threads: Int = 2
  ) throws -> [String] {
    try Verification(
      folder.path(name), base: base.map { folder.path($0) }, threads: threads
    )
    .faults.map { $0.description.replacingOccurrences(of: folder.path(""), with: "") }
  }

  private func index(_ map: [String: String]) throws {
    let text = Array(try JSONSerialization.data(withJSONObject: ["weight_map": map]))
    try folder.write("m/model.safetensors.index.json", text)
  }

  // MARK: Files

  @Test func aSoundFileHasNone() throws {
    try folder.write("m.safetensors", [floats("a"), floats("b")])
    #expect(try faults("m.safetensors") == [])
  }

  @Test func eachDamagedShardIsTold() throws {
    try folder.write("m/1.safetensors", "short")
    try folder.write("m/2.safetensors", [floats("b")])
    try folder.write("m/3.safetensors", [2, 0, 0, 0, 0, 0, 0, 0] + Array("{}x".utf8))
    try index(["a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors", "d": "4"])
    let found = try faults("m")
    #expect(
      found == [
        "m/1.safetensors: the file has 5 bytes, a safetensors file has 8 before its header",
        "m/3.safetensors: byte 10: the tensors take 0 bytes, the file has 1 after its header",
        "m/4: cannot open: No such file or directory; the index puts 1 tensor into it",
      ])
  }

  @Test func eachDisagreementWithTheIndexIsTold() throws {
    try folder.write("m/1.safetensors", [floats("a"), floats("b"), floats("twice")])
    try folder.write("m/2.safetensors", [floats("c"), floats("twice")])
    try index([
      "a": "1.safetensors", "b": "2.safetensors", "twice": "1.safetensors", "y": "1.safetensors",
      "z": "2.safetensors",
    ])
    #expect(
      try faults("m") == [
        "m/1.safetensors: tensor 'b': is in this shard, the index has it in 2.safetensors",
        "m/2.safetensors: tensor 'c': is in this shard, but not in the index",
        "m/2.safetensors: tensor 'twice': stands in this shard and in 1.safetensors",
        "m/1.safetensors: tensor 'y': the index has it in this shard, which has no such tensor",
        "m/2.safetensors: tensor 'z': the index has it in this shard, which has no such tensor",
      ])
  }

  @Test func withoutAnIndexTheShardsAreStillLookedAt() throws {
    try folder.write("m/model.safetensors.index.json", "{")
    try folder.write("m/1.safetensors", [floats("a", [.nan])])
    let found = try faults("m")
    #expect(found.count == 2)
    #expect(found.first?.hasPrefix("m/model.safetensors.index.json: byte 1: ") == true)
    #expect(found.last?.contains("tensor 'a': has 1 NaN") == true)
  }

  @Test func whatIsNoCheckpointCannotBeVerified() throws {
    try folder.write("text", "hello world")
    try folder.write("folder/readme", "")
    for name in ["nothing", "text", "folder"] {
      #expect(throws: PeftoolError.self) { try faults(name) }
    }
    try folder.write("m.safetensors", [floats("a")])
    #expect(throws: PeftoolError.self) { try faults("m.safetensors", base: "m.safetensors") }
  }

  // MARK: Packed files

  private func pack(_ name: String, as packed: String, base: String? = nil) throws {
    _ = try Packing(Checkpoint(opening: folder.path(name)), base: base.map { folder.path($0) })
      .run(to: folder.path(packed), isForced: true, threads: 2, progress: { _ in })
  }

  @Test func aBaseThatIsNotThereIsOneFault() throws {
    let codes = [UInt8](repeating: 7, count: 3 << 20)
    func model(_ last: Float) -> [TestTensor] {
      [
        TestTensor("a", .f32, [Float](repeating: 1, count: 1 << 20) + [last]),
        TestTensor("b", .u8, codes), floats("c"),
      ]
    }
    try folder.write("base.safetensors", model(1))
    try folder.write("m.safetensors", model(2) + [floats("d", [.nan])])
    try pack("m.safetensors", as: "m.zst", base: "base.safetensors")
    let wrong = "m.zst: tensor 'd': has 1 NaN among 1 element, the first at [0]; "
    #expect(try faults("m.zst") == [wrong + "expected finite numbers"])
    try FileManager.default.removeItem(atPath: folder.path("base.safetensors"))
    let found = try faults("m.zst")
    #expect(found.count == 2, "\(found)")
    #expect(found.first?.contains("is made of differences to") == true)
    #expect(found.last?.hasPrefix(wrong) == true)
    // What needs no base is checked all the same: here the first frame, a difference.
    var bytes = try folder.bytes("m.zst")
    let file = try PackedFile(opening: folder.path("m.zst"))
    let frames = file.entries.reduce(0) { $0 + $1.frameByteCount }
    bytes[bytes.count - frames + file.entries[0].frameByteCount - 1] ^= 1
    try folder.write("m.zst", bytes)
    #expect(try faults("m.zst").last?.contains("the checksum of the packed block is") == true)
  }

  @Test func anIndexThatDoesNotFitIsAFault() throws {
    try folder.write("m/1.safetensors", [floats("a"), floats("b")])
    try folder.write("m/2.safetensors", [floats("c")])
    try index(["a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"])
    try pack("m", as: "good.zst")
    let sound = try Verification(folder.path("good.zst"), base: nil, threads: 1)
    #expect(sound.faults == [] && sound.checked.contains("2 shards and their index"))
    let checkpoint = try Checkpoint(opening: folder.path("m"))
    try index(["a": "2.safetensors", "b": "1.safetensors", "d": "3.safetensors"])
    _ = try Packing(checkpoint).run(
      to: folder.path("m.zst"), isForced: false, threads: 1, progress: { _ in })
    #expect(
      try faults("m.zst") == [
        "m.zst/3.safetensors: is not there; the index puts tensors into this shard",
        "m.zst/1.safetensors: tensor 'a': is in this shard, the index has it in 2.safetensors",
        "m.zst/2.safetensors: tensor 'c': is in this shard, but not in the index",
      ])
  }

  // MARK: Values

  @Test func nonfiniteElementsAreCountedAndPlaced() throws {
    var values = [Float](repeating: 1, count: 600)
    (values[402], values[403], values[599]) = (.infinity, .nan, -.infinity)
    try folder.write(
      "m.safetensors",
      [
        TestTensor("a", .f32, values, shape: [3, 2, 100]), floats("b"),
        TestTensor("c", .f16, [0x7C00, 0] as [UInt16]),
        TestTensor("d", .c64, [0, 1, 0, .nan] as [Float], shape: [2]),
      ])
    let place = "m.safetensors: tensor"
    let end = "; expected finite numbers"
    #expect(
      try faults("m.safetensors") == [
        "\(place) 'a': has 1 NaN and 2 infinities among 600 elements, the first at [2, 0, 2]\(end)",
        "\(place) 'c': has 1 infinity among 2 elements, the first at [0]\(end)",
        "\(place) 'd': has 1 NaN among 2 elements, the first at [1]\(end)",
      ])
  }

  @Test(arguments: [
    (DType.f64, [UInt8](repeating: 0xFF, count: 8)), (.f32, [0, 0, 0x80, 0x7F]),
    (.f16, [0x01, 0xFC]), (.bf16, [0x80, 0xFF]), (.f8E4M3, [0x7F]), (.f8E5M2, [0x7C]),
    (.f8E8M0, [0xFF]), (.f8E4M3FNUZ, [0x80]), (.f8E5M2FNUZ, [0x80]),
    (.c64, [0, 0, 0, 0, 0, 0, 0x80, 0x7F]),
  ])
  func everyDTypeWithNaNOrInfinityIsLookedThrough(dtype: DType, pattern: [UInt8]) throws {
    #expect(dtype.hasNonfinite)
    let zeros = [UInt8](repeating: 0, count: pattern.count)
    try folder.write(
      "m.safetensors", [TestTensor("a", dtype, [3], bytes: zeros + pattern + zeros)])
    let found = try faults("m.safetensors")
    #expect(found.count == 1)
    #expect(found.first?.contains("among 3 elements, the first at [1];") == true)
  }

  @Test func otherDTypesHaveNone() throws {
    for dtype in DType.allCases where !dtype.hasNonfinite {
      let bytes = [UInt8](repeating: 0xFF, count: 24)
      try folder.write(
        "m.safetensors", [TestTensor("a", dtype, [192 / dtype.bitCount], bytes: bytes)])
      #expect(try faults("m.safetensors") == [])
    }
  }

  @Test func threadsDoNotChangeTheFaults() throws {
    var random = SplitMix64(seed: 3)
    var words = (0..<(20 << 20) / 8).map { _ in random.next() & 0x7777_7777_7777_7777 }
    for place in [words.count / 2, words.count - 1] { words[place] = .max }
    try folder.write("m.safetensors", [TestTensor("a", .f8E4M3, words, shape: [20 << 20])])
    let one = try faults("m.safetensors", threads: 1)
    #expect(one.count == 1)
    for threads in [2, 7] { #expect(try faults("m.safetensors", threads: threads) == one) }
  }

  // MARK: config.json

  private func model(_ config: String, _ tensors: [TestTensor]) throws -> [String] {
    try folder.write("c/model.safetensors", tensors)
    try folder.write("c/config.json", config)
    return try faults("c").map { String($0.dropFirst("c/config.json: ".count)) }
  }

  private func matrix(_ name: String, _ rows: Int, _ columns: Int) -> TestTensor {
    TestTensor(name, .f32, [Float](repeating: 1, count: rows * columns), shape: [rows, columns])
  }

  @Test func layersAreCounted() throws {
    let tensors = [floats("model.layers.0.a"), floats("model.layers.3.a"), floats("layers.9")]
    #expect(
      try model("{\"num_hidden_layers\": 4}", tensors) == [
        "says 4 layers, the tensors have none for layer 1-2"
      ])
    #expect(
      try model("{\"n_layer\": 1}", tensors) == [
        "says 1 layer, the tensors have layer 3, too"
      ])
    let further = "{\"num_hidden_layers\": 1, \"num_nextn_predict_layers\": 3}"
    #expect(try model(further, tensors) == [])
    #expect(try model("{\"num_hidden_layers\": 4}", [floats("x")]) == [])
  }

  @Test func embeddingsHaveTheVocabularysSize() throws {
    let config =
      "{\"model_type\": \"llama\", \"vocab_size\": 5, \"hidden_size\": 2, "
      + "\"architectures\": [\"LlamaForCausalLM\"], \"tie_word_embeddings\": false}"
    let good = [matrix("model.embed_tokens.weight", 5, 2), matrix("lm_head.weight", 5, 2)]
    #expect(try model(config, good) == [])
    #expect(
      try model(config, [matrix("model.embed_tokens.weight", 6, 3)]) == [
        "tensor 'model.embed_tokens.weight': vocab_size is 5, the tensor has 6 rows",
        "tensor 'model.embed_tokens.weight': hidden_size is 2, the tensor has 3 columns",
        "tensor 'lm_head.weight': tie_word_embeddings is false, and there is no such tensor",
      ])
    let other = config.replacingOccurrences(of: "llama", with: "unheard-of")
    #expect(try model(other, [matrix("model.embed_tokens.weight", 6, 3)]) == [])
  }

  @Test func aConfigurationThatIsNoneIsAFault() throws {
    #expect(
      try model("[]", [floats("a")]) == [
        "the configuration is an array of 0, expected an object"
      ])
  }

  @Test func otherWeightsInTheFolderAreNoted() throws {
    try folder.write("c/model.safetensors", [floats("a")])
    try folder.write("c/pytorch_model.bin", "")
    let found = try Verification(folder.path("c"), base: nil, threads: 1)
    #expect(found.faults == [])
    #expect(
      found.notes == ["not verified: pytorch_model.bin, which is no part of this checkpoint"])
  }
}
