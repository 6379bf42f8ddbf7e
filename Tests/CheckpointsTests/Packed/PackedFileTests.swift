import Files
import Fixtures
import JSON
import Tensors
import Testing

@testable import Checkpoints

@Suite struct PackedFileTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func sample() throws -> PackedSample {
    var sample = PackedSample()
    let tensors = DType.safetensors.enumerated().map { place, dtype in
      (name: dtype.rawValue, dtype: dtype, shape: [3, 4 * (1 + place)])
    }
    try sample.add(
      "model.safetensors",
      tensors + [("empty", .f32, [0, 7]), ("scalar", .f64, []), ("odd", .bf16, [524_289])])
    sample.files.append(("config.json", Array(#"{"model_type":"x"}"#.utf8), 0))
    sample.files.append(("empty.txt", [], 0))
    return sample
  }

  @Test func everyDTypeAndSizeComesBack() throws {
    let sample = try sample()
    let file = try PackedFile(opening: scratch.write("x.zst", sample.packed().bytes))
    #expect(try unpacked(file) == sample.files.map(\.bytes))
    #expect(file.tensors.count == DType.safetensors.count + 3)
    #expect(file.tensors.allSatisfy { file.place(of: $0) == nil })
    #expect(try file.json("config.json")?["model_type"] == .string("x"))
    #expect(try file.json("other.json") == nil)
  }

  @Test func anyRangeOfATensorIsRead() throws {
    let sample = try sample()
    let file = try PackedFile(opening: scratch.write("x.zst", sample.packed().bytes))
    let odd = try #require(file.tensors.first { $0.name == "odd" })
    let all = Array(sample.files[0].bytes[odd.byteRange])
    for range in [0..<2, 0..<all.count, 1_048_574..<1_048_578, 1_048_576..<1_048_578, 10..<10] {
      var bytes = [UInt8](repeating: 0, count: range.count)
      var span = bytes.mutableSpan
      var raw = span.mutableBytes
      try file.read(odd, bytes: range, into: &raw)
      #expect(bytes == Array(all[range]), "\(range)")
    }
    let empty = try #require(file.tensors.first { $0.name == "empty" })
    #expect(try file.bytes(of: empty) == [])
  }

  /// A base of the same tensors, and a sample that differs from it here and there.
  private func delta() throws -> (sample: PackedSample, base: String) {
    var sample = try sample()
    var base = sample.files[0].bytes
    for place in stride(from: sample.files[0].headerByteCount, to: base.count, by: 7) {
      base[place] &+= UInt8(truncatingIfNeeded: place)
    }
    let path = try scratch.write("base.safetensors", base)
    sample.base = path
    for tensor in try sample.contents().tensors where tensor.name != "U8" {
      sample.baseBytes[tensor.name] = Array(base[tensor.byteRange])
    }
    return (sample, path)
  }

  @Test func differencesComeBackWithTheirBase() throws {
    let (sample, base) = try delta()
    let path = try scratch.write("x.zst", sample.packed().bytes)
    let file = try PackedFile(opening: path)
    #expect(file.entries.contains { $0.baseChecksum == nil })
    try file.checkBase(threads: 2, progress: { _ in })
    #expect(try unpacked(file) == sample.files.map(\.bytes))
    // Where the base has moved, it is found beside the file by its name, or where one says.
    try scratch.write("moved/base.safetensors", try scratch.bytes("base.safetensors"))
    let again = try scratch.write("moved/x.zst", sample.packed().bytes)
    try scratch.write("base.safetensors", [])
    try #require(base == scratch.path("base.safetensors"))
    let told = try PackedFile(opening: path, base: scratch.path("moved/base.safetensors"))
    #expect(try unpacked(told) == sample.files.map(\.bytes))
    let found = try PackedFile(opening: again, base: nil)
    #expect(found.base?.name == base)
  }

  @Test func anotherBaseIsRefused() throws {
    let (sample, _) = try delta()
    let path = try scratch.write("x.zst", sample.packed().bytes)
    var other = try scratch.bytes("base.safetensors")
    other[other.count - 1] ^= 1
    let file = try PackedFile(opening: path, base: scratch.write("other.safetensors", other))
    let error = #expect(throws: PeftoolError.self) {
      try file.checkBase(threads: 2, progress: { _ in })
    }
    #expect(error?.kind == .different)
    #expect(error?.reason.contains("this is not the base") == true)
    #expect(throws: PeftoolError.self) { try unpacked(file) }
    // Whatever needs no base is read without one.
    let none = try PackedFile(opening: path, base: scratch.path("nowhere"))
    let plain = try #require(none.tensors.first { $0.name == "U8" })
    #expect(try none.bytes(of: plain).count == plain.byteCount)
    #expect(throws: PeftoolError.self) { try none.checkBase(threads: 1, progress: { _ in }) }
  }

  /// As many threads find the same faults in the same order.
  @Test(arguments: [1, 3]) func everyDamagedBlockIsAFault(threads: Int) throws {
    var sample = PackedSample()
    let names = (10..<30).map { "t\($0)" }
    try sample.add("a.safetensors", names.map { ($0, .u8, [100]) })
    var (bytes, count) = try sample.packed()
    let sizes = try PackedFile(opening: scratch.write("x.zst", bytes)).entries.map(\.frameByteCount)
    for (place, size) in sizes.enumerated() {
      count += size
      if place % 3 == 1 { bytes[count - 1] ^= 1 }
    }
    let file = try PackedFile(opening: scratch.write("x.zst", bytes))
    let faults = try file.faults(in: file.contents.pieces, needsBase: true, threads: threads)
    #expect(faults.map(\.tensor) == stride(from: 1, to: 20, by: 3).map { names[$0] })
  }

  @Test func ofDifferencesAllButTheBaseIsChecked() throws {
    let (sample, _) = try delta()
    var (bytes, _) = try sample.packed()
    func faults() throws -> [PeftoolError] {
      let file = try PackedFile(
        opening: scratch.write("x.zst", bytes), base: scratch.path("nowhere"))
      return try file.faults(in: file.contents.pieces, needsBase: false, threads: 2)
    }
    #expect(try faults() == [])
    bytes[bytes.count - 1] ^= 1
    #expect(try faults().count == 1)
  }

  /// A base that cannot be opened is not looked for at every block.
  @Test func aBaseThatCannotBeOpenedStaysSo() throws {
    let (sample, _) = try delta()
    let path = scratch.path("later.safetensors")
    let file = try PackedFile(
      opening: scratch.write("x.zst", sample.packed().bytes), base: path)
    let first = #expect(throws: PeftoolError.self) { try file.base?.checkpoint() }
    try scratch.write("later.safetensors", scratch.bytes("base.safetensors"))
    let second = #expect(throws: PeftoolError.self) { try file.base?.checkpoint() }
    #expect(first == second && first?.path == path)
  }

  // MARK: Other files

  @Test func theConfigurationIsTheOneInIt() throws {
    try scratch.write("config.json", #"{"model_type":"beside"}"#)
    var sample = PackedSample()
    try sample.add("a.safetensors", [("w", .u8, [2])])
    let path = try scratch.write("x.zst", sample.packed().bytes)
    #expect(try Checkpoint(opening: path).config == nil)
    #expect(try Checkpoint(opening: path).modelConfig?["model_type"] == .string("beside"))
    sample.files.append(("config.json", Array(#"{"model_type":"in it"}"#.utf8), 0))
    try scratch.write("x.zst", sample.packed().bytes)
    #expect(try Checkpoint(opening: path).config?["model_type"] == .string("in it"))
  }

  /// What a layout of two shards in a packed file says about their index.
  private func layout(
    _ index: [UInt8], stray: Bool = false
  ) throws -> CheckpointLayout {
    var sample = PackedSample()
    try sample.add("2.safetensors", [("b", .u8, [2])])
    try sample.add("1.safetensors", [("a", .u8, [2])])
    if stray { try sample.add("3.safetensors", [("c", .u8, [2])]) }
    sample.files.append(("model.safetensors.index.json", index, 0))
    let checkpoint = try Checkpoint(opening: scratch.write("x.zst", sample.packed().bytes))
    return try CheckpointLayout(
      keeping: checkpoint,
      checkpoint.tensors.map {
        .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: $0.fileIndex)
      })
  }

  @Test func anIndexThatFitsIsKept() throws {
    let text = Array(index([("a", "1.safetensors"), ("b", "2.safetensors")]).utf8)
    #expect(try layout(text).index?.text == text)
  }

  @Test(
    arguments: [
      ([("a", "2.safetensors"), ("b", "1.safetensors")], "the index has it in 2.safetensors"),
      ([("a", "1.safetensors")], "is in this shard, but not in the index"),
      (
        [("a", "1.safetensors"), ("b", "2.safetensors"), ("d", "2.safetensors")],
        "the index has it in this shard, which has no such tensor"
      ),
      (
        [("a", "1.safetensors"), ("b", "2.safetensors"), ("d", "4.safetensors")],
        "is not there; the index puts tensors into this shard"
      ),
    ])
  func anIndexThatDoesNotFit(map: [(String, String)], reason: String) throws {
    let error = #expect(throws: PeftoolError.self) { try layout(Array(index(map).utf8)) }
    #expect(error?.kind == .different)
    #expect(error?.reason.contains(reason) == true, "\(error?.description ?? "")")
    #expect(error?.path?.hasPrefix(scratch.path("x.zst/")) == true)
  }

  @Test func aShardThatTheIndexLeavesOut() throws {
    let text = Array(index([("a", "1.safetensors"), ("b", "2.safetensors")]).utf8)
    #expect(
      throws: PeftoolError(
        .different, "is in this shard, but not in the index", tensor: "c",
        path: scratch.path("x.zst/3.safetensors"))
    ) { try layout(text, stray: true) }
  }

  /// A look through all tensors for each file would take minutes.
  @Test(.timeLimit(.minutes(5))) func aLayoutOfManyFiles() throws {
    let names = (0..<30_000).map { "\($0).safetensors" }
    var sample = PackedSample()
    for (place, name) in names.enumerated() { try sample.add(name, [("\(place)", .u8, [1])]) }
    let text = index(names.enumerated().map { ("\($0)", $1) })
    sample.files.append(("model.safetensors.index.json", Array(text.utf8), 0))
    let checkpoint = try Checkpoint(opening: scratch.write("x.zst", sample.packed().bytes))
    let items = checkpoint.tensors.map {
      CheckpointLayout.Item(
        name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: $0.fileIndex)
    }
    let layout = try CheckpointLayout(keeping: checkpoint, items)
    #expect(layout.files.map(\.name) == names)
  }

  @Test func anIndexOverTheCapIsNotUnpacked() throws {
    let limit = ShardIndex.maximumByteCount
    #expect(
      throws: PeftoolError(
        .unsupported, "\(limit + 1) bytes of JSON, expected at most \(limit)",
        path: scratch.path("x.zst/model.safetensors.index.json"))
    ) { try layout([UInt8](repeating: 0x20, count: limit + 1)) }
  }

  @Test func everyFlippedBitIsFound() throws {
    var sample = PackedSample()
    try sample.add("a.safetensors", [("w", .bf16, [40, 30]), ("n", .i64, [9]), ("f", .f32, [77])])
    sample.files.append(("config.json", Array("{}".utf8), 0))
    let good = try sample.packed().bytes
    var random = SplitMix64(seed: 7)
    for _ in 0..<1000 {
      var bytes = good
      bytes[Int.random(in: 0..<good.count, using: &random)] ^=
        1
        << UInt8.random(
          in: 0...7, using: &random)
      let path = try scratch.write("flipped.zst", bytes)
      #expect(throws: PeftoolError.self) { try unpacked(PackedFile(opening: path)) }
    }
  }
}
