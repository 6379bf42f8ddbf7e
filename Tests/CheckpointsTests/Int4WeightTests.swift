import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Tensors
import Testing

/// Group-wise INT4 in its five layouts, and what does not fit; `Formats/int4.md` lists the rules.
@Suite struct Int4WeightTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// Expects one error, which names the file.
  private func assertRejects(
    _ file: Int4File, _ kind: PeftoolError.Kind, _ reason: String, tensor: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let checkpoint = try file.checkpoint(in: scratch)
    #expect(
      throws: PeftoolError(kind, reason, tensor: tensor, path: scratch.path("model.safetensors")),
      sourceLocation: sourceLocation
    ) { try QuantizedWeight.all(in: checkpoint) }
  }

  /// Expects an error for a configuration with one piece of its text changed.
  private func assertRejects(
    _ layout: Int4Layout, _ old: String, _ new: String, _ reason: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var file = try Int4File(layout)
    #expect(file.config.contains(old), sourceLocation: sourceLocation)
    file.config = file.config.replacing(old, with: new)
    try assertRejects(
      file, .unsupported, reason, tensor: "m" + layout.codesEnding,
      sourceLocation: sourceLocation)
  }

  // What is right

  @Test(arguments: Int4Layout.allCases) func everyLayoutStandsForTheSame(
    layout: Int4Layout
  ) throws {
    #expect(try Int4File(layout).values(in: scratch) == Int4File.values)
  }

  @Test func partsAreThoseOfTheWhole() throws {
    for layout in Int4Layout.allCases {
      let checkpoint = try Int4File(layout).checkpoint(in: scratch)
      let source = DequantizedSource(
        checkpoint.source,
        weights: try QuantizedWeight.all(in: checkpoint).map {
          .init($0, dtype: .f32, isTransposed: false)
        })
      for range in [0..<1, 3..<40, 15..<17, 100..<128] {
        var part = [UInt8](repeating: 0, count: range.count * 4)
        var span = part.mutableSpan
        var raw = span.mutableBytes
        try source.read(
          source.tensors[0], bytes: range.lowerBound * 4..<range.upperBound * 4, into: &raw)
        #expect(
          part == Int4File.values[range].flatMap { littleEndian(UInt64($0.bitPattern), 4) })
      }
    }
  }

  @Test func anIndexIsNotNeeded() throws {
    var file = try Int4File(.gptq)
    file.parts["m.g_idx"] = nil
    #expect(try file.values(in: scratch) == Int4File.values)
  }

  @Test func wholeRowsMayBeAGroup() throws {
    for layout in [Int4Layout.gptq, .awq] {
      var file = try Int4File(layout)
      file.config = file.config.replacing(#""group_size": 16"#, with: #""group_size": -1"#)
      #expect(try file.values(in: scratch) == Int4File.values)
    }
  }

  /// Two groups of which the second has twice the scales; every other input is in it.
  @Test func inputsMayBeInAnyOrder() throws {
    var file = try Int4File(.gptqV2)
    file.config = file.config.replacing(
      #""group_size": 16"#, with: #""desc_act": true, "group_size": 8"#)
    let zeros = try #require(file.parts["m.qzeros"]).bytes
    file.parts["m.qzeros"] = .init(.i32, [2, 1], zeros + zeros)
    file.parts["m.scales"] = .init(
      .f16, [2, 8], (0..<16).flatMap { $0 < 8 ? [0x00, 0x38] : [0x00, 0x3C] })
    file.parts["m.g_idx"] = .init(.i32, [16], (0..<16).flatMap { [UInt8($0 % 2), 0, 0, 0] })
    let expected = Int4File.values.enumerated().map { $1 * ($0 % 2 == 0 ? 1 : 2) }
    #expect(try file.values(in: scratch) == expected)
  }

  @Test func aModuleMayHaveGroupsOfItsOwn() throws {
    var file = try Int4File(.mlx)
    file.config =
      #"{"quantization": {"group_size": 64, "bits": 4, "m": {"group_size": 16, "bits": 4}}}"#
    #expect(try file.values(in: scratch) == Int4File.values)
  }

  /// AutoGPTQ gives every layer a bias.
  @Test func biasesOfZerosAreNoPartOfTheModel() throws {
    for (byte, count) in [(0, 1), (1, 2)] as [(UInt8, Int)] {
      var file = try Int4File(.gptq)
      file.parts["m.bias"] = .init(.f16, [8], [UInt8](repeating: 0, count: 15) + [byte])
      let checkpoint = try file.checkpoint(in: scratch)
      let source = DequantizedSource(
        checkpoint.source,
        weights: try QuantizedWeight.all(in: checkpoint).map {
          .init($0, dtype: .f32, isTransposed: false)
        })
      #expect(source.tensors.count == count)
    }
  }

  /// MLX's own codes, with negative scales: bit for bit what MLX 0.32 computes of them in f32.
  @Test func theNumbersAreThoseOfMLX() throws {
    let samples = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Samples/int4").path
    let model = try Checkpoint(opening: "\(samples)/llama-mlx")
    let expected = try Checkpoint(opening: "\(samples)/llama-mlx-values.safetensors")
    let weights = try QuantizedWeight.all(in: model)
    #expect(weights.count == 7 && expected.tensors.count == 7)
    let source = DequantizedSource(
      model.source, weights: weights.map { .init($0, dtype: .f32, isTransposed: false) })
    for weight in source.tensors where source.weights[.init(weight.name)] != nil {
      let other = try #require(expected[weight.name])
      #expect(try source.bytes(of: weight) == expected.source.bytes(of: other))
    }
  }

  // Settings

  @Test func bitsOtherThan4() throws {
    // HQQ has them beside each weight.
    for layout in Int4Layout.allCases where layout != .hqq {
      try assertRejects(
        layout, #""bits": 4"#, #""bits": 8"#, "is quantized to 8 bits, expected 4")
    }
  }

  @Test func anotherMode() throws {
    try assertRejects(
      .mlx, #""bits": 4"#, #""bits": 4, "mode": "mxfp4""#,
      "mode is \"mxfp4\", expected \"affine\"")
  }

  @Test func anotherCheckpointFormat() throws {
    try assertRejects(
      .gptq, #""checkpoint_format": "gptq""#, #""checkpoint_format": "marlin""#,
      "checkpoint_format is \"marlin\", expected \"gptq\" or \"gptq_v2\"")
  }

  @Test func anotherVersion() throws {
    try assertRejects(
      .awq, #""bits": 4"#, #""bits": 4, "version": "gemv""#,
      "is AWQ of version \"gemv\", expected \"gemm\"")
    try assertRejects(
      .awq, #""bits": 4"#, #""bits": 4, "backend": "llm-awq""#,
      "is AWQ of version \"llm-awq\", expected \"gemm\"")
  }

  @Test func aWQWithoutZeroPoints() throws {
    try assertRejects(
      .awq, #""bits": 4"#, #""bits": 4, "zero_point": false"#,
      "is AWQ without zero points (zero_point is false)")
  }

  @Test func anotherFormOfHQQ() throws {
    let changes: [(ending: String, bytes: [UInt8], reason: String)] = [
      (".axis", [0, 0, 0, 0], "is 0, expected 1"), (".nbits", [8, 0, 0, 0], "is 8, expected 4"),
      (".packing", Array("3bit_32".utf8), "is '3bit_32', expected '4bit_u8'"),
      (".view_as_float", [1], "is [1], expected 0: false"),
      (".quant_zero", [1], "is [1], expected 0: false"),
      (
        ".group_size", [12, 0, 0, 0],
        "is of shape [8, 16] in groups of 12, expected an even number of groups of a multiple of 8 "
          + "inputs, which divide them"
      ),
    ]
    for change in changes {
      var file = try Int4File(.hqq)
      file.parts["m" + change.ending]?.bytes = change.bytes
      try assertRejects(
        file, .unsupported, change.reason,
        tensor: change.ending == ".group_size" ? "m.shape" : "m" + change.ending)
    }
    // As HQQ writes them: 3 bits in I32, and quantized scales under another name.
    var file = try Int4File(.hqq)
    file.parts["m.W_q"] = .init(.i32, [4, 4], [UInt8](repeating: 0, count: 64))
    file.parts["m.nbits"]?.bytes = [3, 0, 0, 0]
    try assertRejects(file, .unsupported, "is 3, expected 4", tensor: "m.nbits")
    file = try Int4File(.hqq)
    (file.parts["m.scale"], file.parts["m.zero"]) = (nil, nil)
    file.parts["m.quant_scale"]?.bytes = [1]
    try assertRejects(
      file, .unsupported, "is [1], expected 0: false", tensor: "m.quant_scale")
    // A single group has none to share its bytes with.
    file = try Int4File(.hqq)
    file.parts["m.shape"]?.bytes = [1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]
    try assertRejects(
      file, .unsupported,
      "is of shape [1, 16] in groups of 16, expected an even number of groups of a multiple of 8 "
        + "inputs, which divide them", tensor: "m.shape")
  }

  @Test func damagedSettingsOfHQQ() throws {
    for ending in [".shape", ".nbits", ".axis", ".packing", ".group_size"] {
      var file = try Int4File(.hqq)
      file.parts["m" + ending] = nil
      try assertRejects(
        file, .damaged, "has no tensor 'm\(ending)' beside it", tensor: "m.W_q")
    }
    var file = try Int4File(.hqq)
    file.parts["m.shape"] = .init(.i64, [1], [8, 0, 0, 0, 0, 0, 0, 0])
    try assertRejects(file, .damaged, "has 1 numbers, expected 2", tensor: "m.shape")
    file.parts["m.quant_zero"]?.bytes = [7]
    try assertRejects(file, .damaged, "is [7], expected 0: false", tensor: "m.quant_zero")
    file.parts["m.quant_zero"]?.bytes = [0]
    file.parts["m.shape"] = .init(.i32, [2], [8, 0, 0, 0, 16, 0, 0, 0])
    try assertRejects(
      file, .damaged, "is I32 of shape [2], expected a setting of HQQ in I64", tensor: "m.shape")
  }

  @Test func anotherGroupSize() throws {
    for layout in Int4Layout.allCases where layout != .hqq {
      try assertRejects(
        layout, #""group_size": 16"#, #""group_size": 12"#,
        "group_size is 12, expected a multiple of 8")
    }
    try assertRejects(
      .mlx, #""group_size": 16"#, #""group_size": -1"#,
      "group_size is -1, expected a multiple of 8")
  }

  @Test func scalesWithoutAConfiguration() throws {
    for layout in [Int4Layout.mlx, .awq] {
      try assertRejects(
        layout, try Int4File(layout).config, "{}",
        "has scales beside it, and no config.json says what they are: known are quantization (MLX) "
          + "and quantization_config of gptq, awq or hqq")
    }
  }

  // Tensors

  @Test func codesOfAnotherLayout() throws {
    var file = try Int4File(.mlx)
    file.config = try Int4File(.awq).config
    try assertRejects(
      file, .different, "is U32 of shape [8, 2], and config.json says awq", tensor: "m.weight")
    // Both have qweight; the shapes tell.
    file = try Int4File(.awq)
    file.config = try Int4File(.gptq).config
    try assertRejects(
      file, .different,
      "of shape [16, 1] holds a weight of [1, 128], expected multiples of 8", tensor: "m.qweight")
  }

  @Test func missingShifts() throws {
    for layout in Int4Layout.allCases {
      var file = try Int4File(layout)
      let name = "m" + layout.shiftsEnding
      file.parts[name] = nil
      try assertRejects(
        file, .damaged, "has no tensor '\(name)' beside it", tensor: "m" + layout.codesEnding)
    }
  }

  @Test func scalesOfAnotherType() throws {
    var file = try Int4File(.gptq)
    file.parts["m.scales"] = .init(.f32, [1, 8], [UInt8](repeating: 0, count: 32))
    try assertRejects(
      file, .different, "is F32 of shape [1, 8], expected a matrix of F16", tensor: "m.scales")
    file = try Int4File(.mlx)
    file.parts["m.scales"] = .init(.u8, [8, 1], [UInt8](repeating: 0, count: 8))
    try assertRejects(
      file, .different, "is U8 of shape [8, 1], expected a matrix of F32, F16, BF16",
      tensor: "m.scales")
    // Offsets are of the scales' type.
    file = try Int4File(.mlx)
    file.parts["m.biases"]?.dtype = .bf16
    try assertRejects(
      file, .different,
      "is BF16 of shape [8, 1], a weight of [8, 16] in groups of 16 needs F16 of [8, 1]",
      tensor: "m.biases")
  }

  @Test func scalesOfAnotherShape() throws {
    for (layout, shape, expected) in [
      (Int4Layout.mlx, [4, 2], "[8, 1]"), (.gptq, [2, 4], "[1, 8]"), (.awq, [8, 1], "[1, 8]"),
    ] {
      var file = try Int4File(layout)
      file.parts["m.scales"]?.shape = shape
      try assertRejects(
        file, .different,
        "is F16 of shape [\(shape[0]), \(shape[1])], a weight of [8, 16] in groups of 16 needs F16 "
          + "of \(expected)", tensor: "m.scales")
    }
  }

  @Test func shiftsOfAnotherShape() throws {
    var file = try Int4File(.awq)
    file.parts["m.qzeros"] = .init(.i32, [1, 2], [UInt8](repeating: 0, count: 8))
    try assertRejects(
      file, .different,
      "is I32 of shape [1, 2], a weight of [8, 16] in groups of 16 needs I32 of [1, 1]",
      tensor: "m.qzeros")
  }

  @Test func aGroupThatIsNotThere() throws {
    let others: [([UInt8], String)] = [([1, 0, 0, 0], "1"), ([0xFF, 0xFF, 0xFF, 0xFF], "-1")]
    for (bytes, group) in others {
      var file = try Int4File(.gptq)
      file.parts["m.g_idx"]?.bytes.replaceSubrange(20..<24, with: bytes)
      try assertRejects(
        file, .damaged, "puts input 5 into group \(group), expected 0 to 0", tensor: "m.g_idx")
    }
  }

  @Test func anIndexOfAnotherLength() throws {
    var file = try Int4File(.gptq)
    file.parts["m.g_idx"] = .init(.i32, [15], [UInt8](repeating: 0, count: 60))
    try assertRejects(
      file, .different,
      "is I32 of shape [15], a weight of [8, 16] in groups of 16 needs I32 of [16]",
      tensor: "m.g_idx")
  }

  @Test func aMissingIndex() throws {
    var file = try Int4File(.gptq)
    file.parts["m.g_idx"] = nil
    file.config = file.config.replacing(#""bits": 4"#, with: #""bits": 4, "desc_act": true"#)
    try assertRejects(
      file, .damaged, "has no tensor 'm.g_idx' beside it, which desc_act needs",
      tensor: "m.qweight")
  }

  @Test func tensorsWithoutTheirCodes() throws {
    for layout in Int4Layout.allCases {
      // MLX's codes alone would be a weight of numbers.
      let codes = layout == .mlx ? [] : [layout.codesEnding]
      let settings = layout == .hqq ? [".shape", ".group_size"] : []
      for ending in [layout.scalesEnding, layout.shiftsEnding] + codes + settings {
        var file = try Int4File(layout)
        file.parts["other\(ending)"] = file.parts["m\(ending)"]
        try assertRejects(
          file, .damaged,
          "belongs to no quantized weight: others beside it are missing, or of another kind",
          tensor: "other\(ending)")
      }
    }
  }

  @Test func aScaleThatIsNotFinite() throws {
    for layout in Int4Layout.allCases {
      var file = try Int4File(layout)
      let scales = "m" + layout.scalesEnding
      file.parts[scales]?.bytes.replaceSubrange(6..<8, with: [0x00, 0x7C])
      #expect(
        throws: PeftoolError(.damaged, "has inf, expected finite numbers", tensor: scales)
      ) { try file.values(in: scratch) }
    }
  }

  @Test func aScaleThatOverflows() throws {
    var file = try Int4File(.mlx)
    file.parts["m.scales"]?.bytes.replaceSubrange(6..<8, with: [0xFF, 0x7B])
    #expect(try file.values(in: scratch)[48] == 65504 * 9 - 2.5)
    #expect(
      throws: PeftoolError(
        .damaged, "has scales whose values are not finite as F16", tensor: "m.scales")
    ) { try file.values(in: scratch, as: .f16) }
  }
}

/// Files in which anything may be wrong.
@Suite struct Int4ChangeTests {
  /// Either an error, or finite numbers.
  @Test(arguments: Int4Layout.allCases) func changedFilesAreRefusedOrFinite(
    layout: Int4Layout
  ) throws {
    var random = SplitMix64(seed: 11)
    var outcomes: [Bool: Int] = [:]
    for _ in 0..<300 {
      var file = try Int4File(layout)
      for _ in 0..<Int.random(in: 1...2, using: &random) { change(&file, &random) }
      let scratch = try Scratch()
      do {
        let checkpoint = try file.checkpoint(in: scratch)
        let weights = try QuantizedWeight.all(in: checkpoint)
        let source = DequantizedSource(
          checkpoint.source, weights: weights.map { .init($0, dtype: .f32, isTransposed: false) })
        for tensor in source.tensors where source.weights[.init(tensor.name)] != nil {
          let values = try source.bytes(of: tensor).chunks(of: 4).map {
            Float(bitPattern: $0.reversed().reduce(0) { $0 << 8 | UInt32($1) })
          }
          let isFinite = values.allSatisfy { $0.isFinite }
          #expect(isFinite)
        }
        outcomes[!weights.isEmpty, default: 0] += 1
      } catch let error as PeftoolError {
        #expect(error.description.utf8.count < 1000)
        outcomes[false, default: 0] += 1
      }
    }
    for outcome in [false, true] { #expect(outcomes[outcome, default: 0] > 20) }
  }

  private func change(_ file: inout Int4File, _ random: inout SplitMix64) {
    guard let name = file.parts.keys.sorted().randomElement(using: &random),
      var part = file.parts[name]
    else { return }
    switch Int.random(in: 0..<7, using: &random) {
    case 0: file.parts[name] = nil
    case 1:
      part.shape = [part.shape.reduce(1, *)]
      file.parts[name] = part
    case 2:
      part.shape = part.shape.reversed()
      file.parts[name] = part
    case 3:
      let width = part.dtype.bitCount
      part.dtype =
        DType.safetensors.filter { $0.bitCount == width }
        .randomElement(using: &random) ?? part.dtype
      file.parts[name] = part
    case 4:
      if part.shape.isEmpty { part.shape = [1] }
      part.shape[0] += 1
      part.bytes += [UInt8](repeating: 0x7C, count: part.bytes.count / (part.shape[0] - 1))
      file.parts[name] = part
    case 5:
      let place = Int.random(in: 0..<part.bytes.count, using: &random)
      part.bytes[place] = UInt8.random(in: 0...255, using: &random)
      file.parts[name] = part
    default:
      let size = [-1, 0, 8, 16, 24, 1 << 40].randomElement(using: &random) ?? 8
      file.config = file.config.replacing(
        #""group_size": 16"#, with: "\"group_size\": \(size)")
    }
  }
}

/// `Formats/int4.md` says what is so; its example is what the tests above read.
@Suite struct Int4DocumentTests {
  @Test func everyTestThatIsNamedIsThere() throws {
    let source = try String(contentsOfFile: #filePath, encoding: .utf8)
    let suite = try #require(source.components(separatedBy: "@Suite struct").dropFirst().first)
    let tested = Set(suite.matches(of: #/\n  @Test.*?func (\w+)\(/#).map { String($0.1) })
    let rules = try #require(Int4File.page.components(separatedBy: "## Refused").last)
    let named = Set(rules.matches(of: #/`([a-z]+[A-Z]\w+)`/#).map { String($0.1) })
    #expect(named.count > 15)
    #expect(named.subtracting(tested) == [])
    // And the other way, but for what is right.
    let refusals = try #require(suite.components(separatedBy: "// Settings").last)
    let refused = Set(refusals.matches(of: #/\n  @Test.*?func (\w+)\(/#).map { String($0.1) })
    #expect(refused.subtracting(named) == [])
  }
}
