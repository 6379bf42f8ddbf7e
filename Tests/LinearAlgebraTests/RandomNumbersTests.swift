import Glibc
import LinearAlgebra
import Testing

@Suite struct RandomNumbersTests {
  /// `philox4x32 10` of kat_vectors in the authors' Random123.
  @Test(
    arguments: [
      ([0, 0, 0, 0], [0, 0], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
      (
        [.max, .max, .max, .max], [.max, .max],
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
      ),
      (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
      ),
    ] as [(SIMD4<UInt32>, SIMD2<UInt32>, SIMD4<UInt32>)])
  func blocksAreThePublishedOnes(
    counter: SIMD4<UInt32>, key: SIMD2<UInt32>, block: SIMD4<UInt32>
  ) {
    #expect(Philox.block(counter: counter, key: key) == block)
  }

  @Test func seedStreamAndIndexMakeKeyAndCounter() {
    let numbers = RandomNumbers(seed: 0x299f_31d0_a409_3822, stream: 0x0370_7344_1319_8a2e)
    // The counter's low half is a block's index, so this is block 1 of that stream.
    let block = Philox.block(
      counter: [1, 0, 0x1319_8a2e, 0x0370_7344], key: [0xa409_3822, 0x299f_31d0])
    for word in 0..<4 {
      #expect(numbers.uniformFloat(4 + word) == Float(block[word] >> 8) / 16_777_216)
    }
    let bits = UInt64(block[3]) << 32 | UInt64(block[2])
    #expect(numbers.uniform(3) == Double(bits >> 11) / 9_007_199_254_740_992)
  }

  @Test func theFirstNumbersAreThese() {
    let numbers = RandomNumbers(seed: 0)
    #expect(numbers.uniformFloat(0) == Float(0x6627e8) * 0x1p-24)
    #expect(numbers.uniform(1) == Double(0x9b00_dbd8_bc57_ac4c as UInt64 >> 11) * 0x1p-53)
  }

  @Test func seedsAndStreamsDiffer() {
    let keys: [(UInt64, UInt64)] = [(0, 0), (1, 0), (0, 1), (1 << 32, 0), (0, 1 << 32)]
    let sequences = keys.map { seed, stream in
      let numbers = RandomNumbers(seed: seed, stream: stream)
      return (0..<8).map { numbers.uniform($0) }
    }
    #expect(Set(sequences).count == 5)
    #expect(RandomNumbers(seed: 7).uniform(1 << 40) != RandomNumbers(seed: 7).uniform(0))
  }

  @Test(arguments: 0..<9) func aSpanHoldsTheElementsFromAnIndexOn(start: Int) {
    let numbers = RandomNumbers(seed: 5, stream: 6)
    for count in [0, 1, 2, 5, 16] {
      var filled = [Float](repeating: -1, count: count)
      var span = filled.mutableSpan
      numbers.fill(&span, from: start)
      #expect(filled == (start..<start + count).map { numbers.uniformFloat($0) })
    }
  }

  @Test func momentsAreThoseOfTheDistributions() {
    let numbers = RandomNumbers(seed: 11)
    let count = 20_000
    let uniform = (0..<count).map { numbers.uniform($0) }
    let floats = (0..<count).map { Double(numbers.uniformFloat($0)) }
    let normal = (0..<count).map { numbers.normal($0) }
    #expect((uniform + floats).allSatisfy { (0..<1).contains($0) })
    // Five standard errors of the mean, and of the mean square.
    for values in [uniform, floats] {
      #expect((mean(values) - 0.5).magnitude < 5 * 0.2887 / 141)
      #expect((mean(values.map { $0 * $0 }) - 1.0 / 3).magnitude < 5 * 0.2981 / 141)
    }
    #expect(mean(normal).magnitude < 5 / 141.0)
    #expect((mean(normal.map { $0 * $0 }) - 1).magnitude < 5 * 1.4142 / 141)
    // The fourth moment is 3, its error √96.
    #expect((mean(normal.map { $0 * $0 * $0 * $0 }) - 3).magnitude < 5 * 9.798 / 141)
    let neighbours = zip(normal, normal.dropFirst()).map { $0 * $1 }
    #expect(mean(neighbours).magnitude < 5 / 141.0)
  }

  @Test func normalNumbersComeInPairs() {
    let numbers = RandomNumbers(seed: 12)
    for index in stride(from: 0, to: 100, by: 2) {
      let (x, y) = (numbers.normal(index), numbers.normal(index + 1))
      #expect((x * x + y * y + 2 * log(1 - numbers.uniform(index))).magnitude < 1e-12)
      let turn = atan2(y, x) / (2 * .pi)
      #expect(((turn < 0 ? turn + 1 : turn) - numbers.uniform(index + 1)).magnitude < 1e-12)
    }
  }

  private func mean(_ values: [Double]) -> Double {
    values.reduce(0, +) / Double(values.count)
  }
}
