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
      "The elements that share a scale in 4 bits: a power of two from 32 to 4096.",
      valueName: "n"))
  var blockSize = 64

  func validate() throws {
    if !FourBitCode.blockSizes.contains(blockSize) {
      throw ValidationError(
        "--block-size is \(blockSize), expected one of "
          + FourBitCode.blockSizes.map(String.init).joined(separator: ", "))
    }
  }

  /// Whether something else than the default has been asked for.
  var isGiven: Bool { keepsScales || blockSize != 64 }

  /// The scheme of a type.
  func scheme(_ type: QuantizedType) -> QuantizePlan.Scheme {
    switch type {
    case .int8: .rows
    case .nf4: .blocks(.nf4, blockSize: blockSize, isNested: !keepsScales)
    case .fp4: .blocks(.fp4, blockSize: blockSize, isNested: !keepsScales)
    }
  }
}
