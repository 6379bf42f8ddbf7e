import Checkpoints
import Files
import Fixtures
import JSON
import Tensors
import Testing

@Suite struct CheckpointTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// Writes a safetensors file whose one tensor has the file's name.
  private func write(_ names: String...) throws {
    for name in names { try scratch.write(name, safetensors([name])) }
  }

  private func opened(preferringAdapter: Bool = false) throws -> Checkpoint {
    try Checkpoint(opening: scratch.path, preferringAdapter: preferringAdapter)
  }

  @Test func theModelComesBeforeItsIndexAndTheAdapter() throws {
    try write("model.safetensors", "adapter_model.safetensors", "other.safetensors", "shard")
    try scratch.write("model.safetensors.index.json", index([("shard", "shard")]))
    try scratch.write("adapter_config.json", "{}")
    let model = try opened()
    #expect(model.tensors.map(\.name) == ["model.safetensors"])
    #expect(model.kind == .file && !model.isAdapter)
    let adapter = try opened(preferringAdapter: true)
    #expect(adapter.tensors.map(\.name) == ["adapter_model.safetensors"])
    #expect(adapter.isAdapter)
    #expect(adapter.adapterConfigPath == scratch.path("adapter_config.json"))
  }

  @Test func theIndexComesBeforeTheAdapter() throws {
    try write("adapter_model.safetensors", "other.safetensors", "shard")
    try scratch.write("model.safetensors.index.json", index([("shard", "shard")]))
    let model = try opened()
    #expect(model.tensors.map(\.name) == ["shard"])
    #expect(model.kind == .sharded && model.singleFile == nil && model.sharded != nil)
    #expect(
      try opened(preferringAdapter: true).tensors.map(\.name) == ["adapter_model.safetensors"])
  }

  @Test func theAdapterComesBeforeOtherNames() throws {
    try write("adapter_model.safetensors", "other.safetensors")
    #expect(try opened().tensors.map(\.name) == ["adapter_model.safetensors"])
  }

  @Test func theOnlyFileOfItsKindIsTaken() throws {
    try write("a.safetensors", ".hidden.safetensors")
    #expect(try opened().tensors.map(\.name) == ["a.safetensors"])
    try write("b.safetensors")
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has 2 files that end in .safetensors, expected one of them: a.safetensors, b.safetensors",
        path: scratch.path)
    ) { try opened() }
    try scratch.write("x.safetensors.index.json", index([("b.safetensors", "b.safetensors")]))
    #expect(try opened().tensors.map(\.name) == ["b.safetensors"])
  }

  @Test func aFolderWithoutTensorsIsRefused() throws {
    try scratch.write("config.json", "{}")
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has no tensors: looked for model.safetensors, model.safetensors.index.json, "
          + "pytorch_model.bin, pytorch_model.bin.index.json, adapter_model.safetensors, "
          + "adapter_model.bin, adapters.safetensors, one *.safetensors, one *.bin, *.pt or *.pth "
          + "and one *.gguf",
        path: scratch.path)
    ) { try opened() }
    for number in 1...7 { try scratch.write("model-\(number).onnx", "?") }
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has no tensors but what peftool does not read: model-1.onnx, model-2.onnx, "
          + "model-3.onnx, model-4.onnx, model-5.onnx and 2 more", path: scratch.path)
    ) { try opened() }
  }

  @Test func otherFilesAreListed() throws {
    try write("model-1.safetensors", "model-2.safetensors", "left-over.safetensors")
    try scratch.write(
      "model.safetensors.index.json",
      index([
        ("model-1.safetensors", "model-1.safetensors"),
        ("model-2.safetensors", "model-2.safetensors"),
      ]))
    for name in [
      "config.json", "tokenizer.model", "pytorch_model.bin", "a.gguf", ".gitattributes",
      "training_args.bin", "below/config.json",
    ] {
      try scratch.write(name, "{}")
    }
    try scratch.link("link.json", to: "config.json")
    try scratch.link("broken.json", to: "nothing")
    let checkpoint = try opened()
    #expect(
      checkpoint.otherFiles == [
        "broken.json", "config.json", "link.json", "tokenizer.model", "training_args.bin",
      ])
    #expect(checkpoint.otherWeights == ["a.gguf", "left-over.safetensors", "pytorch_model.bin"])
    #expect(checkpoint.directory == scratch.path)
    #expect(try checkpoint.config == .object([]))
  }

  @Test func aSingleFileHasNoFolder() throws {
    try write("model.safetensors")
    try scratch.write("config.json", "{}")
    let checkpoint = try Checkpoint(opening: scratch.path("model.safetensors"))
    #expect(checkpoint.directory == nil)
    #expect(checkpoint.otherFiles == [])
    #expect(try checkpoint.config == nil)
  }

  @Test func anAdaptersFileHasItsConfiguration() throws {
    try write("adapter_model.safetensors")
    try scratch.write("adapter_config.json", #"{"r":8}"#)
    let checkpoint = try Checkpoint(opening: scratch.path("adapter_model.safetensors"))
    #expect(try checkpoint.adapterConfig?.int(at: "r") == 8)
  }

  @Test func anIndexHasItsFolder() throws {
    try write("shard")
    try scratch.write("config.json", "{}")
    let path = try scratch.write("model.safetensors.index.json", index([("shard", "shard")]))
    let checkpoint = try Checkpoint(opening: path)
    #expect(checkpoint.directory == scratch.path)
    #expect(checkpoint.otherFiles == ["config.json"])
  }

  @Test func theContentDecidesAndNotTheName() throws {
    let path = try scratch.write("weights.bin", safetensors(["a"]))
    #expect(try Checkpoint(opening: path).tensors.map(\.name) == ["a"])
  }

  @Test func linksAreFollowed() throws {
    try scratch.write("blobs/1", safetensors(["a"]))
    try scratch.makeFolder("snapshot")
    try scratch.link("snapshot/model.safetensors", to: "../blobs/1")
    try scratch.link("link", to: "snapshot")
    #expect(try Checkpoint(opening: scratch.path("link")).tensors.map(\.name) == ["a"])
  }

  @Test func tensorsAreFoundByTheBytesOfTheirNames() throws {
    let path = try scratch.write("a", safetensors(["\u{E9}", "e\u{301}"]))
    let checkpoint = try Checkpoint(opening: path)
    #expect(
      checkpoint["\u{E9}"]?.byteRange.lowerBound == checkpoint.tensors[0].byteRange.lowerBound)
    #expect(checkpoint["e\u{301}"]?.byteRange == checkpoint.tensors[1].byteRange)
    #expect(checkpoint["e"] == nil)
  }

  @Test func whatIsNotThereIsNamed() {
    let path = scratch.path("no")
    #expect(
      throws: PeftoolError(.io, "cannot open: No such file or directory", path: path)
    ) { try Checkpoint(opening: path) }
  }
}

@Suite struct FileSignatureTests {
  private func signature(_ bytes: [UInt8], fileByteCount: Int? = nil, path: String = "x")
    -> FileSignature
  {
    FileSignature(beginning: bytes, fileByteCount: fileByteCount ?? bytes.count, path: path)
  }

  @Test(
    arguments: [
      ([0x28, 0xB5, 0x2F, 0xFD], "is compressed with zstd, not read by peftool"),
      (
        Array("version https://git-lfs.github.com/spec/v1\n".utf8),
        "is a Git LFS pointer to the real file (`git lfs pull` fetches it)"
      ), ([], "is empty"), ([0, 1, 0xFF], "begins with the bytes 00 01 ff"),
    ] as [([UInt8], String)])
  func otherFormatsAreNamed(bytes: [UInt8], words: String) {
    #expect(signature(bytes) == .other(words))
  }

  @Test(arguments: [[0x50, 0x4B, 0x03, 0x04], [0x80, 0x02, 0x7D], [0x80, 0x05]] as [[UInt8]])
  func archivesAndPicklesAreTorch(bytes: [UInt8]) {
    #expect(signature(bytes) == .torch)
  }

  @Test func aLengthAndABraceAreSafetensors() {
    #expect(signature([2, 0, 0, 0, 0, 0, 0, 0] + Array("{}".utf8)) == .safetensors)
    #expect(signature([4, 0, 0, 0, 0, 0, 0, 0] + Array(" \n{}".utf8)) == .safetensors)
    // A length that looks like another format's beginning.
    #expect(
      signature(
        [0x80, 0x02, 0, 0, 0, 0, 0, 0] + Array("{\"".utf8), fileByteCount: 1000) == .safetensors)
  }

  @Test func whatIsCutShortIsStillSafetensors() {
    #expect(signature([0xFF, 0, 0, 0, 0, 0, 0, 0, 0x7B]) == .safetensors)
    #expect(signature([2, 0], path: "a.safetensors") == .safetensors)
  }

  @Test func textThatBeginsWithABraceIsJSON() {
    #expect(signature(Array(" {\"weight_map\":{}}".utf8)) == .json)
    #expect(signature(Array("{".utf8)) == .json)
  }

  @Test(arguments: [
    ("model.safetensors", true), ("x.safetensors.index.json", true), ("pytorch_model.bin", true),
    ("pytorch_model.bin.index.json", true), ("a.gguf", true), ("consolidated.00.pth", true),
    ("model-00001-of-00002.bin", true), ("training_args.bin", false), ("config.json", false),
    ("tokenizer.model", false), ("merges.txt", false),
  ])
  func weightsAreKnownByTheirNames(name: String, isWeight: Bool) {
    #expect(FileSignature.isWeightName(name) == isWeight)
  }
}
