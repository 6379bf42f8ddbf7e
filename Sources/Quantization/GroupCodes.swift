import CKernels
package import Files
import Tensors

/// A weight (outputs, inputs) in 4 bits by groups of inputs, in memory, whatever file it was in.
///
/// An adapter whose change of a row is one number a group, as QA-LoRA's, is added to `offsets`: of
/// zero points they are made by −scale · zero.
package struct GroupCodes: Sendable {
  /// The rows.
  package let outputs: Int
  /// The columns.
  package let inputs: Int
  /// The inputs that share a scale.
  package let groupSize: Int
  /// The codes row by row, two a byte, the first in the low half.
  package let codes: Bytes
  /// The scales (outputs, groups).
  package let scales: [Float]
  /// The zero points or offsets (outputs, groups).
  package let shifts: [Float]
  /// Which of the two they are.
  package let shift: GroupInt4.Shift
  /// The group of each input, where that is not input / groupSize.
  package let groupOfInput: [Int32]?

  /// Puts together what has been read.
  package init(
    outputs: Int, inputs: Int, groupSize: Int, codes: Bytes, scales: [Float], shifts: [Float],
    _ shift: GroupInt4.Shift, groupOfInput: [Int32]? = nil
  ) {
    self.outputs = outputs
    self.inputs = inputs
    self.groupSize = groupSize
    self.codes = codes
    self.scales = scales
    self.shifts = shifts
    self.shift = shift
    self.groupOfInput = groupOfInput
  }

  /// The groups of a row.
  package var groupCount: Int { GroupInt4.groupCount(of: inputs, groupSize: groupSize) }

  /// The bytes that it takes.
  package var byteCount: Int {
    codes.count + 4 * (scales.count + shifts.count + (groupOfInput?.count ?? 0))
  }

  /// The values of some columns of some rows, without gaps, each step rounded to f32.
  package func dequantize(
    rows: Range<Int>, columns: Range<Int>, into tile: inout MutableSpan<Float>
  ) {
    GroupInt4.dequantizeTile(
      codes.span, scales: scales.span, shifts: shifts.span, shift, groupSize: groupSize,
      groupOfColumn: groupOfInput, row: inputs, rows: rows, columns: columns, into: &tile)
  }

  /// Writes some rows as blocks of Q4_1, which hold scales and offsets rounded to F16.
  ///
  /// Groups are whole, of a multiple of 32 inputs, and in their order.
  package func writeQ4v1(rows: Range<Int>, into blocks: inout MutableRawSpan) {
    precondition(groupSize % 32 == 0 && inputs % groupSize == 0 && groupOfInput == nil)
    precondition(rows.lowerBound >= 0 && rows.upperBound <= outputs, "rows that there are")
    let count = rows.count * inputs
    precondition(blocks.byteCount >= DType.q4v1.byteCount(of: count))
    let first = rows.lowerBound * groupCount
    let bytes = codes.span.extracting(rows.lowerBound * inputs / 2..<rows.upperBound * inputs / 2)
    // The pointers live through the call, which reads whole groups of the rows.
    unsafe bytes.withUnsafeBytes { bytes in
      unsafe scales.withUnsafeBufferPointer { scales in
        unsafe shifts.withUnsafeBufferPointer { shifts in
          unsafe blocks.withUnsafeMutableBytes {
            unsafe pef_pack_q4_1(
              bytes.assumingMemoryBound(to: UInt8.self).baseAddress,
              scales.baseAddress.map { unsafe $0 + first },
              shifts.baseAddress.map { unsafe $0 + first },
              shift.kernel, groupSize, count, $0.baseAddress)
          }
        }
      }
    }
  }
}
