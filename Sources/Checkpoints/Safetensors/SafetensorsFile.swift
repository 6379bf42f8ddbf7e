package import Files
package import Tensors

/// One safetensors file; only its header is in memory.
package struct SafetensorsFile: TensorSource {
  /// The open file.
  package let file: InputFile
  /// The header's text as it lies in the file, padding included, without the length before it.
  package let headerBytes: [UInt8]
  /// What the header says.
  package let header: SafetensorsHeader

  /// The file's path as the user gave it.
  package var path: String { file.path }
  /// The one file.
  package var files: [InputFile] { [file] }
  /// The pairs of `__metadata__`.
  package var metadata: [(key: String, value: String)] { header.metadata }
  /// The tensors in the order in which their bytes lie.
  package var tensors: [TensorInfo] { header.tensors }
  /// The places in `tensors` in the order in which the header names them.
  package var headerOrder: [Int] { header.headerOrder }
  /// The first bytes of the file: the header with its length before it.
  package var beginning: [UInt8] {
    UInt64(headerBytes.count).littleEndianBytes(SafetensorsHeader.lengthByteCount) + headerBytes
  }
  /// Where the tensors' bytes begin in the file.
  package var dataStart: Int { SafetensorsHeader.lengthByteCount + headerBytes.count }

  /// Opens a file and reads its header, and not a byte of its tensors.
  ///
  /// - Throws: `io`, `damaged` and `unsupported`, each with the path.
  package init(opening path: String) throws(PeftoolError) {
    try self.init(InputFile(opening: path))
  }

  /// Reads the header of an open file, which is the checkpoint's file number `fileIndex`.
  ///
  /// - Throws: `io`, `damaged` and `unsupported`, each with the path.
  package init(_ file: InputFile, fileIndex: Int = 0) throws(PeftoolError) {
    do throws(PeftoolError) {
      let lengthByteCount = SafetensorsHeader.lengthByteCount
      let count = try SafetensorsHeader.byteCount(
        prefix: file.bytes(0..<min(lengthByteCount, file.byteCount)),
        fileByteCount: file.byteCount)
      // A header that cannot be one is refused before its memory is taken.
      try Self.checkBeginning(file.bytes(lengthByteCount..<(lengthByteCount + min(count, 4096))))
      let text = try file.bytes(lengthByteCount..<(lengthByteCount + count))
      self.file = file
      headerBytes = text
      header = try SafetensorsHeader(
        text: text, dataByteCount: file.byteCount - lengthByteCount - count, fileIndex: fileIndex)
    } catch {
      throw error.at(path: file.path)
    }
  }

  private static func checkBeginning(_ bytes: [UInt8]) throws(PeftoolError) {
    let space: Set<UInt8> = [0x20, 0x09, 0x0A, 0x0D]
    guard let place = bytes.firstIndex(where: { !space.contains($0) }),
      bytes[place] != UInt8(ascii: "{")
    else { return }
    throw PeftoolError(
      .damaged, "the header begins with byte 0x\(String(bytes[place], radix: 16)), expected '{'",
      offset: SafetensorsHeader.lengthByteCount + place)
  }
}
