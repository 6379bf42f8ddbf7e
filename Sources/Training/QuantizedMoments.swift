import CKernels
import Checkpoints
import Models
import Synchronization

/// The moments of a parameter in 8 bits, as bitsandbytes keeps them: codes, and a scale for each 256.
///
/// Memory: 2.03 bytes a number, where moments in f32 take 8.
final class QuantizedMoments: Sendable {
  /// Moments that one thread works on at a time.
  final class Piece: Sendable {
    /// Their places in the parameter.
    let elements: Range<Int>
    fileprivate let blockCount: Int
    fileprivate let codes: Mutex<Codes>

    fileprivate init(_ elements: Range<Int>) {
      self.elements = elements
      blockCount = (elements.count + QuantizedMoments.blockSize - 1) / QuantizedMoments.blockSize
      codes = Mutex(Codes(count: elements.count, blockCount: blockCount))
    }

    /// Changes numbers by their gradients, and the moments with them.
    func step(
      _ step: pef_adamw, _ values: inout MutableSpan<Float>, _ gradient: Span<Float>
    ) {
      precondition(values.count == elements.count && gradient.count == elements.count)
      var step = step
      codes.withLock { codes in
        // As many numbers as codes, and a scale for each block of them.
        unsafe codes.first.withUnsafeMutableBufferPointer { m in
          unsafe codes.firstScales.withUnsafeMutableBufferPointer { mScales in
            unsafe codes.second.withUnsafeMutableBufferPointer { v in
              unsafe codes.secondScales.withUnsafeMutableBufferPointer { vScales in
                unsafe values.withUnsafeMutableBufferPointer { p in
                  unsafe gradient.withUnsafeBufferPointer { g in
                    unsafe pef_adamw8_f32(
                      &step, p.baseAddress, m.baseAddress, mScales.baseAddress, v.baseAddress,
                      vScales.baseAddress, g.baseAddress, p.count)
                  }
                }
              }
            }
          }
        }
      }
    }
  }

  fileprivate struct Codes {
    var first, second: [UInt8]
    var firstScales, secondScales: [Float]

    init(count: Int, blockCount: Int) {
      first = Array(repeating: 0, count: count)
      second = first
      firstScales = Array(repeating: 0, count: blockCount)
      secondScales = firstScales
    }
  }

  static let blockSize = Int(PEF_MOMENT_BLOCK)
  /// bitsandbytes' `min_8bit_size`: moments of fewer numbers stay in f32.
  static let leastCount = 4096
  /// The numbers of a piece, whole blocks.
  private static let pieceCount = 1 << 16

  let pieces: [Piece]

  /// Moments of zeros for so many numbers.
  init(count: Int) { pieces = (0..<count).cut(into: Self.pieceCount).map(Piece.init) }

  /// The tensors by which a checkpoint has them, by bitsandbytes' names for them.
  func state(of name: String) -> [TensorFile.Item] {
    [
      codes(name + ".state1", \.first), scales(name + ".absmax1", \.firstScales),
      codes(name + ".state2", \.second), scales(name + ".absmax2", \.secondScales),
    ]
  }

  private func codes(
    _ name: String, _ part: WritableKeyPath<Codes, [UInt8]>
  ) -> TensorFile.Item {
    .init(
      name: name, shape: [pieces.last?.elements.upperBound ?? 0],
      .codes(get: { self.gathered(part) }, set: { self.spread($0, part) { $0.elements.count } }))
  }

  private func scales(
    _ name: String, _ part: WritableKeyPath<Codes, [Float]>
  ) -> TensorFile.Item {
    .init(
      name: name, shape: [pieces.reduce(0) { $0 + $1.blockCount }],
      .scales(get: { self.gathered(part) }, set: { self.spread($0, part, \.blockCount) }))
  }

  private func gathered<Element: Sendable>(_ part: WritableKeyPath<Codes, [Element]>) -> [Element] {
    var all: [Element] = []
    for piece in pieces {
      piece.codes.withLock { all.append(contentsOf: $0[keyPath: part]) }
    }
    return all
  }

  private func spread<Element: Sendable>(
    _ values: [Element], _ part: WritableKeyPath<Codes, [Element]>,
    _ count: (Piece) -> Int
  ) {
    var start = 0
    for piece in pieces {
      let own = Array(values[start..<start + count(piece)])
      piece.codes.withLock { $0[keyPath: part] = own }
      start += own.count
    }
  }

  /// The bytes of codes and scales of so many numbers.
  static func byteCount(of count: Int) -> Int {
    2 * count + 8 * ((count + blockSize - 1) / blockSize)
  }
}
