import Tensors

/// A small float format, as its definition reads: the plain twin of the kernels' conversions.
struct SmallFloat {
  let exponentBits: Int
  let mantissaBits: Int
  /// Whether the highest exponent is infinity and NaN, as IEEE 754 has it, or, but for the last
  /// code, more numbers (the "FN" of F8_E4M3FN).
  let hasInfinity: Bool

  static let all: [DType: SmallFloat] = [
    .f16: SmallFloat(exponentBits: 5, mantissaBits: 10, hasInfinity: true),
    .bf16: SmallFloat(exponentBits: 8, mantissaBits: 7, hasInfinity: true),
    .f8E5M2: SmallFloat(exponentBits: 5, mantissaBits: 2, hasInfinity: true),
    .f8E4M3: SmallFloat(exponentBits: 4, mantissaBits: 3, hasInfinity: false),
  ]

  var bitCount: Int { 1 + exponentBits + mantissaBits }

  /// The value of a code without its sign.
  func magnitude(_ code: Int) -> Double {
    let mantissa = code & (1 << mantissaBits - 1)
    let exponent = code >> mantissaBits
    let highest = 1 << exponentBits - 1
    if hasInfinity, exponent == highest { return mantissa == 0 ? .infinity : .nan }
    if !hasInfinity, code == 1 << (bitCount - 1) - 1 { return .nan }
    let bias = 1 << (exponentBits - 1) - 1
    let fraction = Double(mantissa) / Double(1 << mantissaBits)
    return exponent == 0
      ? scalbn(fraction, 1 - bias) : scalbn(1 + fraction, exponent - bias)
  }

  func value(_ code: Int) -> Double {
    let sign = code >> (bitCount - 1)
    let magnitude = magnitude(code & (1 << (bitCount - 1) - 1))
    return sign == 0 ? magnitude : -magnitude
  }

  /// The codes of the finite magnitudes, ascending as their values do.
  var finiteCodes: Range<Int> {
    0..<(hasInfinity ? (1 << exponentBits - 1) << mantissaBits : 1 << (bitCount - 1) - 1)
  }

  private func scalbn(_ value: Double, _ exponent: Int) -> Double {
    Double(sign: .plus, exponent: exponent, significand: value)
  }
}

/// The codes of a dtype of one or two bytes.
func codes(_ bytes: [UInt8], _ dtype: DType) -> [Int] {
  guard dtype.bitCount == 16 else { return bytes.map(Int.init) }
  return stride(from: 0, to: bytes.count, by: 2).map { Int(bytes[$0]) | Int(bytes[$0 + 1]) << 8 }
}

/// The bytes of codes of a dtype of one or two bytes.
func bytes(_ codes: [Int], _ dtype: DType) -> [UInt8] {
  codes.flatMap { code -> [UInt8] in
    dtype.bitCount == 16
      ? [UInt8(truncatingIfNeeded: code), UInt8(truncatingIfNeeded: code >> 8)]
      : [UInt8(truncatingIfNeeded: code)]
  }
}

/// How many elements a kernel finds that are NaN or infinite.
func nonfinite(_ bytes: [UInt8], _ dtype: DType, count: Int) -> Int {
  dtype.nonfiniteCount(bytes.span.bytes, count: count)
}

extension Real {
  static func widened(_ bytes: [UInt8], _ dtype: DType, count: Int) -> [Self] {
    var values = [Self](repeating: 0, count: count)
    var span = values.mutableSpan
    widen(bytes.span.bytes, dtype, into: &span, count: count)
    return values
  }

  static func narrowed(_ values: [Self], _ dtype: DType) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: values.count * dtype.bitCount / 8)
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    narrow(values.span, dtype, into: &raw, count: values.count)
    return bytes
  }
}

extension Float {
  static func written(_ values: [Float], _ dtype: DType) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: dtype.byteCount(of: values.count))
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    write(values.span, dtype, into: &raw, count: values.count)
    return bytes
  }
}
