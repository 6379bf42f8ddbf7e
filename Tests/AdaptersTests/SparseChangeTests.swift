import Checkpoints
import Files
import Fixtures
import Foundation
import Tensors
import Testing

@testable import Adapters

/// SHiRA adapters, and `Formats/shira-adapter.md` as it stands.
@Suite struct SparseChangeTests {
  private let scratch: Scratch
  private let page: String

  init() throws {
    scratch = try Scratch()
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../Formats/shira-adapter.md")
    page = try String(contentsOf: file, encoding: .utf8)
  }

  private func example(_ kind: String) throws -> String {
    let block = try #require(page.components(separatedBy: "```\(kind)\n").dropFirst().first)
    return try #require(block.components(separatedBy: "```").first)
  }

  /// The bytes of a hex dump: on each line the offset, a colon, and pairs of digits.
  private func bytes(_ dump: String) -> [UInt8] {
    dump.split(separator: "\n").flatMap { line in
      line.drop { $0 != ":" }.dropFirst().split(separator: " ").compactMap { UInt8($0, radix: 16) }
    }
  }

  /// The merged weight `m.weight` of a base with the values 1 to 6, (3, 2).
  private func merged(_ adapter: String, weight: Double = 1) throws -> [Float] {
    let base = try scratch.writeModel([Values("m.weight", [3, 2], [1, 2, 3, 4, 5, 6])])
    let tensor = try #require(try plan(base, [adapter], weights: [weight]).tensors.first)
    let prepared = try PreparedTensor<Float>(tensor, .once)
    var tile = Tile<Float>(columns: 2)
    let input = try tensor.base.source.bytes(of: tensor.base.info)
    var output = [UInt8](repeating: 0, count: 24)
    var span = output.mutableSpan
    var raw = span.mutableBytes
    _ = try tile.merge(0..<3, of: prepared, from: input.span.bytes, into: &raw)
    return output.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  @Test func everyTestThatIsNamedIsThere() throws {
    let source = try String(contentsOfFile: #filePath, encoding: .utf8)
    let names = page.matches(of: /`([a-z][A-Za-z0-9]{15,})`/).map { String($0.1) }
    #expect(names.filter { source.contains("func \($0)(") }.count >= 4)
    let cells = page.split(separator: "\n").filter { $0.hasPrefix("|") && $0.hasSuffix("` |") }
      .compactMap { $0.split(separator: "`").dropLast().last.map(String.init) }
      .filter { $0.wholeMatch(of: /[a-z][A-Za-z0-9]{15,}/) != nil }
    for name in cells { #expect(source.contains("func \(name)("), "\(name)") }
  }

  @Test func theExampleIsAnAdapter() throws {
    try scratch.write("adapter/adapter_model.safetensors", bytes(example("hex")))
    try scratch.write("adapter/adapter_config.json", example("json"))
    #expect(try merged(scratch.path("adapter")) == [1.5, 2, 2, 6, 5, 9])
    #expect(try merged(scratch.path("adapter"), weight: -2) == [0, 2, 5, 0, 5, 0])
  }

  @Test func theExampleIsWhatIsWritten() throws {
    let base = try scratch.writeModel([Values("m.weight", [3, 2], [1, 2, 3, 4, 5, 6])])
    try scratch.write(
      "tuned/model.safetensors", [Values("m.weight", [3, 2], [1.5, 2, 2, 6, 5.0, 9])])
    try scratch.write("base/config.json", #"{"model_type": "llama"}"#)
    try scratch.write("tuned/config.json", #"{"model_type": "llama"}"#)
    let selection = try SparseSelection(
      base: BaseModel(Checkpoint(opening: base)),
      tuned: BaseModel(Checkpoint(opening: scratch.path("tuned"))), .init(), keeping: .rank(1))
    let files = try selection.files(as: .f32, threads: 1) { _ in }.files
    let out = scratch.path("out")
    try AdapterWriting(files).run(
      to: out, inputs: [], isForced: false, threads: 1, progress: { _ in })
    let written = try Data(
      contentsOf: URL(fileURLWithPath: "\(out)/adapter_model.safetensors"))
    #expect(Array(written) == bytes(try example("hex")))
  }

  private func refusal(
    _ tensors: [Values], type: String = "SHIRA", indices: [Int32]? = nil
  ) throws -> String {
    let base = try scratch.writeModel([
      Values("m.weight", [3, 2]), Values("conv.weight", [3, 2, 2]),
    ])
    let adapter = try scratch.writeAdapter(fields: #""r": 1"#, type: type, tensors)
    if let indices {
      // Values of that kind have no tensors of whole numbers: they are the last bytes of the file.
      let file = URL(fileURLWithPath: adapter).appendingPathComponent("adapter_model.safetensors")
      var content = try Data(contentsOf: file)
      indices.withUnsafeBytes { places in
        content.replaceSubrange(content.count - places.count..<content.count, with: places)
      }
      try content.write(to: file)
    }
    do {
      _ = try plan(base, [adapter])
      return "merged"
    } catch let error as PeftoolError {
      return error.description
    }
  }

  private func entries(
    _ count: Int = 5, path: String = "m", shape: [Int]? = nil, dtype: DType = .i32
  ) -> [Values] {
    [
      Values("base_model.model.\(path).shira_weight", [count]),
      Values(
        "base_model.model.\(path).shira_indices", shape ?? [2, count],
        [Float](repeating: 0, count: (shape ?? [2, count]).reduce(1, *)), dtype: dtype),
    ]
  }

  private static let sound: [Int32] = [0, 0, 1, 1, 2, 0, 1, 0, 1, 0]

  @Test func entriesThatFitAreTaken() throws {
    #expect(try refusal(entries(), indices: Self.sound) == "merged")
  }

  @Test func entriesOutsideOfTheWeightAreRefused() throws {
    for (place, value, text) in [
      (4, Int32(3), "row 3, column 0"), (9, 2, "row 2, column 2"), (0, -1, "row -1, column 0"),
    ] {
      var indices = Self.sound
      indices[place] = value
      let found = try refusal(entries(), indices: indices)
      #expect(found.contains("\(text) of a weight of shape [3, 2]"), "\(found)")
    }
  }

  @Test func twoEntriesAtOnePlaceAreRefused() throws {
    var indices = Self.sound
    indices[6] = 0
    let found = try refusal(entries(), indices: indices)
    #expect(found.contains("has two entries at row 0, column 0"), "\(found)")
  }

  @Test func anotherNumberOfEntriesIsRefused() throws {
    let found = try refusal(entries(4))
    #expect(found.contains("has shape [4], expected one of 1·(2 + 3) numbers"), "\(found)")
    let other = try refusal(entries(shape: [5, 2]))
    #expect(other.contains("has shape [5, 2], expected one of shape [2, 5]"), "\(other)")
  }

  @Test func whatIsNotOfSHiRAIsRefused() throws {
    #expect(try refusal(entries(dtype: .f32)).contains("is F32, expected I32 or I64"))
    #expect(
      try refusal(entries(), type: "LORA").contains("belongs to SHiRA, the configuration says LoRA")
    )
    #expect(try refusal(entries(path: "conv")).contains("no linear layer's"))
    #expect(try refusal([entries()[0]]).contains("has no shira_indices beside it"))
    #expect(try refusal([entries()[1]]).contains("stands alone"))
  }
}
