import CZstd
import Files

/// zstd's compressor, with tables that it uses again for each frame.
@safe
struct Compressor: ~Copyable {
  // Made once and freed once.
  private let context: OpaquePointer

  init() throws(PeftoolError) {
    guard let made = unsafe ZSTD_createCCtx() else {
      throw PeftoolError(.io, "no memory for zstd")
    }
    unsafe context = made
  }

  deinit { unsafe ZSTD_freeCCtx(context) }

  /// The most that so many bytes can take as a frame.
  static func bound(_ byteCount: Int) -> Int { ZSTD_compressBound(byteCount) }

  /// Makes a frame with its checksum at the start of `output`; gives its size.
  ///
  /// - Throws: `io` where there is no memory for zstd's tables.
  func compress(
    _ bytes: RawSpan, _ search: BlockPacker.Search, into output: inout Block
  ) throws(PeftoolError) -> Int {
    var parameters = [(ZSTD_c_checksumFlag, 1)]
    switch search {
    case .level(let level): parameters.append((ZSTD_c_compressionLevel, level))
    case .frequencies:
      // The quickest search with the smallest table that there is, and the longest least match.
      parameters += [
        (ZSTD_c_compressionLevel, 1), (ZSTD_c_strategy, Int(ZSTD_fast.rawValue)),
        (ZSTD_c_hashLog, 6), (ZSTD_c_minMatch, 7),
      ]
    }
    unsafe ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters)
    for (parameter, value) in parameters {
      let result = unsafe ZSTD_CCtx_setParameter(context, parameter, Int32(value))
      precondition(ZSTD_isError(result) == 0, "a parameter that zstd knows")
    }
    output.reserve(Self.bound(bytes.byteCount))
    var span = output.mutableBytes(output.byteCount)
    // Both pointers live through the call, which keeps to their counts.
    let count = unsafe span.withUnsafeMutableBytes { output in
      unsafe bytes.withUnsafeBytes {
        unsafe ZSTD_compress2(
          context, output.baseAddress, output.count, $0.baseAddress, $0.count)
      }
    }
    guard ZSTD_isError(count) == 0 else {
      throw PeftoolError(.io, "cannot be compressed: \(errorName(count))")
    }
    return count
  }
}

/// zstd's decompressor.
///
/// It decodes a frame in one call, into memory of just the size that its contents may have; so it
/// needs no window, and nothing in a frame makes it take memory.
@safe
struct Decompressor: ~Copyable {
  // Made once and freed once.
  private let context: OpaquePointer

  init() throws(PeftoolError) {
    guard let made = unsafe ZSTD_createDCtx() else {
      throw PeftoolError(.io, "no memory for zstd")
    }
    unsafe context = made
  }

  deinit { unsafe ZSTD_freeDCtx(context) }

  /// Decodes one frame, whose contents are as long as the buffer.
  ///
  /// - Throws: `damaged` where it is no frame, has no checksum, its contents have another size or
  ///   not that checksum, or more follows it.
  func decompress(_ frame: RawSpan, into bytes: inout MutableRawSpan) throws(PeftoolError) {
    // libzstd takes frames without a checksum, and may take those of releases before 0.8, too.
    guard Self.hasChecksum(frame) else {
      throw PeftoolError(.damaged, "is no zstd frame with a checksum")
    }
    // Here and below the pointers live through the calls, which keep to their counts.
    let (size, length) = unsafe frame.withUnsafeBytes {
      unsafe (
        ZSTD_getFrameContentSize($0.baseAddress, $0.count),
        ZSTD_findFrameCompressedSize($0.baseAddress, $0.count)
      )
    }
    guard size == UInt64(bytes.byteCount), length == frame.byteCount else {
      throw PeftoolError(
        .damaged,
        "is no zstd frame of \(frame.byteCount) bytes with \(bytes.byteCount) packed in it")
    }
    let count = unsafe frame.withUnsafeBytes { frame in
      unsafe bytes.withUnsafeMutableBytes {
        unsafe ZSTD_decompressDCtx(
          context, $0.baseAddress, $0.count, frame.baseAddress, frame.count)
      }
    }
    guard count == bytes.byteCount else {
      throw PeftoolError(.damaged, "cannot be decompressed: \(errorName(count))")
    }
  }
}

extension Decompressor {
  /// Whether a frame begins as RFC 8878 has it, with the flag of a checksum in its descriptor.
  private static func hasChecksum(_ frame: RawSpan) -> Bool {
    guard frame.byteCount > 4 else { return false }
    // Any bit pattern is a UInt8.
    let bytes = (0..<5).map { unsafe frame.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
    return bytes.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) && bytes[4] & 4 != 0
  }
}

/// zstd's name of an error.
private func errorName(_ code: Int) -> String {
  // They are constants.
  unsafe String(cString: ZSTD_getErrorName(code))
}
