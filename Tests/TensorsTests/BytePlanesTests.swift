import Fixtures
import Tensors
import Testing

/// The kernels against what they are defined to do, an element at a time.
@Suite struct BytePlanesTests {
  private static let counts = [0, 1, 7, 31, 32, 33, 1000]

  /// The number that an element's bytes are.
  private func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private func numbers(_ bytes: [UInt8], _ width: Int) -> [UInt64] {
    stride(from: 0, to: bytes.count, by: width).map { number(bytes[$0..<$0 + width]) }
  }

  private func filled(
    _ count: Int, _ body: (inout MutableRawSpan) -> Void
  ) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xAA, count: count)
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    body(&raw)
    return bytes
  }

  @Test(arguments: DType.safetensors) func planesAreBytesOfElements(dtype: DType) {
    let layout = BytePlanes(dtype)
    var random = SplitMix64(seed: 3)
    for count in Self.counts {
      let bytes = (0..<count * layout.width).map { _ in UInt8.random(in: 0...255, using: &random) }
      let bits = UInt64(layout.width * 8)
      let expected = (0..<layout.width).flatMap { plane in
        numbers(bytes, layout.width).map { x -> UInt8 in
          guard layout.lowersSign else { return UInt8(truncatingIfNeeded: x >> (8 * plane)) }
          let sign = x >> (bits - 1)
          let exponent = x >> (bits - 9) & 0xFF
          let mantissa = x & (1 << (bits - 9) - 1)
          let moved = exponent << (bits - 8) | sign << (bits - 9) | mantissa
          return UInt8(truncatingIfNeeded: moved >> (8 * plane))
        }
      }
      let planes = filled(bytes.count) { layout.split(bytes.span.bytes, into: &$0) }
      #expect(planes == expected, "\(dtype) \(count)")
      #expect(filled(bytes.count) { layout.join(planes.span.bytes, into: &$0) } == bytes)
    }
  }

  @Test(arguments: [DType.u8, .bf16, .f32, .f64]) func differencesAreFolded(dtype: DType) {
    let layout = BytePlanes(dtype)
    let mask = layout.width == 8 ? UInt64.max : 1 << (8 * layout.width) - 1
    var random = SplitMix64(seed: 4)
    for count in Self.counts {
      let base = (0..<count * layout.width).map { _ in UInt8.random(in: 0...255, using: &random) }
      // Some of them near the base's.
      let bytes = base.enumerated().map { place, byte in
        place % 3 == 0 ? byte &+ UInt8(truncatingIfNeeded: place % 5) &- 2 : byte
      }
      let found = filled(bytes.count) {
        layout.subtract(base.span.bytes, from: bytes.span.bytes, into: &$0)
      }
      let expected = zip(numbers(bytes, layout.width), numbers(base, layout.width)).map { x, b in
        let d = (x &- b) & mask
        // 0, -1, 1, -2, … are 0, 1, 2, 3, ….
        return d > mask >> 1 ? (mask - d) * 2 + 1 : d * 2
      }
      #expect(numbers(found, layout.width) == expected, "\(dtype) \(count)")
      #expect(
        filled(bytes.count) {
          layout.add(found.span.bytes, to: base.span.bytes, into: &$0)
        } == bytes)
    }
  }
}
