import ArgumentParser
import Checkpoints
import Files
import Quantization
import Tensors

/// What weights become, as users write it.
enum QuantizedType: String, ExpressibleByArgument, CaseIterable {
  case nf4, fp4, int8, int4
}

/// How weights of 4 bits are made.
struct SchemeOptions: ParsableArguments {
  @Flag(name: .customLong("no-double-quant"), help: "Keep the scales of 4-bit blocks in f32.")
  var keepsScales = false

  @Option(
    help: ArgumentHelp(
      "The elements that share a scale in 4 bits: a power of two from 32 to 4096. (default: 64)",
      valueName: "n"))
  var blockSize: Int?

  @Option(
    help: ArgumentHelp(
      "The inputs that share a scale in int4: 32, 64 or 128. (default: 64)", valueName: "n"))
  var groupSize: Int?

  @Option(
    help: ArgumentHelp(
      "Whose files int4 is written as: mlx, gptq, gptq_v2 or awq. (default: mlx)",
      valueName: "layout"))
  var layout: Int4Layout?

  @Option(
    help: ArgumentHelp(
      "The type of the scales and offsets of mlx: float32, float16 or bfloat16. "
        + "(default: float16)", valueName: "dtype"),
    transform: Self.scaleDType)
  var scaleDtype: DType?

  @Flag(help: "Give every group of int4 the zero point 8.")
  var symmetric = false

  func validate() throws {
    if let groupSize, !GroupInt4.groupSizes.contains(groupSize) {
      throw ValidationError("--group-size is \(groupSize), expected 32, 64 or 128")
    }
    guard layout != .hqq else {
      throw ValidationError(
        "--layout hqq is made of a model in another layout: 'peftool convert --layout hqq'")
    }
    if let scaleDtype, let layout, !layout.scaleDTypes.contains(scaleDtype) {
      throw ValidationError("--scale-dtype is for --layout mlx: \(layout.rawValue) has float16")
    }
    if let blockSize, !FourBitCode.blockSizes.contains(blockSize) {
      throw ValidationError(
        "--block-size is \(blockSize), expected one of "
          + FourBitCode.blockSizes.map(String.init).joined(separator: ", "))
    }
  }

  /// Whether anything has been asked for.
  var isGiven: Bool { isGivenForBlocks || isGivenForGroups }
  private var isGivenForBlocks: Bool { keepsScales || blockSize != nil }
  private var isGivenForGroups: Bool {
    groupSize != nil || layout != nil || scaleDtype != nil || symmetric
  }

  /// Refuses options of another type.
  func validate(with type: QuantizedType?) throws {
    if isGivenForBlocks, type != .nf4, type != .fp4 {
      throw ValidationError("--block-size and --no-double-quant are for nf4 and fp4")
    }
    if isGivenForGroups, type != .int4 {
      throw ValidationError(
        "--group-size, --layout, --scale-dtype and --symmetric are for int4")
    }
  }

  /// The scheme of a type.
  func scheme(_ type: QuantizedType) -> QuantizePlan.Scheme {
    switch type {
    case .int8: .rows
    case .nf4: blocks(.nf4)
    case .fp4: blocks(.fp4)
    case .int4:
      .groups(
        GroupScheme(
          layout: layout ?? .mlx, groupSize: groupSize ?? 64, isSymmetric: symmetric,
          scaleDType: scaleDtype ?? .f16))
    }
  }

  private func blocks(_ code: FourBitCode) -> QuantizePlan.Scheme {
    .blocks(code, blockSize: blockSize ?? 64, isNested: !keepsScales)
  }

  private static func scaleDType(_ text: String) throws -> DType {
    guard let dtype = DType(argument: text, among: [.f32, .f16, .bf16]) else {
      throw ValidationError("'\(text.printable)' is none of float32, float16, bfloat16")
    }
    return dtype
  }
}

extension Int4Layout: ExpressibleByArgument {
  /// What `quantize` writes.
  package static var allValueStrings: [String] {
    allCases.filter { $0 != .hqq }.map(\.rawValue)
  }
}
