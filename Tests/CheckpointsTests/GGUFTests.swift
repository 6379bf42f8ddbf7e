import Checkpoints
import Files
import Fixtures
import Foundation
import Tensors
import Testing

private let root = URL(fileURLWithPath: #filePath)
  .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

private func sample(_ name: String) -> String {
  root.appendingPathComponent("Samples/gguf/\(name)").path
}

@Suite struct GGUFTests {
  @Test(arguments: [2, 3] as [UInt32]) func bothVersionsAreRead(version: UInt32) throws {
    var file = GGUFBytes()
    file.version = version
    file.add("general.architecture", 8, GGUFBytes.string("llama"))
    file.add(tensor: "a", [3, 2], at: 0)
    file.add(tensor: "b", [32], type: 8, at: 32)
    file.data = Array(0..<66)
    let header = try file.header()
    #expect(header.version == Int(version))
    #expect(header["general.architecture"] == .string(Array("llama".utf8)))
    #expect(header["general.name"] == nil)
    let start = header.dataStart
    #expect(start % 32 == 0)
    #expect(
      header.tensors == [
        TensorInfo(name: "a", dtype: .f32, shape: [2, 3], byteRange: start..<start + 24),
        TensorInfo(name: "b", dtype: .q8v0, shape: [32], byteRange: start + 32..<start + 66),
      ])
  }

  @Test func valuesOfEveryTypeAreRead() throws {
    var file = GGUFBytes()
    let little = (Int16(-2), Float(0.1), Double(0.1))
    let scalars: [(UInt32, [UInt8], GGUFValue)] = [
      (0, [200], .unsigned(200)), (1, [0xFF], .signed(-1)), (2, [1, 2], .unsigned(513)),
      (3, GGUFBytes.little(little.0), .signed(-2)), (4, [0, 0, 0, 0x80], .unsigned(1 << 31)),
      (5, [0, 0, 0, 0x80], .signed(-1 << 31)),
      (6, GGUFBytes.little(little.1.bitPattern), .number(Double(Float(0.1)), isSingle: true)),
      (7, [1], .bool(true)), (8, GGUFBytes.string("ü"), .string([0xC3, 0xBC])),
      (10, GGUFBytes.little(UInt64.max), .unsigned(.max)),
      (11, GGUFBytes.little(Int64.min), .signed(.min)),
      (12, GGUFBytes.little(little.2.bitPattern), .number(0.1, isSingle: false)),
    ]
    for (type, bytes, _) in scalars { file.add("key\(type)", type, bytes) }
    file.add("none", 9, GGUFBytes.array(4, []))
    file.add("strings", 9, GGUFBytes.array(8, ["a", "", "ü"].map(GGUFBytes.string)))
    file.add("integers", 9, GGUFBytes.array(3, [[1, 0], [0xFF, 0xFF]]))
    file.add("numbers", 9, GGUFBytes.array(6, [GGUFBytes.little(Float(-0.5).bitPattern)]))
    let header = try file.header()
    for (type, _, value) in scalars { #expect(header["key\(type)"] == value) }
    #expect(header["none"]?.summary == "0 values of u32")
    #expect(header["strings"]?.summary == "3 strings")
    #expect(header["key6"]?.summary == "0.1")
    func array(_ key: String) -> GGUFArray? {
      if case .array(let array) = header[key] { array } else { nil }
    }
    #expect(array("strings")?.strings == ["a", "", "ü"].map { Array($0.utf8) })
    #expect(array("strings")?.integers == nil)
    #expect(array("integers")?.integers == [1, -1])
    #expect(array("numbers")?.numbers == [-0.5])
    #expect(array("numbers")?.strings == nil)
  }

  @Test func numbersAreQuantizedAsThePackageDoes() throws {
    let file = try GGUFFile(opening: sample("quantized.gguf"))
    let source = try #require(file.tensors.first)
    let values = floats(try file.bytes(of: source))
    #expect(file.tensors.count == 8)
    for tensor in file.tensors.dropFirst() {
      #expect(try file.bytes(of: tensor) == coded(values, tensor.dtype), "\(tensor.name)")
    }
  }

  private func floats(_ bytes: [UInt8]) -> [Float] {
    let count = bytes.count / 4
    var values = [Float](repeating: 0, count: count)
    var span = values.mutableSpan
    Float.read(bytes.span.bytes, .f32, into: &span, count: count)
    return values
  }

  private func coded(_ values: [Float], _ dtype: DType) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: dtype.byteCount(of: values.count))
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    Float.write(values.span, dtype, into: &raw, count: values.count)
    return bytes
  }

  @Test func anAlignmentOfTheFilesOwn() throws {
    var file = GGUFBytes()
    file.alignment = 8
    file.add("general.alignment", 4, GGUFBytes.little(UInt32(8)))
    file.add(tensor: "a", [1], at: 0)
    file.add(tensor: "b", [], at: 8)
    file.data = Array(repeating: 0, count: 12)
    let header = try file.header()
    #expect(header.alignment == 8)
    #expect(header.tensors.map(\.byteRange.count) == [4, 4])
    #expect(header.tensors[1].byteRange.lowerBound == header.dataStart + 8)
  }

  @Test func emptyTensorsTakeNoBytes() throws {
    var file = GGUFBytes()
    file.add(tensor: "a", [0, 5], type: 2, at: 0)
    file.add(tensor: "b", [1], at: 0)
    file.data = [0, 0, 0, 0]
    let tensors = try file.header().tensors
    #expect(tensors[0].shape == [5, 0])
    #expect(tensors[0].elementCount == 0)
    var alone = GGUFBytes()
    alone.add(tensor: "a", [0, 5], at: 0)
    let head = alone.head
    let header = try GGUFHeader(parsing: head, fileByteCount: head.count)
    #expect(header.dataStart > head.count)
    #expect(header.tensors[0].byteRange == head.count..<head.count)
  }

  @Test func theHeadOfAFileIsReadByPieces() throws {
    // More than a piece of the cursor, so that strings and numbers lie across its bounds.
    var file = GGUFBytes()
    let texts = (0..<40_000).map { String(repeating: "x", count: $0 % 31) }
    file.add("texts", 9, GGUFBytes.array(8, texts.map(GGUFBytes.string)))
    file.add(tensor: "a", [1], at: 0)
    file.data = [1, 2, 3, 4]
    let scratch = try Scratch()
    let model = try GGUFFile(opening: scratch.write("m.gguf", file.bytes))
    guard case .array(let array) = model.header["texts"] else {
      Issue.record("no array")
      return
    }
    #expect(array.strings == texts.map { Array($0.utf8) })
    #expect(try model.bytes(of: model.tensors[0]) == [1, 2, 3, 4])
  }

  @Test(arguments: 0..<50) func aFileWithAnyByteChangedIsReadOrRefused(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    var file = GGUFBytes()
    file.add("general.architecture", 8, GGUFBytes.string("llama"))
    file.add("tokens", 9, GGUFBytes.array(8, ["a", "bc"].map(GGUFBytes.string)))
    file.add(tensor: "a", [32, 2], type: 2, at: 0)
    file.data = Array(repeating: 0, count: 36)
    var bytes = file.bytes
    for _ in 0..<4 {
      bytes[Int(random.next() % UInt64(bytes.count - 64))] = UInt8(
        truncatingIfNeeded: random.next())
    }
    do throws(PeftoolError) {
      _ = try GGUFHeader(parsing: bytes, fileByteCount: bytes.count)
    } catch {
      #expect(error.kind == .damaged || error.kind == .unsupported)
    }
  }

  @Test func theValuesOfEveryTypeAreThoseOfTheGgufPackage() throws {
    let model = try GGUFFile(opening: sample("types.gguf"))
    let expected = try Checkpoint(opening: sample("types.safetensors"))
    #expect(model.tensors.count == 31)
    for tensor in model.tensors {
      let other = try #require(expected[tensor.name])
      #expect(tensor.shape == other.shape)
      let count = tensor.elementCount
      var found = [Float](repeating: 0, count: count)
      var right = found
      let bytes = try model.bytes(of: tensor)
      let otherBytes = try expected.source.bytes(of: other)
      var span = found.mutableSpan
      Float.read(bytes.span.bytes, tensor.dtype, into: &span, count: count)
      var otherSpan = right.mutableSpan
      Float.read(otherBytes.span.bytes, other.dtype, into: &otherSpan, count: count)
      let differing = zip(found, right).filter { a, b in
        !(a.isNaN && b.isNaN) && a.bitPattern != b.bitPattern
      }
      #expect(differing.isEmpty, "\(tensor.name)")
      var doubles = [Double](repeating: 0, count: count)
      var doubleSpan = doubles.mutableSpan
      Double.read(bytes.span.bytes, tensor.dtype, into: &doubleSpan, count: count)
      #expect(zip(doubles, found).allSatisfy { $0 == Double($1) || $0.isNaN && $1.isNaN })
    }
  }

  /// Types that the package has no values for: a scale of 1.5 and codes that count up.
  @Test(
    arguments: [
      (.q8v1, [0x00, 0x3E, 0, 0] + (0..<32).map { UInt8($0) }, (0..<32).map { Float($0) * 1.5 }),
      (
        .q8K, [0, 0, 0xC0, 0x3F] + (0..<256).map { UInt8($0) } + Array(repeating: 0, count: 32),
        (0..<256).map { Float(Int8(truncatingIfNeeded: $0)) * 1.5 }
      ),
      (
        .q1v0, [0x00, 0x3E] + Array(repeating: 0b0000_0101, count: 16),
        (0..<128).map { $0 % 8 == 0 || $0 % 8 == 2 ? 1.5 : -1.5 }
      ),
    ] as [(DType, [UInt8], [Float])])
  func theValuesOfTypesForComputationOnly(dtype: DType, bytes: [UInt8], values: [Float]) {
    #expect(dtype.byteCount(of: values.count) == bytes.count)
    var found = [Float](repeating: 0, count: values.count)
    var span = found.mutableSpan
    Float.read(bytes.span.bytes, dtype, into: &span, count: values.count)
    #expect(found == values)
  }

  @Test(arguments: 1...3) func anyPartOpensTheWholeModel(part: Int) throws {
    let whole = try GGUFFile(opening: sample("tiny-llama.gguf"))
    let parts = try GGUFFile(opening: sample("parts-0000\(part)-of-00003.gguf"))
    #expect(parts.files.count == 3)
    #expect(parts.tensors.map(\.name) == whole.tensors.map(\.name))
    for (a, b) in zip(parts.tensors, whole.tensors) {
      #expect(try parts.bytes(of: a) == whole.bytes(of: b))
    }
    #expect(parts.header["tokenizer.ggml.tokens"] == whole.header["tokenizer.ggml.tokens"])
  }

  @Test func aFolderWithOneModelIsThatModel() throws {
    let scratch = try Scratch()
    for part in 1...3 {
      let name = "parts-0000\(part)-of-00003.gguf"
      try scratch.write(name, Array(Data(contentsOf: URL(fileURLWithPath: sample(name)))))
    }
    try scratch.write("README.md", "")
    let checkpoint = try Checkpoint(opening: scratch.path)
    #expect(checkpoint.kind == .gguf)
    #expect(checkpoint.source.files.count == 3)
    #expect(checkpoint.otherFiles == ["README.md"])
    #expect(checkpoint.otherWeights == [])
    try scratch.write("b.gguf", "GGUF")
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has 2 GGUF models, expected one of them: b.gguf, parts-00001-of-00003.gguf",
        path: scratch.path)
    ) { try Checkpoint(opening: scratch.path) }
  }

  @Test func theExampleOfTheDocumentIsRead() throws {
    let text = try String(
      contentsOf: root.appendingPathComponent("Formats/gguf.md"), encoding: .utf8)
    let dump = try #require(text.components(separatedBy: "```hex\n").dropFirst().first)
    let lines = dump.components(separatedBy: "```")[0].split(separator: "\n")
    let bytes = lines.flatMap { line in
      line.split(separator: "|")[0].split(separator: " ").compactMap { UInt8($0, radix: 16) }
    }
    let header = try GGUFHeader(parsing: bytes, fileByteCount: bytes.count)
    #expect(header.version == 3)
    #expect(header.metadata.map(\.key) == ["general.architecture"])
    let tensor = try #require(header.tensors.first)
    #expect(tensor.name == "w")
    #expect(tensor.shape == [1, 32])
    var values = [Float](repeating: 0, count: 32)
    var span = values.mutableSpan
    let data = Array(bytes[tensor.byteRange])
    Float.read(data.span.bytes, tensor.dtype, into: &span, count: 32)
    let low = (0..<16).map { Float($0 - 8) / 2 }
    let high = (0..<16).map { Float(7 - $0) / 2 }
    #expect(values == low + high)
  }
}
