import Fixtures
import Tensors
import Testing

/// The plain twin of the kernels that code blocks: the definition, a value at a time.
private struct BlockCoder {
  let dtype: DType

  func bytes(_ x: [Float]) -> [UInt8] {
    let largest = x.max { abs($0) < abs($1) } ?? 0
    // `max` gives the last of equals; the definition wants the first.
    let first = x.first { abs($0) == abs(largest) } ?? 0
    let (least, most) = (x.min() ?? 0, x.max() ?? 0)
    switch dtype {
    case .q4v0: return half(first / -8) + nibbles(x.map { code($0, first / -8, 8.5, 15) })
    case .q5v0:
      let codes = x.map { code($0, first / -16, 16.5, 31) }
      return half(first / -16) + fifths(codes) + nibbles(codes)
    case .q4v1:
      let d = (most - least) / 15
      return half(d) + half(least) + nibbles(x.map { code($0 - least, d, 0.5, 15) })
    case .q5v1:
      let d = (most - least) / 31
      let codes = x.map { code($0 - least, d, 0.5, 31) }
      return half(d) + half(least) + fifths(codes) + nibbles(codes)
    default:
      let d = abs(first) / 127
      let factor = d == 0 ? 0 : 1 / d
      return half(d)
        + x.map { UInt8(bitPattern: Int8(($0 * factor).rounded(.toNearestOrAwayFromZero))) }
    }
  }

  private func code(_ value: Float, _ d: Float, _ offset: Float, _ highest: Int) -> Int {
    let factor = d == 0 ? 0 : 1 / d
    return min(Int(value * factor + offset), highest)
  }

  private func half(_ value: Float) -> [UInt8] {
    let bits = Float16(value).bitPattern
    return [UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8)]
  }

  private func nibbles(_ codes: [Int]) -> [UInt8] {
    (0..<16).map { UInt8(codes[$0] & 15 | (codes[$0 + 16] & 15) << 4) }
  }

  private func fifths(_ codes: [Int]) -> [UInt8] {
    (0..<4).map { byte in
      (0..<8).reduce(0) { $0 | UInt8(codes[byte * 8 + $1] >> 4) << UInt8($1) }
    }
  }
}

@Suite struct BlockTests {
  private func coded(_ values: [Float], _ dtype: DType) -> [UInt8] {
    Float.written(values, dtype)
  }

  @Test(arguments: DType.quantizable) func blocksHaveTheTwinsBytes(dtype: DType) {
    let twin = BlockCoder(dtype: dtype)
    for seed in 0..<50 {
      var random = SplitMix64(seed: seed)
      let exponent = Int.random(in: -60...60, using: &random)
      let scale = Float(sign: .plus, exponent: exponent, significand: 1)
      let values = (0..<32 * 8).map { _ in Float.random(in: -1...1, using: &random) * scale }
      let expected = stride(from: 0, to: values.count, by: 32).flatMap {
        twin.bytes(Array(values[$0..<$0 + 32]))
      }
      #expect(coded(values, dtype) == expected)
    }
  }

  @Test(arguments: DType.quantizable) func halvesAreRoundedAsTheTwinDoes(dtype: DType) {
    var random = SplitMix64(seed: 7)
    // The largest is a power of two times the number of steps, so that halves of steps are exact.
    for largest in [-127, 127, -8, -16, 15, 31] {
      let values = (0..<32).map { place in
        place == 5
          ? Float(largest)
          : Float(Int.random(in: -2 * abs(largest)...2 * abs(largest), using: &random)) / 2
      }
      #expect(coded(values, dtype) == BlockCoder(dtype: dtype).bytes(values))
    }
  }

  @Test func blocksOfZeros() {
    let zeros = [Float](repeating: 0, count: 32)
    #expect(coded(zeros, .q8v0) == [UInt8](repeating: 0, count: 34))
    // Its scale is 0 / -8.
    #expect(coded(zeros, .q4v0) == [0, 0x80] + [UInt8](repeating: 0x88, count: 16))
    #expect(coded(zeros, .q4v1) == [UInt8](repeating: 0, count: 20))
  }

  @Test(arguments: [DType.q4v1, .q5v1]) func aMinimumThatIsTooLarge(dtype: DType) {
    let bytes = coded([Float](repeating: -70000, count: 32), dtype)
    #expect(dtype.nonfiniteBlockCount(bytes.span.bytes, count: 32) == 1)
  }

  @Test(arguments: DType.quantizable) func whatIsNotFiniteHasAScaleThatIsNot(dtype: DType) {
    for value in [Float.nan, .infinity, -.infinity] {
      var values = [Float](repeating: 1, count: 32)
      values[31] = value
      let bytes = coded(values, dtype)
      #expect(bytes[1] & 0x7C == 0x7C)
      let two = bytes + coded([Float](repeating: 1, count: 32), dtype)
      #expect(dtype.nonfiniteBlockCount(two.span.bytes, count: 64) == 1)
    }
  }
}
