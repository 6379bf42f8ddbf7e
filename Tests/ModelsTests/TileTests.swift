import Checkpoints
import Fixtures
import Foundation
import Quantization
import Tensors
import Testing

@testable import Models

/// A number of a float format: sign, exponent, mantissa (IEEE 754; E4M3 has no infinities).
private func number(_ bits: Int, exponent: Int, mantissa: Int, isFinite: Bool = false) -> Float {
  let sign: Float = bits >> (exponent + mantissa) & 1 == 1 ? -1 : 1
  let power = bits >> mantissa & ((1 << exponent) - 1)
  let part = bits & ((1 << mantissa) - 1)
  let bias = (1 << (exponent - 1)) - 1
  let isTop = power == (1 << exponent) - 1
  if isTop, !isFinite { return part == 0 ? sign * .infinity : .nan }
  if isTop, part == (1 << mantissa) - 1 { return .nan }
  let fraction = Float(part) / Float(1 << mantissa)
  return power == 0
    ? sign * fraction * Float(sign: .plus, exponent: 1 - bias, significand: 1)
    : sign * (1 + fraction) * Float(sign: .plus, exponent: power - bias, significand: 1)
}

/// The element of a matrix of random bytes, decoded one by one.
private func element(_ bytes: [UInt8], _ dtype: DType, _ place: Int) -> Float {
  func bits(_ width: Int) -> UInt64 {
    (0..<width).reduce(0) { $0 | UInt64(bytes[place * width + $1]) << UInt64(8 * $1) }
  }
  return switch dtype {
  case .f64: Float(Double(bitPattern: bits(8)))
  case .f32: Float(bitPattern: UInt32(bits(4)))
  case .bf16: Float(bitPattern: UInt32(bits(2)) << 16)
  case .f16: number(Int(bits(2)), exponent: 5, mantissa: 10)
  case .f8E5M2: number(Int(bits(1)), exponent: 5, mantissa: 2)
  default: number(Int(bits(1)), exponent: 4, mantissa: 3, isFinite: true)
  }
}

private func randomBytes(_ count: Int, seed: Int) -> [UInt8] {
  var numbers = SplitMix64(seed: seed)
  return (0..<count).map { _ in UInt8.random(in: 0...255, using: &numbers) }
}

/// Whole, in the middle, single elements and rows, at odd places.
private let tiles: [(rows: Range<Int>, columns: Range<Int>)] = [
  (0..<23, 0..<37), (1..<22, 3..<36), (22..<23, 36..<37), (5..<6, 0..<37), (0..<23, 7..<8),
  (3..<20, 1..<18), (4..<4, 0..<37), (0..<23, 9..<9),
]

@Suite struct TileTests {
  @Test(arguments: [DType.f64, .f32, .f16, .bf16, .f8E4M3, .f8E5M2])
  func numbersAreWidenedExactly(dtype: DType) throws {
    let bytes = randomBytes(23 * 37 * dtype.bitCount / 8, seed: 5)
    let weight = try frozenWeight(Values("w", [23, 37], bytes: bytes, dtype: dtype))
    #expect(weight.outputs == 23 && weight.inputs == 37 && weight.byteCount == bytes.count)
    for (rows, columns) in tiles {
      let tile = Rows(rows.count, columns.count)
      weight.widen(rows: rows, columns: columns, into: tile)
      let expected = rows.flatMap { row in
        columns.map { element(bytes, dtype, row * 37 + $0) }
      }
      let isEqual = zip(tile.values, expected).allSatisfy {
        $0.bitPattern == $1.bitPattern || ($0.isNaN && $1.isNaN)
      }
      #expect(isEqual && tile.values.count == expected.count, "\(rows), \(columns)")
    }
  }

  @Test(arguments: FourBitCode.allCases, [32, 64])
  func fourBitCodesAreDecodedFromOddPlaces(code: FourBitCode, blockSize: Int) {
    let (rows, columns) = (23, 37)
    let packed = randomBytes((rows * columns + 1) / 2, seed: 6)
    let scales = randoms(FourBitCode.blockCount(of: rows * columns, blockSize: blockSize), seed: 7)
    for part in tiles {
      var tile = [Float](repeating: .nan, count: part.rows.count * part.columns.count)
      let first = part.rows.lowerBound * columns + part.columns.lowerBound
      var span = tile.mutableSpan
      code.dequantizeTile(
        packed.span.bytes, absmax: scales.span, blockSize: blockSize, first: first, row: columns,
        rows: part.rows.count, columns: part.columns.count, into: &span)
      let expected = part.rows.flatMap { row in
        part.columns.map { column in
          let place = row * columns + column
          let byte = packed[place / 2]
          let level = code.levels[Int(place % 2 == 0 ? byte >> 4 : byte & 15)]
          return level * scales[place / blockSize]
        }
      }
      #expect(tile == expected, "\(part)")
    }
  }

  @Test func eightBitCodesHaveTheirRowsScale() {
    let (rows, columns) = (23, 37)
    let bytes = randomBytes(rows * columns, seed: 8)
    let scales = randoms(rows, seed: 9)
    for part in tiles {
      var tile = [Float](repeating: .nan, count: part.rows.count * part.columns.count)
      var span = tile.mutableSpan
      RowInt8.dequantizeTile(
        bytes.span.bytes, absmax: scales.span.extracting(part.rows),
        first: part.rows.lowerBound * columns + part.columns.lowerBound, row: columns,
        rows: part.rows.count, columns: part.columns.count, into: &span)
      let expected = part.rows.flatMap { row in
        part.columns.map { column in
          Float(Int8(bitPattern: bytes[row * columns + column])) * scales[row] * (1 / Float(127))
        }
      }
      #expect(tile == expected, "\(part)")
    }
  }

  /// Codes of bitsandbytes' own files, against the same model coded here.
  @Test(arguments: [("llama-nf4-double", FourBitCode.nf4, true), ("llama-fp4", .fp4, false)])
  func codesOfBitsandbytesAreReadAndMadeAlike(
    name: String, code: FourBitCode, isNested: Bool
  ) throws {
    let samples = URL(fileURLWithPath: TrainingSamples.path("")).deletingLastPathComponent()
    let file = try Checkpoint(opening: samples.appendingPathComponent("quantized/\(name)").path)
    let base = try Checkpoint(opening: samples.appendingPathComponent("bases/llama-bf16").path)
    let weights = try QuantizedWeight.all(in: file)
    #expect(!weights.isEmpty)
    for weight in weights {
      let read = try FrozenWeight(weight, in: file.source)
      let plain = try FrozenWeight(#require(base[weight.codes.name]), in: base.source)
      let made = try plain.quantized(code, blockSize: 64, isNested: isNested)
      #expect(read.isQuantized && [read.outputs, read.inputs] == weight.shape)
      #expect(read.values == made.values, "\(weight.codes.name)")
    }
  }

  /// Their rows' scales are of numbers in F16: each element within half a step of a 127th.
  @Test func eightBitCodesOfBitsandbytesAreRead() throws {
    let samples = URL(fileURLWithPath: TrainingSamples.path("")).deletingLastPathComponent()
    let file = try Checkpoint(opening: samples.appendingPathComponent("quantized/llama-int8").path)
    let base = try Checkpoint(opening: samples.appendingPathComponent("bases/llama-bf16").path)
    let weights = try QuantizedWeight.all(in: file)
    #expect(!weights.isEmpty)
    for weight in weights {
      let read = try FrozenWeight(weight, in: file.source)
      let plain = try FrozenWeight(#require(base[weight.codes.name]), in: base.source)
      let (found, expected) = (read.values, plain.values)
      for row in 0..<read.outputs {
        let own = row * read.inputs..<(row + 1) * read.inputs
        let largest = expected[own].reduce(0) { max($0, abs($1)) }
        let worst = own.reduce(0) { max($0, abs(found[$1] - expected[$1])) }
        #expect(worst <= largest * (0.5 / 127 + 1e-3))
      }
    }
  }

  /// More elements than are coded at a time, and a last block that is not full.
  @Test(arguments: FourBitCode.allCases, [false, true])
  func aWeightIsQuantizedAsAWhole(code: FourBitCode, isNested: Bool) throws {
    let (rows, columns) = (150, 117)
    let values = randoms(rows * columns, seed: 10)
    let weight = try frozenWeight(Values("w", [rows, columns], values))
    let quantized = try weight.quantized(code, blockSize: 64, isNested: isNested)
    #expect(quantized.isQuantized && !weight.isQuantized)

    let count = values.count
    var packed = [UInt8](repeating: 0, count: FourBitCode.byteCount(of: count))
    var scales = [Float](
      repeating: 0, count: FourBitCode.blockCount(of: count, blockSize: 64))
    var bytes = packed.mutableSpan
    var raw = bytes.mutableBytes
    var own = scales.mutableSpan
    code.quantize(values.span, count: count, blockSize: 64, into: &raw, absmax: &own)
    if isNested { scales = NestedScales.rounded(scales) }
    var expected = [Float](repeating: 0, count: count)
    var all = expected.mutableSpan
    code.dequantizeTile(
      packed.span.bytes, absmax: scales.span, blockSize: 64, first: 0, row: columns, rows: rows,
      columns: columns, into: &all)
    #expect(quantized.values == expected)
    #expect(quantized.byteCount == packed.count + 4 * scales.count)
    for part in tiles {
      let tile = Rows(part.rows.count, part.columns.count)
      quantized.widen(rows: part.rows, columns: part.columns, into: tile)
      #expect(
        tile.values == part.rows.flatMap { row in part.columns.map { expected[row * 117 + $0] } })
    }
  }
}
