import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Tensors
import Testing

@testable import Adapters

private let q = "model.layers.0.self_attn.q_proj"
private let v = "model.layers.0.self_attn.v_proj"
private let kohyaQ = "lycoris_model_layers_0_self_attn_q_proj"

/// A pair of PEFT's for a module: A (2, 4) and B (3, 2).
private func pair(_ module: String, rank: Int = 2) -> [Values] {
  [
    Values("base_model.model.\(module).lora_A.weight", [rank, 4]),
    Values("base_model.model.\(module).lora_B.weight", [3, rank]),
  ]
}

/// Adapters written by hand, converted to files that are read again.
struct Conversions {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// Converts and gives the files' path.
  func convert(
    _ path: String, to format: AdapterFormat, base: String? = nil, prefix: String? = nil,
    output: String = "out"
  ) throws -> (path: String, notes: [String]) {
    let base = try base.map { try BaseModel(Checkpoint(opening: $0)) }
    let conversion = try AdapterConversion(
      path, to: format, AdapterFormat.Hints(base: base, prefix: prefix))
    let path = scratch.path(output)
    try conversion.run(to: path, isForced: true, threads: 2) { _ in }
    return (path, conversion.notes)
  }

  /// The line that a conversion ends with.
  func refusal(
    _ path: String, to format: AdapterFormat, base: String? = nil, prefix: String? = nil
  ) throws -> String {
    do {
      _ = try convert(path, to: format, base: base, prefix: prefix, output: "refused")
      return "converted"
    } catch let error as PeftoolError {
      #expect(!Folder.exists(scratch.path("refused")))
      return error.description
    }
  }

  /// All tensors of a path: dtypes, shapes and values.
  func tensors(_ path: String) throws -> [String: (shape: [Int], dtype: DType, values: [Double])] {
    let source = try Checkpoint(opening: path, preferringAdapter: true).source
    return try Dictionary(
      uniqueKeysWithValues: source.tensors.map {
        ($0.name, ($0.shape, $0.dtype, try StoredTensor($0, in: source).values(Double.self)))
      })
  }

  func config(_ path: String) throws -> JSON {
    try JSON(opening: Folder.path(path, "adapter_config.json"))
  }

  func writeMLX(_ tensors: [Values], config: String? = nil) throws -> String {
    try scratch.write("mlx/adapters.safetensors", tensors)
    try scratch.write(
      "mlx/adapter_config.json",
      config ?? #"{"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 3}}"#)
    return scratch.path("mlx")
  }

  /// A matrix turned around.
  func transposed(_ values: [Float], rows: Int) -> [Double] {
    let columns = values.count / rows
    return (0..<values.count).map { Double(values[$0 % rows * columns + $0 / rows]) }
  }
}

@Suite struct AdapterConversionTests {
  private let conversions: Conversions
  private var scratch: Scratch { conversions.scratch }

  init() throws { conversions = try Conversions() }

  private static func page(_ name: String) throws -> String {
    let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    return try String(
      contentsOf: tests.appendingPathComponent("../../Formats/\(name)"), encoding: .utf8)
  }

  private static func example(_ name: String) throws -> JSON {
    let part = try #require(page(name).components(separatedBy: "```json\n").dropFirst().first)
    return try JSON(parsing: Array(#require(part.components(separatedBy: "```").first).utf8))
  }

  private func writeExample() throws -> String {
    try scratch.writeAdapter(
      fields: """
        "r": 2, "lora_alpha": 8, "use_dora": true, "base_model_name_or_path": "my-base"
        """, pair(q) + [Values("base_model.model.\(q).lora_magnitude_vector", [3])])
  }

  @Test func thePageOfMLXShowsWhatIsWritten() throws {
    let out = try conversions.convert(writeExample(), to: .mlx).path
    #expect(try conversions.config(out) == Self.example("mlx-adapter.md"))
  }

  @Test func thePageOfKohyaShowsWhatIsWritten() throws {
    let out = try conversions.convert(writeExample(), to: .kohya).path
    let bytes = try InputFile(opening: out).bytes(0..<InputFile(opening: out).byteCount)
    let length = bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSON(parsing: Array(bytes[8..<8 + length]))
    #expect(try header == Self.example("kohya-adapter.md"))
  }

  @Test(arguments: ["mlx-adapter.md", "kohya-adapter.md"])
  func everyTestThatThePageNamesIsThere(page: String) throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    let source = try ["AdapterConversionTests.swift", "KohyaAdapterTests.swift"].map {
      try String(contentsOf: folder.appendingPathComponent($0), encoding: .utf8)
    }.joined()
    let names = try Self.page(page).matches(of: /\(`([a-z][A-Za-z]{15,})`\)/).map(\.output.1)
    #expect(names.count > 2)
    for name in names { #expect(source.contains("func \(name)("), "\(name)") }
  }

  // MARK: PEFT and mlx-lm

  @Test func mlxHasTheTransposes() throws {
    let values = pair(q)
    let adapter = try scratch.writeAdapter(fields: #""r": 2, "lora_alpha": 3"#, values)
    let (out, notes) = try conversions.convert(adapter, to: .mlx)
    let tensors = try conversions.tensors(out)
    #expect(notes == [])
    #expect(tensors.keys.sorted() == ["\(q).lora_a", "\(q).lora_b"])
    let (a, b) = try (#require(tensors["\(q).lora_a"]), #require(tensors["\(q).lora_b"]))
    #expect(a.shape == [4, 2] && b.shape == [2, 3])
    #expect(a.values == conversions.transposed(values[0].values, rows: 2))
    #expect(b.values == conversions.transposed(values[1].values, rows: 3))
    #expect(try conversions.config(out).double(at: "lora_parameters", "scale") == 1.5)
    let back = try conversions.convert(out, to: .peft, output: "back").path
    for (name, tensor) in try conversions.tensors(adapter) {
      #expect(try conversions.tensors(back)[name]?.values == tensor.values, "\(name)")
    }
    #expect(try conversions.config(back).int(at: "lora_alpha") == 3)
  }

  @Test(arguments: [DType.f16, .bf16, .f32])
  func dtypesStay(dtype: DType) throws {
    let values = pair(q).map { Values($0.name, $0.shape, dtype: dtype) }
    let out = try conversions.convert(scratch.writeAdapter(values), to: .mlx).path
    #expect(try conversions.tensors(out).values.allSatisfy { $0.dtype == dtype })
    let back = try conversions.convert(out, to: .kohya, output: "back").path
    let tensors = try conversions.tensors(back)
    #expect(tensors["\(kohyaQ).lora_down.weight"]?.dtype == dtype)
    #expect(tensors["\(kohyaQ).alpha"]?.dtype == .f32)
  }

  @Test func ranksAreFilledWithZeros() throws {
    let adapter = try scratch.writeAdapter(
      fields:
        #""r": 2, "lora_alpha": 2, "rank_pattern": {"v_proj": 3}, "alpha_pattern": {"v_proj": 3}"#,
      pair(q) + pair(v, rank: 3))
    let (out, notes) = try conversions.convert(adapter, to: .mlx)
    let tensors = try conversions.tensors(out)
    #expect(tensors["\(q).lora_a"]?.shape == [4, 3] && tensors["\(q).lora_b"]?.shape == [3, 3])
    let a = try #require(tensors["\(q).lora_a"]).values
    #expect((0..<4).allSatisfy { a[$0 * 3 + 2] == 0 && a[$0 * 3] != 0 })
    #expect(try #require(tensors["\(q).lora_b"]).values.suffix(3) == [0, 0, 0])
    #expect(notes.count == 1 && notes[0].contains("zeros fill 1 of 2 pairs up to 3"), "\(notes)")
  }

  @Test(arguments: [(8, "exactly"), (6, "rounded once")])
  func scalingsAreFoldedIntoB(alpha: Int, how: String) throws {
    let o = "model.layers.0.self_attn.o_proj"
    let values = pair(q) + pair(o) + pair(v)
    let adapter = try scratch.writeAdapter(
      fields: "\"r\": 2, \"lora_alpha\": 2, \"alpha_pattern\": {\"v_proj\": \(alpha)}", values)
    let (out, notes) = try conversions.convert(adapter, to: .mlx)
    let tensors = try conversions.tensors(out)
    #expect(try conversions.config(out).double(at: "lora_parameters", "scale") == 1)
    let factor = Float(alpha / 2)
    #expect(
      tensors["\(v).lora_b"]?.values
        == conversions.transposed(values[5].values.map { $0 * factor }, rows: 3))
    #expect(
      tensors["\(q).lora_b"]?.values == conversions.transposed(values[1].values, rows: 3))
    #expect(notes.count == 1 && notes[0].hasSuffix(how), "\(notes)")
  }

  @Test func patternsNameOneModuleEach() throws {
    let adapter = try scratch.writeAdapter(
      fields: #""r": 2, "use_rslora": true, "lora_alpha": 4, "rank_pattern": {"v_proj": 3}"#,
      pair(q) + pair("model.layers.1.self_attn.q_proj") + pair(v, rank: 3))
    let kohya = try conversions.convert(adapter, to: .kohya, output: "k.safetensors").path
    let config = try conversions.config(conversions.convert(kohya, to: .peft).path)
    #expect(
      config["rank_pattern"]
        == .object([.init(#"^model\.layers\.0\.self_attn\.v_proj"#, .number(3))]))
    let read = try AdapterConfiguration(config)
    #expect(try read.rank(of: v) == 3 && read.rank(of: q) == 2)
    #expect(abs(try read.scaling(of: v, keptRank: 3) - 4 / 3.0.squareRoot()) < 1e-7)
    #expect(abs(try read.scaling(of: q, keptRank: 2) - 4 / 2.0.squareRoot()) < 1e-7)
    #expect(try read.rank(of: "other.\(v)") == 2)
  }

  @Test func whatMLXHasOtherwiseIsRefused() throws {
    let one = [Values("\(q).lora_a", [4, 2]), Values("\(q).lora_b", [2, 3])]
    let type = #"{"fine_tune_type": "TYPE", "lora_parameters": {"rank": 2, "scale": 3}}"#
    func refusal(_ tensors: [Values], _ config: String? = nil) throws -> String {
      try conversions.refusal(conversions.writeMLX(tensors, config: config), to: .peft)
    }
    #expect(try refusal(one, type.replacing("TYPE", with: "full")).contains("no adapter"))
    #expect(try refusal(one, type.replacing("TYPE", with: "dora")).contains("no m"))
    #expect(
      try refusal(one, #"{"lora_parameters": {"rank": 2, "scale": 3, "alpha": 16}}"#)
        .contains("scale · alpha / rank"))
    #expect(try refusal(one, #"{"lora_parameters": {"rank": 2}}"#).contains("scale is missing"))
    #expect(
      try refusal(one, #"{"lora_parameters": {"rank": 4, "scale": 1}}"#)
        .contains("has rank 2, lora_parameters.rank is 4"))
    #expect(try refusal([one[0]]).contains("not both lora_a and lora_b"))
    #expect(try refusal(one + [Values("x.weight", [2])]).contains("no key of mlx-lm's"))
    #expect(
      try refusal([Values("\(q).lora_a", [3, 2, 4]), Values("\(q).lora_b", [3, 3, 2])])
        .contains("a pair for each expert"))
    #expect(
      try refusal([Values("\(q).lora_a", [4, 2]), Values("\(q).lora_b", [3, 3])])
        .contains("does not fit"))
    #expect(
      try refusal([
        Values("\(q).lora_a", [4, 2]), Values("\(q).lora_b", [2, 3], [.nan, 1, 1, 1, 1, 1]),
      ])
      .contains("NaN or infinite"))
    #expect(try refusal([]).contains("without tensors"))
  }

  @Test(arguments: [true, false])
  func embeddingsAreConvertedWhereTheyAreNotTied(isTied: Bool) throws {
    let embedding = "model.embed_tokens"
    let base = try scratch.writeModel(
      config: "{\"tie_word_embeddings\": \(isTied)}",
      [Values("\(embedding).weight", [5, 4])]
        + (isTied ? [] : [Values("lm_head.weight", [5, 4])]))
    let adapter = try scratch.writeAdapter([
      Values("base_model.model.\(embedding).lora_embedding_A", [2, 5]),
      Values("base_model.model.\(embedding).lora_embedding_B", [4, 2]),
    ])
    #expect(try conversions.refusal(adapter, to: .mlx).contains("--base MODEL shows"))
    #expect(try conversions.refusal(adapter, to: .kohya).contains("of an embedding"))
    guard !isTied else {
      #expect(
        try conversions.refusal(adapter, to: .mlx, base: base).contains("is tied in this base"))
      return
    }
    let out = try conversions.convert(adapter, to: .mlx, base: base).path
    #expect(try conversions.tensors(out)["\(embedding).lora_a"]?.shape == [5, 2])
    let back = try conversions.convert(out, to: .peft, base: base, output: "back").path
    #expect(
      try conversions.tensors(back).keys.sorted() == conversions.tensors(adapter).keys.sorted())
  }

  @Test func anEmbeddingSavedWholeMustBeTheBases() throws {
    let saved = Values("model.embed_tokens.weight", [5, 4])
    let base = try scratch.writeModel([saved, Values("\(q).weight", [3, 4])])
    func adapter(_ values: [Float]) throws -> String {
      try scratch.writeAdapter(
        pair(q) + [
          Values("base_model.model.model.embed_tokens.base_layer.weight", [5, 4], values)
        ])
    }
    #expect(try conversions.refusal(adapter(saved.values), to: .kohya).contains("saved whole"))
    var other = saved.values
    other[7] += 1
    #expect(
      try conversions.refusal(adapter(other), to: .kohya, base: base)
        .contains("not the base's embedding"))
    let notes = try conversions.convert(adapter(saved.values), to: .kohya, base: base).notes
    #expect(notes.count == 1 && notes[0].contains("left out"), "\(notes)")
  }

  @Test(arguments: [
    (#""r": 2, "lora_bias": true"#, "lora_B.bias", [3], "no other format has"),
    (#""r": 2, "modules_to_save": ["q"]"#, "weight", [3, 4], "no other format has"),
    (#""r": 2, "layer_replication": [[0, 1]]"#, "", [], "layer_replication"),
    (#""r": 2, "target_parameters": ["w"]"#, "", [], "target_parameters"),
    (#""r": 2, "init_lora_weights": "pissa""#, "", [], "changed the base"),
    (#""r": 3"#, "", [], "has rank 2, the configuration says 3"),
    (#""r": 2, "use_dora": true"#, "", [], "no magnitude"),
  ])
  func whatOtherFormatsHaveNotIsRefused(
    fields: String, part: String, shape: [Int], reason: String
  ) throws {
    let more = part.isEmpty ? [] : [Values("base_model.model.\(q).\(part)", shape)]
    let adapter = try scratch.writeAdapter(fields: fields, pair(q) + more)
    for format in [AdapterFormat.mlx, .kohya] {
      let found = try conversions.refusal(adapter, to: format)
      #expect(found.contains(reason), "\(found)")
    }
  }

  @Test func aConvolutionIsNothingForMLX() throws {
    let adapter = try scratch.writeAdapter([
      Values("base_model.model.conv.lora_A.weight", [2, 4, 3]),
      Values("base_model.model.conv.lora_B.weight", [5, 2, 1]),
    ])
    #expect(try conversions.refusal(adapter, to: .mlx).contains("of a convolution"))
  }

  @Test func anAdapterOfTheFormatIsRefused() throws {
    let adapter = try scratch.writeAdapter(pair(q))
    #expect(try conversions.refusal(adapter, to: .peft).contains("of PEFT already"))
    #expect(try conversions.refusal(adapter, to: .mlx, prefix: "x").contains("--prefix is for"))
  }

  @Test func aModuleThatTheBaseHasNotIsRefused() throws {
    let base = try scratch.writeModel([Values("\(v).weight", [3, 4])])
    let found = try conversions.refusal(scratch.writeAdapter(pair(q)), to: .mlx, base: base)
    #expect(found.contains("no module \(q); nearest: \(v).weight"), "\(found)")
  }

  @Test func otherVerbsNameTheFormat() throws {
    let path = try conversions.writeMLX([
      Values("\(q).lora_a", [4, 2]), Values("\(q).lora_b", [2, 3]),
    ])
    #expect(
      performing: { _ = try Adapter(opening: path) },
      throws: {
        "\($0)".contains("is an adapter of mlx-lm, expected one of PEFT")
      })
  }
}
