import ArgumentParser
import Quantization

/// What weights become, as users write it.
enum QuantizedType: String, ExpressibleByArgument, CaseIterable {
  case nf4, fp4, int8
}

/// How blocks of 4 bits are made.
struct SchemeOptions: ParsableArguments {
  @Flag(name: .customLong("no-double-quant"), help: "Keep the scales of 4-bit blocks in f32.")
  var keepsScales = false

  @Option(
    help: ArgumentHelp(
      "The elements that share a scale in 4 bits: a power of two from 32 to 4096. (default: 64)",
      valueName: "n"))
  var blockSize: Int?

  func validate() throws {
    if let blockSize, !FourBitCode.blockSizes.contains(blockSize) {
      throw ValidationError(
        "--block-size is \(blockSize), expected one of "
          + FourBitCode.blockSizes.map(String.init).joined(separator: ", "))
    }
  }

  /// Whether anything has been asked for.
  var isGiven: Bool { keepsScales || blockSize != nil }

  /// The scheme of a type.
  func scheme(_ type: QuantizedType) -> QuantizePlan.Scheme {
    let code: FourBitCode? =
      switch type {
      case .int8: nil
      case .nf4: .nf4
      case .fp4: .fp4
      }
    guard let code else { return .rows }
    return .blocks(code, blockSize: blockSize ?? 64, isNested: !keepsScales)
  }
}
