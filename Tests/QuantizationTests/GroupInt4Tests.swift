import Checkpoints
import Files
import Fixtures
import Foundation
import Quantization
import Tensors
import Testing

/// Groups against what torch makes of hard rows (`Samples/make_int4_samples.py`), and packings
/// against plain twins.
@Suite struct GroupInt4Tests {
  private static let forms = [32, 64, 128].flatMap { size in
    [DType.f32, .f16, .bf16].flatMap { dtype in
      [GroupInt4.ZeroRule.any, .positive, .eight].map {
        Form(groupSize: size, scaleDType: dtype, zeros: $0)
      }
    }
  }

  struct Form: CustomTestStringConvertible {
    let groupSize: Int
    let scaleDType: DType
    let zeros: GroupInt4.ZeroRule

    var key: String { "\(groupSize).\(scaleDType.rawValue.lowercased()).\(zeros)" }
    var testDescription: String { key }
  }

  @Test(arguments: forms) func codesAreThoseOfTorch(form: Form) throws {
    let golden = try Golden()
    let key = form.key
    var weight = try golden.floats("weight")
    // F16 holds no scale of the huge row.
    if form.scaleDType == .f16 { weight.removeSubrange(5 * 128..<6 * 128) }
    let coded = quantize(
      weight, form.groupSize, zeros: form.zeros, form.scaleDType)
    #expect(try coded.codes == golden.bytes("\(key).codes").map(Int.init))
    #expect(try coded.scales == golden.floats("\(key).scales"))
    #expect(try coded.zeros == golden.bytes("\(key).zeros").map(Float.init))
    guard form.groupSize == 32 else { return }
    let found = Set(coded.zeros)
    switch form.zeros {
    case .any: #expect(found == Set((0...15).map(Float.init)))
    case .positive: #expect(found == Set((1...15).map(Float.init)))
    case .eight: #expect(found == [8])
    }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func aScaleIsNotFiniteWhereAnElementIsNot(bad: Float) {
    var weight = [Float](repeating: 1, count: 96)
    weight[40] = bad
    for rule in [GroupInt4.ZeroRule.any, .positive, .eight] {
      let scales = quantize(weight, 32, zeros: rule, .f32).scales
      #expect(scales.map(\.isFinite) == [true, false, true])
    }
  }

  @Test func aScaleIsInfiniteThatItsTypeDoesNotHold() {
    let weight = [Float](repeating: 0, count: 31) + [1e6]
    #expect(quantize(weight, 32, zeros: .any, .f16).scales == [.infinity])
    #expect(quantize(weight, 32, zeros: .any, .bf16).scales[0].isFinite)
  }

  /// Each step is rounded once, in every part of the matrix, whatever the groups' order.
  @Test(arguments: [GroupInt4.Shift.zeros, .offsets], [false, true])
  func aTileIsWhatItsCodesStandFor(shift: GroupInt4.Shift, isReordered: Bool) throws {
    var random = SplitMix64(seed: 3)
    let (rows, columns, size) = (5, 70, 32)
    let groups = 3
    let codes = (0..<rows * columns).map { _ in Int.random(in: 0...15, using: &random) }
    let scales = (0..<rows * groups).map { _ in Float.random(in: -1...1, using: &random) }
    let shifts = (0..<rows * groups).map { _ in
      shift == .zeros
        ? Float(Int.random(in: 0...15, using: &random)) : Float.random(in: -9...9, using: &random)
    }
    let order =
      isReordered ? (0..<columns).map { _ in Int32.random(in: 0...2, using: &random) } : nil
    let weight = GroupCodes(
      outputs: rows, inputs: columns, groupSize: size, codes: try packed(codes), scales: scales,
      shifts: shifts, shift, groupOfInput: order)
    for columnRange in [0..<columns, 1..<columns, 31..<33, 7..<66, 69..<70] {
      let rowRange = 1..<4
      var tile = [Float](repeating: 0, count: rowRange.count * columnRange.count)
      var span = tile.mutableSpan
      weight.dequantize(rows: rowRange, columns: columnRange, into: &span)
      let expected = rowRange.flatMap { row in
        columnRange.map { column in
          let group = row * groups + (order.map { Int($0[column]) } ?? column / size)
          let code = Float(codes[row * columns + column])
          return shift == .zeros
            ? scales[group] * (code - shifts[group]) : scales[group] * code + shifts[group]
        }
      }
      #expect(tile == expected)
    }
  }

  @Test(arguments: [GroupInt4.NibbleOrder.inOrder, .awq], [0, 1])
  func zeroPointsComeBack(order: GroupInt4.NibbleOrder, less: Int) throws {
    let zeros = (0..<48).map { Float(($0 * 7 + $0 / 16) % 16) }
    #expect(Set(zeros).count == 16)
    var words = Block(byteCount: 24)
    var bytes = words.mutableBytes(24)
    GroupInt4.packNibbles(zeros.span, order, less: less, into: &bytes)
    let places = order == .awq ? [0, 4, 1, 5, 2, 6, 3, 7] : Array(0..<8)
    for (place, zero) in zeros.enumerated() {
      let nibble = places[place % 8]
      let byte = words.byte(place / 8 * 4 + nibble / 2)
      #expect(Int(nibble % 2 == 0 ? byte & 15 : byte >> 4) == (Int(zero) + 16 - less) % 16)
    }
    var again = [Float](repeating: -1, count: 48)
    var span = again.mutableSpan
    GroupInt4.unpackNibbles(words.bytes(24), order, less: less, into: &span)
    #expect(again == zeros)
  }

  @Test func codesComeBackFromAWQ() throws {
    var random = SplitMix64(seed: 5)
    let (rows, columns) = (24, 40)
    let codes = (0..<rows * columns).map { _ in Int.random(in: 0...15, using: &random) }
    let bytes = try packed(codes)
    var words = Block(byteCount: bytes.count)
    var span = words.mutableBytes(bytes.count)
    GroupInt4.packAWQ(bytes.span, rows: rows, columns: columns, into: &span)
    let places = [0, 4, 1, 5, 2, 6, 3, 7]
    for row in 0..<rows {
      for column in 0..<columns {
        let nibble = places[row % 8]
        let byte = words.byte((column * rows / 8 + row / 8) * 4 + nibble / 2)
        #expect(Int(nibble % 2 == 0 ? byte & 15 : byte >> 4) == codes[row * columns + column])
      }
    }
    var back = Block(byteCount: bytes.count)
    var backSpan = back.mutableBytes(bytes.count)
    GroupInt4.unpackAWQ(words.bytes(bytes.count), rows: rows, columns: columns, into: &backSpan)
    for place in 0..<bytes.count {
      #expect(back.byte(place) == bytes.span.unsafeLoad(fromByteOffset: place, as: UInt8.self))
    }
  }

  /// ggml's own decoder gives the same numbers of the blocks, where F16 holds scale and offset.
  @Test(arguments: [32, 64, 128]) func blocksOfQ4v1HaveTheSameCodes(groupSize: Int) throws {
    var random = SplitMix64(seed: 7)
    let (rows, columns) = (3, 256)
    let codes = (0..<rows * columns).map { _ in Int.random(in: 0...15, using: &random) }
    let groups = rows * columns / groupSize
    func numbers() -> [Float] {
      (0..<groups).map { _ in Float(Int.random(in: -2000...2000, using: &random)) / 64 }
    }
    let weight = GroupCodes(
      outputs: rows, inputs: columns, groupSize: groupSize, codes: try packed(codes),
      scales: numbers(), shifts: numbers(), .offsets)
    let byteCount = DType.q4v1.byteCount(of: 2 * columns)
    var blocks = Block(byteCount: byteCount)
    var bytes = blocks.mutableBytes(byteCount)
    weight.writeQ4v1(rows: 1..<3, into: &bytes)
    var values = [Float](repeating: 0, count: 2 * columns)
    var span = values.mutableSpan
    Float.read(blocks.bytes(byteCount), .q4v1, into: &span, count: 2 * columns)
    var expected = values
    var expectedSpan = expected.mutableSpan
    weight.dequantize(rows: 1..<3, columns: 0..<columns, into: &expectedSpan)
    #expect(values == expected)
  }

  // MARK: - What the tests share

  private func quantize(
    _ weight: [Float], _ groupSize: Int, zeros rule: GroupInt4.ZeroRule, _ dtype: DType
  ) -> (codes: [Int], scales: [Float], zeros: [Float]) {
    var codes = Block(byteCount: weight.count / 2)
    var scales = [Float](repeating: 0, count: weight.count / groupSize)
    var zeros = scales
    var bytes = codes.mutableBytes(weight.count / 2)
    var scaleSpan = scales.mutableSpan
    var zeroSpan = zeros.mutableSpan
    GroupInt4.quantize(
      weight.span, count: weight.count, groupSize: groupSize, zeros: rule,
      scaleDType: dtype, into: &bytes, scales: &scaleSpan, zeros: &zeroSpan)
    return (
      (0..<weight.count).map { place in
        let byte = codes.byte(place / 2)
        return Int(place % 2 == 0 ? byte & 15 : byte >> 4)
      }, scales, zeros
    )
  }

  private func packed(_ codes: [Int]) throws -> Bytes {
    try Bytes(count: codes.count / 2) { (bytes) throws(PeftoolError) in
      for place in 0..<codes.count / 2 {
        bytes.storeBytes(
          of: UInt8(codes[2 * place] | codes[2 * place + 1] << 4), toByteOffset: place,
          as: UInt8.self)
      }
    }
  }
}

extension Block {
  fileprivate borrowing func byte(_ place: Int) -> UInt8 {
    bytes(byteCount).unsafeLoad(fromByteOffset: place, as: UInt8.self)
  }
}

/// `Samples/int4/golden.safetensors`.
private struct Golden {
  private let checkpoint: Checkpoint

  init() throws {
    let root = URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    checkpoint = try Checkpoint(
      opening: root.appendingPathComponent("Samples/int4/golden.safetensors").path)
  }

  func bytes(_ name: String) throws -> [UInt8] {
    let info = try #require(checkpoint[name])
    return try checkpoint.source.bytes(of: info)
  }

  func floats(_ name: String) throws -> [Float] {
    let bytes = try bytes(name)
    return stride(from: 0, to: bytes.count, by: 4).map { place in
      Float(
        bitPattern: bytes[place..<place + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
    }
  }
}
