/// The block function of Philox4x32-10: 128 random bits from a counter and a key.
///
/// Source: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
package enum Philox {
  /// Four words of 32 bits, the same for the same counter and key on every machine.
  package static func block(
    counter: SIMD4<UInt32>, key: SIMD2<UInt32>
  ) -> SIMD4<UInt32> {
    var (counter, key) = (counter, key)
    for round in 0..<10 {
      // The Weyl sequences of the golden ratio and of √3 − 1.
      if round > 0 { key &+= SIMD2(0x9E37_79B9, 0xBB67_AE85) }
      let first = UInt32(0xD251_1F53).multipliedFullWidth(by: counter[0])
      let second = UInt32(0xCD9E_8D57).multipliedFullWidth(by: counter[2])
      counter = SIMD4(
        second.high ^ counter[1] ^ key[0], second.low,
        first.high ^ counter[3] ^ key[1], first.low)
    }
    return counter
  }
}
