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
