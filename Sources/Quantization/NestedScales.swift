import CKernels

/// Double quantization: the scales of 4-bit blocks, less their mean, in 8 bits (QLoRA, section 3).
///
/// The bits are those of bitsandbytes 0.50.2 on an x86-64 with AVX2, where torch sums in one
/// thread; `CKernels.h` says how the codes are chosen.
package enum NestedScales {
  /// The scales that share a scale of their own.
  package static let blockSize = Int(PEF_NESTED_BLOCK)

  /// The values of codes 0 to 255 ("dynamic map").
  package static let levels: [Float] = {
    var levels = [Float](repeating: 0, count: 256)
    // The kernel writes 256 numbers.
    unsafe levels.withUnsafeMutableBufferPointer { unsafe pef_levels8($0.baseAddress) }
    return levels
  }()

  /// The mean that the scales of a tensor are taken less of; `absmax` is not empty.
  ///
  /// As torch sums it in f32 with one thread. With more threads torch cuts lists of 32,768 scales
  /// and longer into one part a thread, and the last bit may differ.
  package static func offset(of absmax: Span<Float>) -> Float {
    precondition(absmax.count > 0)
    // The kernel reads the span's elements.
    return unsafe absmax.withUnsafeBufferPointer {
      unsafe pef_mean($0.baseAddress, $0.count)
    }
  }

  /// Codes scales of which the offset has been taken off; only a tensor's last may end within a
  /// block.
  package static func quantize(
    _ scales: Span<Float>, count: Int, into codes: inout MutableRawSpan,
    absmax: inout MutableSpan<Float>
  ) {
    precondition(scales.count >= count && codes.byteCount >= count)
    precondition(absmax.count >= FourBitCode.blockCount(of: count, blockSize: blockSize))
    // The pointers live through the call, and the preconditions hold the kernel to the counts.
    unsafe scales.withUnsafeBufferPointer { scales in
      unsafe codes.withUnsafeMutableBytes { codes in
        unsafe absmax.withUnsafeMutableBufferPointer {
          unsafe pef_quantize8(
            scales.baseAddress, count, codes.assumingMemoryBound(to: UInt8.self).baseAddress,
            $0.baseAddress)
        }
      }
    }
  }

  /// A tensor's scales as they are read back from double quantization.
  package static func rounded(_ scales: [Float]) -> [Float] {
    guard !scales.isEmpty else { return [] }
    let offset = offset(of: scales.span)
    let centered = scales.map { $0 - offset }
    var codes = [UInt8](repeating: 0, count: scales.count)
    var absmax = [Float](
      repeating: 0, count: FourBitCode.blockCount(of: scales.count, blockSize: blockSize))
    var result = scales
    var codeBytes = codes.mutableSpan
    var own = absmax.mutableSpan
    // Any bytes may be read and written as bytes.
    var raw = unsafe codeBytes.mutableBytes
    quantize(centered.span, count: scales.count, into: &raw, absmax: &own)
    var values = result.mutableSpan
    let levels = levels
    dequantize(
      unsafe codes.span.bytes, levels: levels.span, absmax: absmax.span, offset: offset,
      count: scales.count, into: &values)
    return result
  }

  /// scale = level · absmax + offset, each step rounded to f32.
  package static func dequantize(
    _ codes: RawSpan, levels: Span<Float>, absmax: Span<Float>, offset: Float, count: Int,
    into scales: inout MutableSpan<Float>
  ) {
    precondition(levels.count == 256 && scales.count >= count && codes.byteCount >= count)
    precondition(absmax.count >= FourBitCode.blockCount(of: count, blockSize: blockSize))
    // As in quantize; a code is less than 256.
    unsafe codes.withUnsafeBytes { codes in
      unsafe levels.withUnsafeBufferPointer { levels in
        unsafe absmax.withUnsafeBufferPointer { absmax in
          unsafe scales.withUnsafeMutableBufferPointer {
            unsafe pef_dequantize8(
              levels.baseAddress, codes.assumingMemoryBound(to: UInt8.self).baseAddress,
              absmax.baseAddress, count, offset, $0.baseAddress)
          }
        }
      }
    }
  }
}
