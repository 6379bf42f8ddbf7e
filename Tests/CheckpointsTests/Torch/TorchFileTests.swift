import Checkpoints
import Files
import Fixtures
import Foundation
import Tensors
import Testing

/// The samples that lie with the sources.
enum Sample {
  static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples")

  static func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  static func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: folder.appendingPathComponent(name)))
  }
}

@Suite struct TorchFileTests {
  @Test(arguments: ["zip.pt", "stream.pt", "protocol-4.pt"])
  func everyTensorHasTheBytesOfSafetensors(name: String) throws {
    let file = try Checkpoint(opening: Sample.path("torch/\(name)"))
    let plain = try Checkpoint(opening: Sample.path("torch/plain.safetensors"))
    #expect(file.format == .torch)
    #expect(file.tensors.count == plain.tensors.count)
    for expected in plain.tensors {
      let tensor = try #require(file[expected.name])
      #expect(tensor.dtype == expected.dtype && tensor.shape == expected.shape)
      #expect(tensor.byteCount == expected.byteCount)
      #expect(try file.source.bytes(of: tensor) == plain.source.bytes(of: expected))
    }
  }

  /// Any run of whole elements is that of the gathered tensor.
  @Test func stridedTensorsAreReadInParts() throws {
    let file = try Checkpoint(opening: Sample.path("torch/zip.pt"))
    let strided = file.tensors.filter { $0.strides != nil }
    #expect(
      strided.map(\.name) == [
        "views.transposed", "views.permuted", "views.sliced", "views.expanded",
      ])
    for tensor in strided {
      let whole = try file.source.bytes(of: tensor)
      for first in 0..<tensor.elementCount {
        for end in first...tensor.elementCount {
          var part = [UInt8](repeating: 0, count: 4 * (end - first))
          var span = part.mutableSpan
          var raw = span.mutableBytes
          try file.source.read(tensor, bytes: 4 * first..<4 * end, into: &raw)
          #expect(part == Array(whole[4 * first..<4 * end]))
        }
      }
    }
  }

  @Test func contiguousTensorsAreRangesOfTheFile() throws {
    let file = try TorchFile(opening: Sample.path("torch/zip.pt"))
    let bytes = try Sample.bytes("torch/zip.pt")
    for tensor in file.tensors where tensor.strides == nil {
      #expect(try file.bytes(of: tensor) == Array(bytes[tensor.byteRange]))
    }
  }

  @Test func aWrapperIsTakenOffAndItsNeighboursAreMetadata() throws {
    let file = try TorchFile(opening: Sample.path("torch/wrapped.pth"))
    #expect(file.tensors.map(\.name) == ["weight", "bias"])
    #expect(file.metadata.map(\.key) == ["epoch"])
    #expect(file.metadata.map(\.value) == ["3"])
    #expect(file.container == .zip)
  }

  @Test(
    arguments: [
      (Op.entry("model", Op.entry("x", Op.tensor())), ["x"]),
      (Op.entry("encoder", Op.entry("x", Op.tensor())), ["encoder.x"]),
      (Op.entry("state_dict", Op.tensor()), ["state_dict"]),
      (
        Op.emptyDict + Op.string("model") + Op.entry("x", Op.tensor()) + Op.setItem
          + Op.string("ema") + Op.entry("x", Op.tensor()) + Op.setItem, ["model.x", "ema.x"]
      ),
      (Op.entry("a", Op.tuple(Op.tensor(), Op.entry("b", Op.tensor()))), ["a.0", "a.1.b"]),
      (Op.emptyDict + Op.number(-7) + Op.tensor() + Op.setItem, ["-7"]),
      (Op.entry("", Op.tensor()), [""]),
      (Op.tensor(), ["tensor"]),
    ] as [([UInt8], [String])])
  func namesArePaths(object: [UInt8], names: [String]) throws {
    #expect(try torchFile(Zip(pickle(object)).bytes).tensors.map(\.name) == names)
  }

  @Test func storagesAreShared() throws {
    let file = try torchFile(
      Zip(
        pickle(
          Op.emptyDict, Op.string("a"), Op.tensor(), Op.setItem, Op.string("b"),
          Op.tensor(offset: 1, shape: [3], strides: [1]), Op.setItem)
      ).bytes)
    let (a, b) = (file.tensors[0].byteRange, file.tensors[1].byteRange)
    #expect(b == a.lowerBound + 4..<a.upperBound)
  }

  /// No step is ever made along a dimension of size 1, so that nothing bounds its stride.
  @Test func theStrideOfADimensionOfSizeOneDoesNotMatter() throws {
    let floats = (0..<5).flatMap { littleEndian(UInt64(Float($0).bitPattern), 4) }
    let file = try torchFile(
      Zip(
        pickle(
          Op.entry(
            "a", Op.tensor(Op.storage(count: 5), shape: [1, 3, 1], strides: [1 << 62, 2, .max]))),
        storage: floats
      ).bytes)
    let expected = [0, 2, 4].flatMap { littleEndian(UInt64(Float($0).bitPattern), 4) }
    #expect(try file.bytes(of: file.tensors[0]) == expected)
  }

  /// Python 2's pickler counts its memo from 1 and gives an OrderedDict its pairs in a list.
  @Test func filesOfPythonTwoAreRead() throws {
    let pair = Op.emptyList + Op.mark + [0x55, 1, 0x61] + Op.tensor() + Array("e".utf8)
    let file = try torchFile(
      Zip(
        pickle(
          Op.global("collections", "OrderedDict"), [0x71, 1], Op.emptyList, [0x71, 2], pair,
          Op.append, [0x85], Op.reduce)
      ).bytes)
    #expect(file.tensors.map(\.name) == ["a"])
  }

  @Test func shardsAreReadAsOne() throws {
    let folder = try Checkpoint(opening: Sample.path("torch/sharded"))
    #expect(folder.kind == .sharded && folder.format == .torch)
    #expect(folder.tensors.map(\.name) == ["views.whole", "views.transposed", "parameter"])
    #expect(folder.tensors.map(\.fileIndex) == [0, 0, 1])
    #expect(folder.otherFiles.isEmpty && folder.otherWeights.isEmpty)
    let index = try Checkpoint(
      opening: Sample.path("torch/sharded/pytorch_model.bin.index.json"))
    #expect(index.tensors == folder.tensors)
  }

  @Test func anAdapterIsFound() throws {
    let adapter = try Checkpoint(opening: Sample.path("torch/adapter"), preferringAdapter: true)
    #expect(adapter.isAdapter && adapter.format == .torch)
    let plain = try Checkpoint(opening: Sample.path("adapters/lora"))
    #expect(Set(adapter.tensors.map(\.name)) == Set(plain.tensors.map(\.name)))
  }

  @Test func safetensorsComeFirst() throws {
    let scratch = try Scratch()
    try scratch.write("pytorch_model.bin", Sample.bytes("torch/zip.pt"))
    try scratch.write("training_args.bin", pickle(Op.global("os", "system")))
    #expect(try Checkpoint(opening: scratch.path).format == .torch)
    try scratch.write("model.safetensors", Sample.bytes("torch/plain.safetensors"))
    let both = try Checkpoint(opening: scratch.path)
    #expect(both.format == .safetensors)
    #expect(both.otherWeights == ["pytorch_model.bin"])
  }

  @Test func theOnlyFileOfAFolderIsTaken() throws {
    let scratch = try Scratch()
    try scratch.write("consolidated.00.pth", Sample.bytes("torch/zip.pt"))
    for name in ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"] {
      try scratch.write(name, [0x80, 2])
    }
    #expect(try Checkpoint(opening: scratch.path).tensors.count == 24)
  }

  @Test func aShardOfAnotherFormatIsRefused() throws {
    let scratch = try Scratch()
    try scratch.write("1.bin", Sample.bytes("torch/zip.pt"))
    try scratch.write("2.bin", Sample.bytes("torch/plain.safetensors"))
    let path = try scratch.write(
      "pytorch_model.bin.index.json", index([("a", "1.bin"), ("b", "2.bin")]))
    let error = #expect(throws: PeftoolError.self) { try Checkpoint(opening: path) }
    #expect(error?.path == scratch.path("2.bin"))
  }

  @Test func outputsHaveTheNamesThatSafetensorsHave() throws {
    let base = try Checkpoint(opening: Sample.path("torch/sharded"))
    let items = base.tensors.map {
      CheckpointLayout.Item(
        name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: $0.fileIndex)
    }
    let layout = try CheckpointLayout(keeping: base, items)
    #expect(
      layout.files.map(\.name) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      ])
    #expect(layout.index?.name == "model.safetensors.index.json")
    let text = String(decoding: layout.files[1].header, as: UTF8.self)
    #expect(text.contains(#""__metadata__":{"format":"pt"}"#))
    #expect(try CheckpointLayout(single: base, items).files.map(\.name) == ["model.safetensors"])
  }
}
