import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// What the codes of small files stand for, and scales that stand for nothing.
@Suite struct DequantizedSourceTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func source(
    _ file: QuantizedFile, as dtype: DType, isTransposed: Bool = false
  ) throws -> DequantizedSource {
    let checkpoint = try file.checkpoint(in: scratch)
    let weights = try QuantizedWeight.all(in: checkpoint)
    return DequantizedSource(
      checkpoint.source,
      weights: weights.map { .init($0, dtype: dtype, isTransposed: isTransposed) })
  }

  private func values(_ source: DequantizedSource) throws -> [Float] {
    #expect(source.tensors.map(\.name) == ["m.weight"])
    return try source.bytes(of: source.tensors[0]).chunks(of: 4).map {
      Float(bitPattern: $0.reversed().reduce(0) { $0 << 8 | UInt32($1) })
    }
  }

  /// Expects that decoding ends with an error that names a tensor.
  private func assertRejects(
    _ file: QuantizedFile, as dtype: DType, _ reason: String, tensor: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    for isTransposed in [false, true] {
      let source = try source(file, as: dtype, isTransposed: isTransposed)
      #expect(
        throws: PeftoolError(.damaged, reason, tensor: tensor), sourceLocation: sourceLocation
      ) { try source.bytes(of: source.tensors[0]) }
    }
  }

  /// level · absmax; the first of two codes is in the high half.
  @Test(arguments: [false, true]) func blocksAreLevelsTimesScales(isNested: Bool) throws {
    let file = isNested ? QuantizedFile.nested : .plain
    // Nested: map · 2 + 0.5, where the codes are 3, 2 and 1 and the map has a 256th of each.
    let scales: [Float] = isNested ? [0.5234375, 0.515625, 0.5078125] : [1, 2, 3]
    var expected: [Float] = []
    for byte in 0..<96 {
      let scale = scales[byte / 32]
      for code in [byte >> 4, byte & 15] { expected.append(QuantizedFile.levels[code] * scale) }
    }
    #expect(try values(source(file, as: .f32)) == expected)
  }

  /// code · SCB · (1 / 127).
  @Test func rowsAreCodesTimesScales() throws {
    let factor = Float(bitPattern: 0x3C01_0204)
    let products: [Float] = [0, 127, 127 * 127, 0, -127 * 254, 2 * 254]
    #expect(try values(source(.rows, as: .f32)) == products.map { $0 * factor })
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func aScaleThatIsNotFinite(value: Float) throws {
    for (file, scales) in [(QuantizedFile.plain, "m.weight.absmax"), (.rows, "m.SCB")] {
      var file = file
      let count = file.parts[scales]?.shape[0] ?? 0
      file.parts[scales] = .init(Array(repeating: 1, count: count - 1) + [value])
      try assertRejects(
        file, as: .bf16, "scale \(count - 1) is \(value): its values are not finite as BF16",
        tensor: scales)
    }
  }

  @Test func aScaleOfScalesThatIsNotFinite() throws {
    var file = QuantizedFile.nested
    file.parts["m.weight.nested_absmax"] = .init([.nan])
    try assertRejects(
      file, as: .bf16, "scale 0 is nan: its values are not finite as F32",
      tensor: "m.weight.nested_absmax")
  }

  @Test func aScaleThatOverflows() throws {
    var file = QuantizedFile.nested
    file.parts["m.weight.nested_absmax"] = .init([3e38])
    file.parts["m.weight.nested_quant_map"] = .init(Array(repeating: 2, count: 256))
    try assertRejects(
      file, as: .f32, "scale 0 is inf: its values are not finite as F32", tensor: "m.weight.absmax")
  }

  /// 127 · 3e38 is no float, though a 127th of it would be.
  @Test func aRowsScaleThatOverflows() throws {
    var file = QuantizedFile.rows
    file.parts["m.SCB"] = .init([1, 3e38])
    try assertRejects(
      file, as: .f32, "scale 1 is 3e+38: its values are not finite as F32", tensor: "m.SCB")
  }

  /// 128/127 of F16's largest number is infinite, and the largest itself is not.
  @Test func aCodeThatTheWeightsTypeDoesNotHold() throws {
    var file = QuantizedFile.rows
    file.parts["m.SCB"] = .init([1, 65504])
    let legal = try source(file, as: .f16)
    #expect(try Array(legal.bytes(of: legal.tensors[0])[8..<10]) == [0xFF, 0xFB])
    file.parts["m.weight"]?.bytes[4] = 0x80
    try assertRejects(
      file, as: .f16, "scale 1 is 65504.0: a code of -128 is not finite as F16", tensor: "m.SCB")
    #expect(try values(source(file, as: .f32)).allSatisfy(\.isFinite))
    file.parts["m.SCB"] = .init([1, 60000])
    #expect(try source(file, as: .f16).bytes(of: legal.tensors[0]).count == 12)
  }

  /// What has been F16 had no such scale.
  @Test func aScaleThatTheWeightsTypeDoesNotHold() throws {
    var file = QuantizedFile.plain
    file.parts["m.weight.absmax"] = .init([1, 65504, 65536])
    try assertRejects(
      file, as: .f16, "scale 2 is 65536.0: its values are not finite as F16",
      tensor: "m.weight.absmax")
    #expect(try values(source(file, as: .f32)).allSatisfy(\.isFinite))
  }
}
