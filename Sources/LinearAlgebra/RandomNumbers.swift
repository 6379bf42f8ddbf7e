import Glibc

/// Random numbers of which each can be had by its index alone.
///
/// Element i depends on the seed, the stream and i, and on nothing that was drawn before: so they
/// are the same for any number of threads. The kinds share their bits: who needs two kinds, or two
/// unrelated sequences, takes two streams. Source: Philox4x32-10, with the seed as its key and the
/// index of a block and the stream as its counter.
package struct RandomNumbers: Sendable {
  private let key: SIMD2<UInt32>
  private let stream: SIMD2<UInt32>

  /// The sequence of a seed and a stream.
  package init(seed: UInt64, stream: UInt64 = 0) {
    key = words(seed)
    self.stream = words(stream)
  }

  /// The stream of a name: a number that follows from its bytes alone (FNV-1a, 64 bits).
  package static func stream(named name: String) -> UInt64 {
    name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// Element i of a uniform distribution over [0, 1), a multiple of 2⁻⁵³.
  package func uniform(_ index: Int) -> Double { Double(bits(index) >> 11) * 0x1p-53 }

  /// Element i of a uniform distribution over [0, 1), a multiple of 2⁻²⁴.
  package func uniformFloat(_ index: Int) -> Float {
    Self.uniformFloat(block(index / 4)[index % 4])
  }

  /// Fills a span with the elements of `uniformFloat` from an index on, at a quarter of the cost.
  package func fill(_ span: inout MutableSpan<Float>, from start: Int) {
    var words = SIMD4<UInt32>()
    for offset in 0..<span.count {
      let index = start + offset
      if offset == 0 || index % 4 == 0 { words = block(index / 4) }
      span[offset] = Self.uniformFloat(words[index % 4])
    }
  }

  /// Element i of the standard normal distribution, by Box and Muller.
  ///
  /// Its last bits are those of log, sin and cos of the C library, which rounds them in its own
  /// way and, where the processor has fused multiply-add, in another: unlike the uniform numbers
  /// they may differ between machines.
  package func normal(_ index: Int) -> Double {
    let first = index & ~1
    // In (0, 1], for the logarithm's sake.
    let radius = (-2 * log(1 - uniform(first))).squareRoot()
    let angle = 2 * Double.pi * uniform(first + 1)
    return radius * (index == first ? cos(angle) : sin(angle))
  }

  private static func uniformFloat(_ word: UInt32) -> Float { Float(word >> 8) * 0x1p-24 }

  /// Bits of which two lie in a block.
  private func bits(_ index: Int) -> UInt64 {
    let block = block(index / 2)
    return index % 2 == 0
      ? UInt64(block[1]) << 32 | UInt64(block[0]) : UInt64(block[3]) << 32 | UInt64(block[2])
  }

  private func block(_ index: Int) -> SIMD4<UInt32> {
    precondition(index >= 0, "no negative index")
    return Philox.block(
      counter: SIMD4(lowHalf: words(UInt64(index)), highHalf: stream), key: key)
  }
}

/// The low word of a number, and the high one.
private func words(_ number: UInt64) -> SIMD2<UInt32> {
  SIMD2(UInt32(truncatingIfNeeded: number), UInt32(number >> 32))
}
