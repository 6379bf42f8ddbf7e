import Adapters
import Checkpoints
import Files
import JSON
import Quantization
import Tensors

/// How weights are made group-wise INT4.
struct GroupScheme: Equatable, Sendable {
  /// How they lie in the file.
  let layout: Int4Layout
  /// The inputs that share a scale.
  let groupSize: Int
  /// Whether every zero point is 8.
  let isSymmetric: Bool
  /// The type of scales, and of offsets.
  let scaleDType: DType

  /// Readers of gptq take a zero point of 0, which is stored as 15, for 16, or spoil the next one.
  var zeroRule: GroupInt4.ZeroRule {
    isSymmetric ? .eight : layout == .gptq ? .positive : .any
  }

  init(layout: Int4Layout, groupSize: Int, isSymmetric: Bool, scaleDType: DType) {
    self.layout = layout
    self.groupSize = groupSize
    self.isSymmetric = isSymmetric
    self.scaleDType = scaleDType
  }

  /// How a weight of a file was made.
  ///
  /// - Throws: `unsupported` for groups that are not written.
  init(of weight: Int4Weight) throws(PeftoolError) {
    guard GroupInt4.groupSizes.contains(weight.groupSize), weight.groupOfInput == nil else {
      throw PeftoolError(
        .unsupported,
        weight.groupOfInput == nil
          ? "is in groups of \(weight.groupSize), and is quantized again in groups of 32, 64 or 128"
          : "has its inputs in groups of another order (desc_act), which are not quantized again",
        tensor: weight.codes.name)
    }
    guard weight.layout != .hqq else {
      throw PeftoolError(
        .unsupported,
        "is in int4 as hqq, which is not quantized again: 'peftool convert --layout mlx' makes a model "
          + "of it that is", tensor: weight.codes.name)
    }
    self.init(
      layout: weight.layout, groupSize: weight.groupSize, isSymmetric: weight.isSymmetric,
      scaleDType: weight.scales.dtype)
  }

  /// Refuses a weight that cannot be cut into groups, or does not fill words.
  ///
  /// - Throws: `unsupported`.
  func check(_ weight: LinearModules.Weight) throws(PeftoolError) {
    func refuse(_ reason: String) -> PeftoolError {
      weight.tensor.at(PeftoolError(.unsupported, reason))
    }
    guard !weight.isTransposed else {
      throw refuse("is a Conv1D's, which lies turned around, and int4 is for linear layers")
    }
    guard weight.columnCount % groupSize == 0 else {
      throw refuse(
        "has \(weight.columnCount) inputs, which groups of \(groupSize) do not divide: another "
          + "--group-size, or --exclude it")
    }
    guard layout == .mlx || weight.rowCount % 8 == 0 else {
      throw refuse(
        "has \(weight.rowCount) outputs, and \(layout.rawValue) packs eight a word: --exclude it, or "
          + "--layout mlx")
    }
  }

  /// The tensors of a weight, with what they hold; nil for the group of each input.
  func parts(_ weight: LinearModules.Weight) -> [(Int4Layout.Part, QuantizePlan.Part?)] {
    let (outputs, inputs) = (weight.rowCount, weight.columnCount)
    let groups = inputs / groupSize
    return [
      (layout.codes(outputs, inputs, groupSize: groupSize), .codes),
      (layout.scales(outputs, groups: groups, scaleDType), .scales),
      (layout.shifts(outputs, groups: groups, scaleDType), .shifts),
    ] + (layout.groupIndex(inputs).map { [($0, nil)] } ?? [])
  }

  /// The group of each input as I32.
  func groupIndex(_ inputs: Int) -> [UInt8] {
    (0..<inputs).flatMap { input in
      (0..<4).map { UInt8(truncatingIfNeeded: (input / groupSize) >> (8 * $0)) }
    }
  }

  /// The keys of `config.json`; `skip` has the linear modules that stay as they are.
  func settings(skip: [String]?) -> [JSON.Member] {
    let size = JSON.Member("group_size", .number(groupSize))
    let bits = JSON.Member("bits", .number(4))
    switch layout {
    case .mlx:
      // Which modules are quantized mlx-lm sees by their scales.
      let settings = JSON.object([size, bits, .init("mode", .string("affine"))])
      return [.init("quantization", settings), .init("quantization_config", settings)]
    case .gptq, .gptqV2:
      var members: [JSON.Member] = [
        bits, .init("checkpoint_format", .string(layout.rawValue)),
        .init("desc_act", .bool(false)), size, .init("lm_head", .bool(false)),
        .init("pack_dtype", .string("int32")), .init("quant_method", .string("gptq")),
        .init("sym", .bool(isSymmetric)),
      ]
      if let skip {
        // GPTQModel's and vLLM's way to leave out what a pattern matches.
        let patterns = skip.map { JSON.Member("-:^\($0.escapedDots)$", .object([])) }
        members.insert(.init("dynamic", .object(patterns)), at: 3)
      }
      return [.init("quantization_config", .object(members))]
    case .awq:
      return [
        .init(
          "quantization_config",
          .object([
            bits, size,
            .init("modules_to_not_convert", skip.map { .array($0.map(JSON.string)) } ?? .null),
            .init("quant_method", .string("awq")), .init("version", .string("gemm")),
            .init("zero_point", .bool(true)),
          ]))
      ]
    case .hqq:
      let weights = JSON.object([
        .init("axis", .number(1)), .init("channel_wise", .bool(true)), size,
        .init("nbits", .number(4)), .init("optimize", .bool(false)),
        .init("round_zero", .bool(false)), .init("view_as_float", .bool(false)),
      ])
      return [
        .init(
          "quantization_config",
          .object([
            .init(
              "quant_config",
              .object([
                .init("offload_meta", .bool(false)), .init("scale_quant_params", .null),
                .init("weight_quant_params", weights), .init("zero_quant_params", .null),
              ])),
            .init("quant_method", .string("hqq")),
            .init("skip_modules", .array((skip ?? []).map(JSON.string))),
          ]))
      ]
    }
  }

  /// What the user should know of files in this layout.
  var note: String? {
    guard layout == .gptq, !isSymmetric else { return nil }
    return
      "GPTQModel reads gptq files of zero points other than 8 only where it has written them itself: "
      + "--symmetric, or --layout gptq_v2"
  }

  /// The scheme in words.
  var text: String {
    "int4, groups of \(groupSize), \(isSymmetric ? "symmetric, " : "")scales "
      + (layout.shift == .offsets ? "and offsets " : "")
      + "in \(scaleDType.rawValue)\(layout.shift == .zeros ? ", zero points of 4 bits" : ""), "
      + "as \(layout.rawValue)"
  }
}

extension String {
  /// As a regular expression: the dots of a module's path.
  fileprivate var escapedDots: String { split(separator: ".").joined(separator: "\\.") }
}
