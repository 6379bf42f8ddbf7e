import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// Tensors of a weight that do not fit each other; `Formats/bitsandbytes.md` lists the rules.
@Suite struct QuantizedWeightTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// Expects one error, which names the file.
  private func assertRejects(
    _ file: QuantizedFile, _ kind: PeftoolError.Kind, _ reason: String,
    tensor: String = "m.weight", sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let checkpoint = try file.checkpoint(in: scratch)
    #expect(
      throws: PeftoolError(kind, reason, tensor: tensor, path: scratch.path("w.safetensors")),
      sourceLocation: sourceLocation
    ) { try QuantizedWeight.all(in: checkpoint) }
  }

  /// Expects an error for a state with one piece of its text changed.
  private func assertRejectsState(
    _ old: String, _ new: String, _ kind: PeftoolError.Kind, _ reason: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var file = QuantizedFile.nested
    #expect(file.state.contains(old))
    file.state = file.state.replacing(old, with: new)
    try assertRejects(
      file, kind, reason, tensor: QuantizedFile.stateName, sourceLocation: sourceLocation)
  }

  // What is right

  @Test func unchangedFilesAreTaken() throws {
    for (file, names) in [(QuantizedFile.plain, 4), (.nested, 6), (.rows, 3)] {
      let weights = try QuantizedWeight.all(in: file.checkpoint(in: scratch))
      #expect(weights.count == 1)
      #expect(weights.first?.names.count == names)
      #expect(weights.first?.shape == (names == 3 ? [2, 3] : [3, 64]))
    }
  }

  @Test func codesMayLieInAWiderType() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight"]?.dtype = .bf16
    file.parts["m.weight"]?.shape = [48, 1]
    #expect(try QuantizedWeight.all(in: file.checkpoint(in: scratch)).count == 1)
  }

  @Test func rowsNeedNoFormat() throws {
    var file = QuantizedFile.rows
    file.parts["m.weight_format"] = nil
    #expect(try QuantizedWeight.all(in: file.checkpoint(in: scratch)).first?.names.count == 2)
  }

  @Test func namesAloneQuantizeNothing() throws {
    let file = QuantizedFile(parts: [
      "m.absmax": .init([1]), "m.weight": .init([1, 2]), "a.quant_map": .init([1]),
    ])
    #expect(try QuantizedWeight.all(in: file.checkpoint(in: scratch)).isEmpty)
  }

  // Scales

  @Test(arguments: [2, 4]) func oneScaleTooFewOrTooMany(count: Int) throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.absmax"] = .init(Array(repeating: 1, count: count))
    try assertRejects(
      file, .different, "is F32 of \(count), the weight needs F32 of 3", tensor: "m.weight.absmax")
  }

  @Test func anotherBlockSizeThanThatOfTheScales() throws {
    var file = QuantizedFile.plain
    file.state = file.state.replacing("64,", with: "128,")
    try assertRejects(
      file, .different, "is F32 of 3, the weight needs F32 of 2", tensor: "m.weight.absmax")
  }

  @Test func scalesOfAnotherType() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.absmax"] = .init(.i64, [3], Array(repeating: 0, count: 24))
    try assertRejects(
      file, .different, "is I64 of 3, the weight needs F32 of 3", tensor: "m.weight.absmax")
    file = .nested
    file.parts["m.weight.nested_absmax"] = .init(.f16, [1], [0, 60])
    try assertRejects(
      file, .different, "is F16 of 1, the weight needs F32 of 1", tensor: "m.weight.nested_absmax")
  }

  @Test func scalesIn8BitsWithoutTheirOwn() throws {
    for part in ["nested_absmax", "nested_quant_map"] {
      var file = QuantizedFile.nested
      file.parts["m.weight.\(part)"] = nil
      try assertRejects(file, .damaged, "has no tensor 'm.weight.\(part)' beside it")
    }
  }

  @Test func scalesIn8BitsOfWhichTheStateSaysNothing() throws {
    var file = QuantizedFile.nested
    file.state = QuantizedFile.plain.state
    try assertRejects(
      file, .different, "is U8 of 3, the weight needs F32 of 3", tensor: "m.weight.absmax")
  }

  @Test func scalesOfScalesOfWhichTheStateSaysNothing() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.nested_absmax"] = .init([1])
    try assertRejects(
      file, .damaged,
      "belongs to no quantized weight: others beside it are missing, or of another kind",
      tensor: "m.weight.nested_absmax")
  }

  @Test func aStateOfScalesIn8BitsOverSingleOnes() throws {
    var file = QuantizedFile.plain
    file.state = QuantizedFile.nested.state
    try assertRejects(
      file, .different, "is F32 of 3, the weight needs U8 of 3", tensor: "m.weight.absmax")
  }

  @Test(arguments: [1, 3]) func oneRowsScaleTooFewOrTooMany(count: Int) throws {
    var file = QuantizedFile.rows
    file.parts["m.SCB"] = .init(Array(repeating: 1, count: count))
    try assertRejects(
      file, .different, "is F32 of \(count), the weight needs F32 of 2", tensor: "m.SCB")
  }

  @Test func anErrorNamesTheShardOfItsTensor() throws {
    var first = QuantizedFile.plain
    first.parts["m.weight.absmax"] = nil
    let second = QuantizedFile(parts: ["m.weight.absmax": .init([1])])
    try first.write("1.safetensors", in: scratch)
    let path = try second.write("2.safetensors", in: scratch)
    let shards =
      first.parts.keys.map { ($0, "1.safetensors") } + [("m.weight.absmax", "2.safetensors")]
    try scratch.write("model.safetensors.index.json", index(shards))
    #expect(
      throws: PeftoolError(
        .different, "is F32 of 1, the weight needs F32 of 3", tensor: "m.weight.absmax", path: path)
    ) { try QuantizedWeight.all(in: Checkpoint(opening: scratch.path)) }
  }

  // Values of codes

  @Test func aMapOf15Values() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.quant_map"] = .init(Array(QuantizedFile.levels.prefix(15)))
    try assertRejects(
      file, .different, "is F32 of 15, the weight needs F32 of 16", tensor: "m.weight.quant_map")
  }

  @Test func aMapOfAnotherType() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.quant_map"] = .init(.u8, [16], Array(0..<16))
    try assertRejects(
      file, .different, "is U8 of 16, the weight needs F32 of 16", tensor: "m.weight.quant_map")
  }

  @Test func aMapWithNaN() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.quant_map"] = .init([.nan] + QuantizedFile.levels.dropFirst())
    try assertRejects(
      file, .damaged, "has NaN or infinite values", tensor: "m.weight.quant_map")
  }

  @Test func aMapOfAnotherCode() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.quant_map"] = .init(QuantizedFile.levels.reversed())
    try assertRejects(
      file, .unsupported, "has other values than nf4", tensor: "m.weight.quant_map")
  }

  @Test func aMapOf255Scales() throws {
    var file = QuantizedFile.nested
    file.parts["m.weight.nested_quant_map"] = .init(Array(repeating: 0.5, count: 255))
    try assertRejects(
      file, .different, "is F32 of 255, the weight needs F32 of 256",
      tensor: "m.weight.nested_quant_map")
  }

  @Test func aMapOfScalesWithInfinity() throws {
    var file = QuantizedFile.nested
    file.parts["m.weight.nested_quant_map"] = .init(
      Array(repeating: 0.5, count: 255) + [.infinity])
    try assertRejects(
      file, .damaged, "has NaN or infinite values", tensor: "m.weight.nested_quant_map")
  }

  @Test func aWeightWithoutItsMapOrScales() throws {
    for part in ["absmax", "quant_map"] {
      var file = QuantizedFile.plain
      file.parts["m.weight.\(part)"] = nil
      try assertRejects(file, .damaged, "has no tensor 'm.weight.\(part)' beside it")
    }
  }

  // Codes

  @Test(arguments: [95, 97]) func codesOfAnotherSize(count: Int) throws {
    var file = QuantizedFile.plain
    file.parts["m.weight"] = .init(.u8, [count, 1], Array(repeating: 0, count: count))
    try assertRejects(file, .different, "has \(count) bytes, shape [3, 64] needs 96")
  }

  /// Only PyTorch's files can have such; their bytes cannot be read but by whole elements.
  @Test func codesThatAreNotInOnePiece() throws {
    let parts = QuantizedFile.plain.parts.filter { $0.key != "m.weight" }.sorted { $0.key < $1.key }
    var pickled = Op.emptyDict + Op.mark
    pickled += Op.string("m.weight")
    pickled += Op.tensor(
      Op.storage("FloatStorage", key: "codes", count: 48), shape: [24], strides: [2])
    for (name, part) in parts {
      let count = part.shape[0]
      let type = part.dtype == .u8 ? "ByteStorage" : "FloatStorage"
      pickled += Op.string(name)
      pickled += Op.tensor(
        Op.storage(type, key: name, count: count), shape: [count], strides: [1])
    }
    var zip = Zip(pickle(pickled, Op.setItems))
    zip.entries[2] = .init(name: "m/data/codes", bytes: Array(repeating: 0, count: 192))
    zip.entries += parts.map { .init(name: "m/data/\($0.key)", bytes: $0.value.bytes) }
    let path = try scratch.write("w.bin", zip.bytes)
    #expect(
      throws: PeftoolError(
        .unsupported, "has codes in F32 that do not lie in one piece", tensor: "m.weight",
        path: path)
    ) { try QuantizedWeight.all(in: Checkpoint(opening: path)) }
  }

  @Test func rowsOfAnotherType() throws {
    var file = QuantizedFile.rows
    file.parts["m.weight"] = .init(.u8, [2, 3], Array(repeating: 0, count: 6))
    try assertRejects(
      file, .damaged, "is U8 of shape [2, 3], a weight with SCB is a matrix of I8")
    file.parts["m.weight"] = .init(.i8, [2, 3, 1], Array(repeating: 0, count: 6))
    try assertRejects(
      file, .damaged, "is I8 of shape [2, 3, 1], a weight with SCB is a matrix of I8")
  }

  @Test func rowsInAnotherOrder() throws {
    var file = QuantizedFile.rows
    file.parts["m.weight_format"] = .init(.u8, [], [1])
    try assertRejects(
      file, .unsupported, "is 1, expected 0: a weight by rows", tensor: "m.weight_format")
    file.parts["m.weight_format"] = .text("row")
    try assertRejects(
      file, .different, "is U8 of 3, the weight needs U8 of 1", tensor: "m.weight_format")
  }

  @Test(arguments: ["absmax", "quant_map", "quant_state.bitsandbytes__nf4"])
  func aWeightWithoutItsState(part: String) throws {
    var file = QuantizedFile.plain
    file.parts["n.weight.\(part)"] = file.parts["m.weight.\(part)"]
    try assertRejects(
      file, .damaged,
      "belongs to no quantized weight: others beside it are missing, or of another kind",
      tensor: "n.weight.\(part)")
  }

  // The state

  @Test func twoStates() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.quant_state.bitsandbytes__fp4"] = file.parts[QuantizedFile.stateName]
    try assertRejects(file, .damaged, "has an nf4 and an fp4 state")
  }

  @Test func aStateUnderTheNameOfAnotherCode() throws {
    var file = QuantizedFile.plain
    let name = "m.weight.quant_state.bitsandbytes__fp4"
    file.parts[name] = file.parts.removeValue(forKey: QuantizedFile.stateName)
    try assertRejects(file, .different, "says quant_type nf4", tensor: name)
  }

  @Test func aStateOfAnotherType() throws {
    var file = QuantizedFile.plain
    file.parts[QuantizedFile.stateName] = .init([1])
    try assertRejects(
      file, .damaged, "is F32 of 4 bytes, expected JSON as U8", tensor: QuantizedFile.stateName)
  }

  @Test func aStateOfAMegabyte() throws {
    var file = QuantizedFile.plain
    file.state += String(repeating: " ", count: 1 << 20)
    let count = file.state.utf8.count
    try assertRejects(
      file, .damaged, "is U8 of \(count) bytes, expected at most 65536",
      tensor: QuantizedFile.stateName)
  }

  @Test func aStateThatIsNoObject() throws {
    for text in [
      "", "nf4", "{", "[]", "null", "{\"quant_type\": NaN}", "\u{FEFF}{}",
      String(repeating: "[", count: 30_000), String(repeating: #"{"a":"#, count: 10_000),
      "{\"quant_type\": \"nf4\", \"quant_type\": \"nf4\"}",
    ] {
      var file = QuantizedFile.plain
      file.state = text
      let checkpoint = try file.checkpoint(in: scratch)
      let error = #expect(throws: PeftoolError.self) { try QuantizedWeight.all(in: checkpoint) }
      #expect(error?.kind == .damaged && error?.tensor == QuantizedFile.stateName)
    }
  }

  @Test func anUnknownKey() throws {
    try assertRejectsState(
      #""dtype""#, #""group": 1, "dtype""#, .unsupported, #"has a key "group", which is unknown"#)
  }

  @Test(arguments: ["quant_type", "blocksize", "dtype", "shape"])
  func aMissingKey(key: String) throws {
    var file = QuantizedFile.plain
    file.state = file.state.replacing(try Regex(#""\#(key)": (\[.*\]|[^,}]*)(, |(?=}))"#), with: "")
      .replacing(", }", with: "}")
    let checkpoint = try file.checkpoint(in: scratch)
    let error = #expect(throws: PeftoolError.self) { try QuantizedWeight.all(in: checkpoint) }
    #expect(error?.reason.hasPrefix("\(key) is missing, expected ") == true, "\(file.state)")
  }

  @Test func anotherCode() throws {
    try assertRejectsState(
      #""nf4""#, #""int4""#, .unsupported, #"quant_type is "int4", expected "nf4" or "fp4""#)
  }

  @Test(arguments: ["0", "-64", "48", "8192", "9223372036854775807"])
  func anotherBlockSize(size: String) throws {
    try assertRejectsState(
      #""blocksize": 64, "dtype""#, #""blocksize": \#(size), "dtype""#, .unsupported,
      "blocksize is \(size), expected one of [32, 64, 128, 256, 512, 1024, 2048, 4096]")
  }

  @Test(arguments: ["64.0", "true", "\"64\"", "9223372036854775808"])
  func aBlockSizeThatIsNoInteger(size: String) throws {
    try assertRejectsState(
      #""blocksize": 64, "dtype""#, #""blocksize": \#(size), "dtype""#, .damaged,
      "blocksize is \(size), expected an integer")
  }

  @Test func aTypeThatIsNotQuantized() throws {
    try assertRejectsState(
      "bfloat16", "float64", .unsupported,
      #"dtype is "float64", expected float32, float16 or bfloat16"#)
  }

  @Test func aShapeThatIsNoMatrix() throws {
    try assertRejectsState(
      "[3, 64]", "[192]", .unsupported, "shape is [192], expected a matrix")
    try assertRejectsState(
      "[3, 64]", "[3, 8, 8]", .unsupported, "shape is [3, 8, 8], expected a matrix")
  }

  @Test(arguments: ["0", "-1"]) func aShapeOfNoElements(size: String) throws {
    try assertRejectsState("[3, 64]", "[3, \(size)]", .damaged, "shape has \(size)")
  }

  @Test func aShapeWithMoreElementsThanCanBeCounted() throws {
    let size = "4611686018427387904"
    try assertRejectsState(
      "[3, 64]", "[\(size), 4]", .damaged,
      "shape [\(size), 4] has more elements than can be counted")
  }

  @Test func aShapeThatTheFileCannotHold() throws {
    var file = QuantizedFile.plain
    file.state = file.state.replacing("[3, 64]", with: "[1048576, 1048576]")
    try assertRejects(
      file, .different, "has 96 bytes, shape [1048576, 1048576] needs 549755813888")
  }

  @Test func doubleQuantizationThatIsHalfSaid() throws {
    try assertRejectsState(
      #", "nested_offset": 0.5"#, "", .damaged, "nested_offset is missing, expected a number")
    try assertRejectsState(
      #""nested_blocksize": 256, "#, "", .damaged,
      "nested_blocksize is missing, expected an integer")
    try assertRejectsState(
      #""nested_dtype": "float32", "#, "", .damaged, "nested_dtype is missing, expected a string")
  }

  @Test func anotherDoubleQuantization() throws {
    try assertRejectsState(
      "256", "128", .unsupported, "nested_blocksize is 128, expected 256")
    try assertRejectsState(
      "float32", "float16", .unsupported, #"nested_dtype is "float16", expected "float32""#)
  }

  @Test func anOffsetThatIsNotFinite() throws {
    try assertRejectsState(
      "0.5", "1e300", .damaged, "nested_offset is 1e+300, too large for a float")
  }
}
