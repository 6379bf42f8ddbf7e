import Fixtures
import Tensors
import Testing

private let small: [DType] = [.f16, .bf16, .f8E5M2, .f8E4M3]

@Suite struct ConversionTests {
  @Test(arguments: small) func everyCodeWidensToItsValue(dtype: DType) throws {
    let format = try #require(SmallFloat.all[dtype])
    let all = Array(0..<1 << format.bitCount)
    let single = Float.widened(bytes(all, dtype), dtype, count: all.count)
    let double = Double.widened(bytes(all, dtype), dtype, count: all.count)
    let wrong = all.filter { code in
      let value = format.value(code)
      let isSame =
        value.isNaN
        ? single[code].isNaN && double[code].isNaN
        : Double(single[code]) == value && double[code] == value
          && single[code].sign == (code >> (format.bitCount - 1) == 0 ? .plus : .minus)
      return !isSame
    }
    #expect(wrong == [])
  }

  @Test(arguments: small) func everyCodeNarrowsToItself(dtype: DType) throws {
    let format = try #require(SmallFloat.all[dtype])
    let all = (0..<1 << format.bitCount).filter { !format.value($0).isNaN }
    let values = all.map(format.value)
    #expect(codes(Float.narrowed(values.map(Float.init), dtype), dtype) == all)
    #expect(codes(Double.narrowed(values, dtype), dtype) == all)
  }

  @Test(arguments: small) func tiesGoToTheEvenCode(dtype: DType) throws {
    let format = try #require(SmallFloat.all[dtype])
    var values: [Double] = []
    var expected: [Int] = []
    for code in format.finiteCodes.dropLast() {
      let tie = (format.magnitude(code) + format.magnitude(code + 1)) / 2
      values += [tie, tie.nextDown, tie.nextUp, -tie]
      let even = code.isMultiple(of: 2) ? code : code + 1
      expected += [even, code, code + 1, even | 1 << (format.bitCount - 1)]
    }
    #expect(codes(Double.narrowed(values, dtype), dtype) == expected)
    // In f32 the neighbours of a tie are further away.
    values = values.enumerated().map { place, value in
      let tie = Float(values[place & ~3])
      return [Double(tie), Double(tie.nextDown), Double(tie.nextUp), value][place & 3]
    }
    #expect(codes(Float.narrowed(values.map(Float.init), dtype), dtype) == expected)
  }

  @Test(arguments: [
    (DType.f16, 65520.0, 0x7C00), (.bf16, 0x1.FFp127, 0x7F80), (.f8E5M2, 61440, 0x7C),
  ])
  func whatIsTooLargeBecomesInfinity(dtype: DType, least: Double, infinity: Int) throws {
    #expect(
      codes(Double.narrowed([least, .infinity, 1e300], dtype), dtype)
        == [infinity, infinity, infinity])
    #expect(
      codes(Float.narrowed([Float(least), .infinity], dtype), dtype) == [infinity, infinity])
    #expect(codes(Double.narrowed([least.nextDown], dtype), dtype) == [infinity - 1])
    #expect(codes(Float.narrowed([Float(least).nextDown], dtype), dtype) == [infinity - 1])
    let negative = infinity | 1 << (dtype.bitCount - 1)
    #expect(codes(Double.narrowed([-least], dtype), dtype) == [negative])
  }

  @Test func whatF8E4M3CannotHoldBecomesNaN() {
    // 464 lies midway between 448 and what would be 480, and goes to the even 448.
    #expect(Double.narrowed([448, 464], .f8E4M3) == [0x7E, 0x7E])
    #expect(
      Double.narrowed([Double(464).nextUp, 1e9, .infinity, -.infinity, .nan], .f8E4M3)
        == [0x7F, 0x7F, 0x7F, 0xFF, 0x7F])
    #expect(Float.narrowed([464, Float(464).nextUp, .infinity], .f8E4M3) == [0x7E, 0x7F, 0x7F])
  }

  @Test(arguments: small) func nanStaysNaN(dtype: DType) throws {
    let format = try #require(SmallFloat.all[dtype])
    let payload = Float(bitPattern: 0x7F80_0001)
    let single = codes(Float.narrowed([.nan, -.nan, payload], dtype), dtype)
    let double = codes(Double.narrowed([.nan, -.nan], dtype), dtype)
    #expect((single + double).allSatisfy { format.value($0).isNaN })
  }

  @Test func aDoubleIsRoundedOnceAndNotTwice() {
    // Midway in bf16 but for a part that f32 cannot hold.
    let above = 1 + 0x1p-8 + 0x1p-40
    let below = 1 + 0x1p-8 - 0x1p-40
    #expect(
      codes(Double.narrowed([above, below, -above], .bf16), .bf16) == [0x3F81, 0x3F80, 0xBF81])
    #expect(codes(Double.narrowed([1 + 0x1p-11 + 0x1p-50], .f16), .f16) == [0x3C01])
    #expect(Double.narrowed([0x1p-60], .f16) == [0, 0])
    #expect(Double.narrowed([-1e-300], .bf16) == [0, 0x80])
  }

  @Test(arguments: 0..<50) func randomNumbersNarrowToTheNearest(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    // An odd count leaves a rest behind the vectors.
    let values = (0..<173).map { _ in
      Double(
        sign: Bool.random(using: &random) ? .plus : .minus,
        exponent: Int.random(in: -30...16, using: &random),
        significand: Double.random(in: 1..<2, using: &random))
    }
    for dtype in small {
      let format = try #require(SmallFloat.all[dtype])
      let sign = 1 << (format.bitCount - 1)
      let found = codes(Double.narrowed(values, dtype), dtype)
      for (value, code) in zip(values, found) {
        let magnitude = code & (sign - 1)
        #expect((code & sign != 0) == (value < 0))
        guard format.finiteCodes.contains(magnitude) else {
          // Halfway past the largest, and beyond.
          let largest = format.finiteCodes.upperBound - 1
          #expect(abs(value) > format.magnitude(largest))
          continue
        }
        let distance = abs(abs(value) - format.magnitude(magnitude))
        let neighbours = [magnitude - 1, magnitude + 1].filter(format.finiteCodes.contains)
        #expect(
          neighbours.allSatisfy { distance <= abs(abs(value) - format.magnitude($0)) },
          "\(value) in \(dtype)")
      }
    }
  }

  @Test func wideTypesAreExactBothWays() {
    let values: [Double] = [0, -0.0, 1.1, -1e300, .leastNonzeroMagnitude, .infinity, 1]
    #expect(Double.widened(Double.narrowed(values, .f64), .f64, count: 7) == values)
    let single: [Float] = [0, -0.0, 1.1, -1e38, .leastNonzeroMagnitude, .infinity, 1]
    #expect(Float.widened(Float.narrowed(single, .f32), .f32, count: 7) == single)
    #expect(Double.widened(Float.narrowed(single, .f32), .f32, count: 7) == single.map(Double.init))
    #expect(
      Float.widened(Double.narrowed(values, .f64), .f64, count: 7) == values.map { Float($0) })
    #expect(
      Float.widened(Double.narrowed(values, .f32), .f32, count: 7) == values.map { Float($0) })
  }

  @Test func integersAreRead() {
    func read(_ bytes: [UInt8], _ dtype: DType, count: Int) -> [Double] {
      var values = [Double](repeating: -1, count: count)
      var span = values.mutableSpan
      Double.read(bytes.span.bytes, dtype, into: &span, count: count)
      return values
    }
    #expect(read([0, 1, 255], .u8, count: 3) == [0, 1, 255])
    #expect(read([0, 1, 255], .i8, count: 3) == [0, 1, -1])
    #expect(read([0, 1], .bool, count: 2) == [0, 1])
    #expect(read([0, 1, 0xFF, 0xFF], .u16, count: 2) == [256, 65535])
    #expect(read([0, 1, 0xFF, 0xFF], .i16, count: 2) == [256, -1])
    #expect(read([0xFE, 0xFF, 0xFF, 0xFF], .i32, count: 1) == [-2])
    #expect(read([0xFE, 0xFF, 0xFF, 0xFF], .u32, count: 1) == [4_294_967_294])
    #expect(read([1, 0, 0, 0, 0, 0, 0, 0x80], .i64, count: 1) == [-0x1p63])
    #expect(read([1, 0, 0, 0, 0, 0, 0, 0x80], .u64, count: 1) == [0x1p63])
    #expect(read([0x80, 0x3F], .bf16, count: 1) == [1])
  }

  @Test func whatIsNotFiniteIsCounted() {
    for dtype in small {
      let all = Array(0..<1 << dtype.bitCount)
      let expected = all.filter { !(SmallFloat.all[dtype]?.value($0).isFinite ?? true) }.count
      #expect(nonfinite(bytes(all, dtype), dtype, count: all.count) == expected)
    }
    let doubles = Double.narrowed([1, .nan, -.infinity, 2, .greatestFiniteMagnitude], .f64)
    #expect(nonfinite(doubles, .f64, count: 5) == 2)
    #expect(nonfinite(doubles, .f64, count: 2) == 1)
    let singles = Float.narrowed([1, .nan, -.infinity], .f32)
    #expect(nonfinite(singles, .f32, count: 3) == 2)
    #expect(nonfinite([0xFF, 0x7F], .i8, count: 2) == 0)
  }
}
