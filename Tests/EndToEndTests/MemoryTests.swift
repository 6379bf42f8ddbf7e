import Foundation
import Testing

/// The peak resident set of the streaming verbs, on a file far larger than it.
///
/// A model of a gigabyte with tensors of 256 MB, which lies in a file without disk blocks; the
/// adapters are LoRA, DoRA with norms along the rows, and DoRA with norms along the columns.
@Suite(.serialized, .enabled(if: Run.isReleaseBuild)) struct MemoryTests {
  private static let rows = 8192
  private static let columns = 16384
  private static let names = ["a", "b", "c", "d"]
  /// Blocks and tiles of two threads, factors of rank 2, the program itself.
  private static let limitByteCount = 64 << 20

  private func makeModel(in place: borrowing Workplace) throws {
    var header: [String: Any] = [:]
    let byteCount = Self.rows * Self.columns * 2
    for (index, name) in Self.names.enumerated() {
      header["\(name).weight"] = [
        "dtype": "BF16", "shape": [Self.rows, Self.columns],
        "data_offsets": [index * byteCount, (index + 1) * byteCount],
      ]
    }
    let text = try JSONSerialization.data(withJSONObject: header)
    try place.write(
      "model.safetensors", withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) } + text)
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: place.path("model.safetensors")))
    try file.truncate(atOffset: UInt64(8 + text.count + Self.names.count * byteCount))
    try file.close()
  }

  private func makeAdapter(in place: borrowing Workplace, _ module: String, dora: Bool) throws {
    func tensor(_ part: String, _ shape: [Int]) -> (String, String, [Int], [Float]) {
      (
        "base_model.model.\(module).\(part)", "F32", shape,
        Array(repeating: 0.5, count: shape.reduce(1, *))
      )
    }
    let isEmbedding = module == "c"
    var tensors =
      isEmbedding
      ? [
        tensor("lora_embedding_A", [2, Self.rows]), tensor("lora_embedding_B", [Self.columns, 2]),
      ]
      : [
        tensor("lora_A.weight", [2, Self.columns]), tensor("lora_B.weight", [Self.rows, 2]),
      ]
    if dora {
      tensors.append(
        tensor("lora_magnitude_vector", [isEmbedding ? Self.columns : Self.rows]))
    }
    try place.write("adapter/adapter_model.safetensors", try Safetensors.file(tensors))
    try place.write(
      "adapter/adapter_config.json",
      #"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "use_dora": \#(dora)}"#)
  }

  /// The most that a run of peftool had in memory, as the kernel tells of a process that has ended.
  private func peakByteCount(
    _ place: borrowing Workplace, _ command: String
  ) throws -> Int {
    // The binary is started by a small program of its own, so that nobody else's memory counts.
    let run = try place.shell(
      """
      exec python3 -c 'import resource, subprocess, sys
      status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
      print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' \
      '\(Run.peftool)' \(command)
      """)
    let words = run.text.split(separator: " ").compactMap {
      Int($0.trimmingCharacters(in: .whitespacesAndNewlines))
    }
    try #require(words.count == 2, "\(run.errors)")
    #expect(words[0] <= 1, "\(run.errors)")
    return words[1] << 10
  }

  @Test(arguments: [("a", false), ("b", true), ("c", true)])
  func mergeNeedsAFewBlocks(module: String, dora: Bool) throws {
    let place = try Workplace()
    try makeModel(in: place)
    try makeAdapter(in: place, module, dora: dora)
    let peak = try peakByteCount(
      place, "merge model.safetensors adapter -o out.safetensors --threads 2")
    #expect(peak < Self.limitByteCount)
  }

  /// An update of this module would take 512 MB.
  @Test(
    arguments: [
      "combine adapter adapter --weights 0.3,0.2 --base model.safetensors",
      "scale adapter --by 0.5 --base model.safetensors",
      "prune adapter --density 0.5 --min-share 0.1 --base model.safetensors",
      "combine lora lora --method svd", "resize lora --rank 1", "prune lora --density 0.5",
    ])
  func arithmeticNeedsFactorsAndABlock(command: String) throws {
    let place = try Workplace()
    try makeModel(in: place)
    try makeAdapter(in: place, "a", dora: true)
    _ = try place.shell("mv adapter dora")
    try makeAdapter(in: place, "a", dora: false)
    _ = try place.shell("mv adapter lora; mv dora adapter")
    let peak = try peakByteCount(place, command + " -o out --threads 2")
    #expect(peak < Self.limitByteCount)
    #expect(try place.names.contains("out"))
  }

  /// Updates of 1 MB each, of which each thread has one module's.
  @Test(
    arguments: [
      "prune @ --density 0.5 --delta", "combine @ @ --method ties_svd --density 0.5",
    ])
  func moreWholeUpdatesNeedNoMore(command: String) throws {
    let place = try Workplace()
    var peaks: [Int] = []
    for count in [2, 24] {
      let name = "n\(count)"
      try place.write(
        "\(name)/adapter_model.safetensors",
        Safetensors.file(
          (0..<count).flatMap { module in
            [("lora_A", [1, 512]), ("lora_B", [512, 1])].map { part, shape in
              (
                "base_model.model.m\(module).\(part).weight", "F32", shape,
                (0..<512).map { Float($0 % 7) + 1 }
              )
            }
          }))
      try place.write(
        "\(name)/adapter_config.json", #"{"peft_type": "LORA", "r": 1, "lora_alpha": 1}"#)
      let run = command.replacing("@", with: name) + " -o out-\(name) --threads 2"
      peaks.append(try peakByteCount(place, run))
      #expect(try place.names.contains("out-\(name)"))
    }
    #expect(peaks[1] - peaks[0] < 12 << 20)
  }

  /// A weight has two million scales, which double quantization has to know together.
  @Test(
    arguments: [
      "quantize model.safetensors -o out", "quantize model.safetensors -o out --type int8",
      "convert model.safetensors -o out.safetensors --dtype f16",
      "merge model.safetensors adapter -o out --quantize nf4",
      "merge model.safetensors adapter -o out --simulate nf4",
    ])
  func quantizingNeedsAFewBlocks(command: String) throws {
    let place = try Workplace()
    try makeModel(in: place)
    try makeAdapter(in: place, "a", dora: true)
    #expect(try peakByteCount(place, command + " --threads 2") < Self.limitByteCount)
  }

  @Test(arguments: ["nf4", "int8"]) func dequantizingNeedsAFewBlocks(type: String) throws {
    let place = try Workplace()
    try makeModel(in: place)
    try makeAdapter(in: place, "a", dora: true)
    _ = try peakByteCount(place, "quantize model.safetensors -o quantized --type \(type)")
    for command in [
      "dequantize quantized", "merge quantized adapter",
      "merge quantized adapter --quantize \(type)",
    ] {
      let peak = try peakByteCount(place, command + " -o out --force --threads 2")
      #expect(peak < Self.limitByteCount, "\(command)")
    }
  }

  /// A file beside the tensors may be larger than they are.
  @Test func unpackingAFileNeedsAFewBlocks() throws {
    let place = try Workplace()
    try place.write("m/model.safetensors", try Safetensors.file([("a", "F32", [1], [1])]))
    try place.write("m/notes.txt", Data(count: 256 << 20))
    _ = try peakByteCount(place, "convert m -o m.zst")
    let peak = try peakByteCount(place, "convert m.zst -o out --dtype f16 --threads 2")
    #expect(peak < Self.limitByteCount)
    #expect(try place.shell("cmp m/notes.txt out/notes.txt").status == 0)
  }

  @Test(
    arguments: [
      "inspect model.safetensors --stats", "verify model.safetensors",
      "diff model.safetensors model.safetensors",
    ])
  func readingNeedsAFewBlocks(command: String) throws {
    let place = try Workplace()
    try makeModel(in: place)
    #expect(try peakByteCount(place, command) < Self.limitByteCount)
  }
}

extension Run {
  /// Whether the binary under test is one that users get; others need memory of their own.
  fileprivate static var isReleaseBuild: Bool { peftool.contains("/release/") }
}
