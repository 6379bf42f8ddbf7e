import CKernels
package import Tensors

/// Group-wise asymmetric INT4: sixteen evenly spaced values for each group of consecutive elements.
///
/// w = scale · (code − zero), the zero point an integer or any number, or w = scale · code + offset.
/// Codes lie two a byte, the first in the low half; `CKernels.h` says how they are chosen.
package enum GroupInt4 {
  /// The sizes of groups that are written.
  package static let groupSizes = [32, 64, 128]

  /// What a group has besides its scale.
  package enum Shift: Equatable, Sendable {
    /// The code that stands for 0, from 0 to 15.
    case zeros
    /// The number that stands for 0, which need be no code.
    case realZeros
    /// What code 0 stands for.
    case offsets

    var kernel: pef_shift { self == .offsets ? PEF_OFFSETS : PEF_ZEROS }
  }

  /// Which zero points groups may have.
  package enum ZeroRule: Equatable, Sendable {
    /// 0 to 15.
    case any
    /// 1 to 15, for files in which 0 is not safe.
    case positive
    /// 8 alone: symmetric groups.
    case eight

    fileprivate var kernel: pef_zero_rule {
      switch self {
      case .any: PEF_ZERO_FROM_0
      case .positive: PEF_ZERO_FROM_1
      case .eight: PEF_ZERO_8
      }
    }
  }

  /// Where eight zero points lie in a word of 32 bits.
  package enum NibbleOrder: Equatable, Sendable {
    /// The first lowest.
    case inOrder
    /// As AWQ has them.
    case awq

    fileprivate var kernel: pef_nibble_order { self == .inOrder ? PEF_IN_ORDER : PEF_AWQ_ORDER }
  }

  /// The bytes that so many codes take, an even number.
  package static func byteCount(of count: Int) -> Int { count / 2 }

  /// The groups of a row, the last of which may be shorter.
  package static func groupCount(of columns: Int, groupSize: Int) -> Int {
    columns / groupSize + (columns % groupSize == 0 ? 0 : 1)
  }

  /// Codes `count` elements, whole groups, by rounding to nearest.
  ///
  /// Scales are rounded to `scaleDType` (F32, F16 or BF16) before codes are chosen. A scale is NaN or infinite where an element is, or its type is too small.
  /// Source: AutoGPTQ, `quantization/quantizer.py`; QA-LoRA (arXiv 2309.14717), equation 2.
  package static func quantize(
    _ x: Span<Float>, count: Int, groupSize: Int, zeros rule: ZeroRule, scaleDType: DType,
    into packed: inout MutableRawSpan, scales: inout MutableSpan<Float>,
    zeros: inout MutableSpan<Float>
  ) {
    let dtype: pef_dtype? =
      switch scaleDType {
      case .f32: PEF_F32
      case .f16: PEF_F16
      case .bf16: PEF_BF16
      default: nil
      }
    guard let dtype else { preconditionFailure("no scales in \(scaleDType)") }
    precondition(groupSizes.contains(groupSize) && count % groupSize == 0 && x.count >= count)
    precondition(packed.byteCount >= byteCount(of: count))
    precondition(min(scales.count, zeros.count) >= count / groupSize)
    // The pointers live through the call, and the preconditions hold the kernel to the counts.
    unsafe x.withUnsafeBufferPointer { x in
      unsafe packed.withUnsafeMutableBytes { packed in
        unsafe scales.withUnsafeMutableBufferPointer { scales in
          unsafe zeros.withUnsafeMutableBufferPointer {
            unsafe pef_quantize_groups4(
              x.baseAddress, count, groupSize, rule.kernel, dtype,
              packed.assumingMemoryBound(to: UInt8.self).baseAddress, scales.baseAddress,
              $0.baseAddress)
          }
        }
      }
    }
  }

  /// The values of a tile of a matrix of codes with `row` columns, each step rounded to f32.
  ///
  /// `scales` and `shifts` are (rows of the matrix, groups); `groupOfColumn` has the group of each
  /// column where that is not column / groupSize.
  package static func dequantizeTile(
    _ packed: RawSpan, scales: Span<Float>, shifts: Span<Float>, _ shift: Shift,
    groupSize: Int, groupOfColumn: [Int32]? = nil, row: Int, rows: Range<Int>,
    columns: Range<Int>, into tile: inout MutableSpan<Float>
  ) {
    guard !rows.isEmpty, !columns.isEmpty else { return }
    let groups = groupCount(of: row, groupSize: groupSize)
    precondition(rows.lowerBound >= 0 && columns.lowerBound >= 0 && columns.upperBound <= row)
    precondition(row % 2 == 0 && packed.byteCount >= byteCount(of: rows.upperBound * row))
    precondition(min(scales.count, shifts.count) >= rows.upperBound * groups)
    precondition(tile.count >= rows.count * columns.count)
    precondition(groupOfColumn.map { $0.count == row } ?? true, "a group a column")
    // As in quantize; who reads the groups of columns has checked that they are there.
    let groupOf = groupOfColumn ?? []
    unsafe packed.withUnsafeBytes { packed in
      unsafe scales.withUnsafeBufferPointer { scales in
        unsafe shifts.withUnsafeBufferPointer { shifts in
          unsafe groupOf.withUnsafeBufferPointer { groupOf in
            unsafe tile.withUnsafeMutableBufferPointer {
              unsafe pef_dequantize_groups4_tile(
                packed.assumingMemoryBound(to: UInt8.self).baseAddress, scales.baseAddress,
                shifts.baseAddress, shift.kernel, groupOf.isEmpty ? nil : groupOf.baseAddress,
                groupSize, row, rows.lowerBound, columns.lowerBound, rows.count, columns.count,
                $0.baseAddress)
            }
          }
        }
      }
    }
  }

  /// The words of zero points, a multiple of 8, as (zero − less) mod 16.
  package static func packNibbles(
    _ zeros: Span<Float>, _ order: NibbleOrder, less: Int, into words: inout MutableRawSpan
  ) {
    precondition(zeros.count % 8 == 0 && words.byteCount >= zeros.count / 2 && less >= 0)
    // As in quantize.
    unsafe zeros.withUnsafeBufferPointer { zeros in
      unsafe words.withUnsafeMutableBytes {
        unsafe pef_pack_nibbles(
          zeros.baseAddress, zeros.count, order.kernel, UInt32(less),
          $0.assumingMemoryBound(to: UInt32.self).baseAddress)
      }
    }
  }

  /// The zero points of words again.
  package static func unpackNibbles(
    _ words: RawSpan, _ order: NibbleOrder, less: Int, into zeros: inout MutableSpan<Float>
  ) {
    precondition(zeros.count % 8 == 0 && words.byteCount >= zeros.count / 2 && less >= 0)
    // As in quantize.
    unsafe words.withUnsafeBytes { words in
      unsafe zeros.withUnsafeMutableBufferPointer {
        unsafe pef_unpack_nibbles(
          words.assumingMemoryBound(to: UInt32.self).baseAddress, $0.count, order.kernel,
          UInt32(less), $0.baseAddress)
      }
    }
  }

  /// AWQ's words (columns, rows / 8) of codes (rows, columns).
  package static func packAWQ(
    _ packed: RawSpan, rows: Int, columns: Int, into words: inout MutableRawSpan
  ) {
    precondition(rows % 8 == 0 && columns % 8 == 0)
    precondition(min(packed.byteCount, words.byteCount) >= byteCount(of: rows * columns))
    // As in quantize.
    unsafe packed.withUnsafeBytes { packed in
      unsafe words.withUnsafeMutableBytes {
        unsafe pef_pack_awq(
          packed.assumingMemoryBound(to: UInt8.self).baseAddress, rows, columns,
          $0.assumingMemoryBound(to: UInt32.self).baseAddress)
      }
    }
  }

  /// Codes (rows, columns) of AWQ's words.
  package static func unpackAWQ(
    _ words: RawSpan, rows: Int, columns: Int, into packed: inout MutableRawSpan
  ) {
    precondition(rows % 8 == 0 && columns % 8 == 0)
    precondition(min(packed.byteCount, words.byteCount) >= byteCount(of: rows * columns))
    // As in quantize.
    unsafe words.withUnsafeBytes { words in
      unsafe packed.withUnsafeMutableBytes {
        unsafe pef_unpack_awq(
          words.assumingMemoryBound(to: UInt32.self).baseAddress, rows, columns,
          $0.assumingMemoryBound(to: UInt8.self).baseAddress)
      }
    }
  }

  /// Bytes of HQQ's of packed codes: byte k has code k in its high half, and in its low half the one
  /// that lies half of all codes further on.
  package static func packHalves(
    _ packed: RawSpan, _ range: Range<Int>, into bytes: inout MutableRawSpan
  ) {
    precondition(packed.byteCount % 2 == 0 && range.lowerBound >= 0)
    precondition(range.upperBound <= packed.byteCount && bytes.byteCount >= range.count)
    // As in quantize.
    unsafe packed.withUnsafeBytes { packed in
      unsafe bytes.withUnsafeMutableBytes {
        unsafe pef_pack_halves(
          packed.assumingMemoryBound(to: UInt8.self).baseAddress, packed.count * 2,
          range.lowerBound, range.count, $0.assumingMemoryBound(to: UInt8.self).baseAddress)
      }
    }
  }

  /// The codes of all of HQQ's bytes.
  package static func unpackHalves(_ bytes: RawSpan, into packed: inout MutableRawSpan) {
    precondition(bytes.byteCount % 2 == 0 && packed.byteCount >= bytes.byteCount)
    // As in quantize.
    unsafe bytes.withUnsafeBytes { bytes in
      unsafe packed.withUnsafeMutableBytes {
        unsafe pef_unpack_halves(
          bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count * 2,
          $0.assumingMemoryBound(to: UInt8.self).baseAddress)
      }
    }
  }
}
