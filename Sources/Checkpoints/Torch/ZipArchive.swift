import Files
import JSON

/// A zip archive of stored entries, as `torch.save` writes it.
///
/// An archive can be read in two ways, by its directory and from entry to entry. Here both must
/// give the same: every local header agrees with the directory, and the entries follow one another
/// without a gap from the first byte to the directory, which ends the file.
struct ZipArchive: Sendable {
  /// A file in the archive.
  struct Entry: Sendable {
    let name: String
    /// Where its bytes lie in the archive.
    let byteRange: Range<Int>
  }

  /// The entries in the order in which they lie.
  let entries: [Entry]

  /// A directory's entry has some 70 bytes.
  static let maximumDirectoryByteCount = 32 << 20

  private static let endSignature: UInt32 = 0x0605_4B50
  private static let end64Signature: UInt32 = 0x0606_4B50
  private static let locator64Signature: UInt32 = 0x0706_4B50
  private static let directorySignature: UInt32 = 0x0201_4B50
  private static let localSignature: UInt32 = 0x0403_4B50
  private static let descriptorSignature: UInt32 = 0x0807_4B50
  private static let endByteCount = 22
  private static let locator64ByteCount = 20
  private static let end64ByteCount = 56
  private static let localByteCount = 30
  private static let directoryEntryByteCount = 46

  /// Reads an archive's directory and its local headers.
  ///
  /// - Throws: `damaged` where they do not agree, `unsupported` for compressed and encrypted
  ///   entries, archives with a comment or in parts; `io`.
  init(_ file: InputFile) throws(PeftoolError) {
    let directory = try Self.directory(of: file)
    var headers = try Self.headers(file, directory)
    headers.sort { $0.offset < $1.offset }
    var entries: [Entry] = []
    entries.reserveCapacity(headers.count)
    var names: Set<ExactName> = []
    var position = 0
    for header in headers {
      guard header.offset == position else {
        throw PeftoolError(
          .damaged,
          "the zip entry '\(header.name.printable)' begins at byte \(header.offset), "
            + "expected \(position)",
          offset: position)
      }
      guard names.insert(ExactName(header.name)).inserted else {
        throw PeftoolError(
          .damaged, "the zip entry '\(header.name.printable)' stands twice",
          offset: header.offset)
      }
      let entry = try Self.entry(header, in: file, before: directory.range.lowerBound)
      entries.append(entry.entry)
      position = entry.end
    }
    guard position == directory.range.lowerBound else {
      throw PeftoolError(
        .damaged,
        "the zip directory begins at byte \(directory.range.lowerBound), the entries end "
          + "at \(position)",
        offset: position)
    }
    self.entries = entries
  }

  /// What the directory says of an entry.
  private struct Header {
    let name: String
    let nameBytes: [UInt8]
    let flags: UInt16
    let checksum: UInt32
    let byteCount: Int
    let offset: Int
  }

  /// Finds the directory from the file's end, which is no comment's.
  private static func directory(
    of file: InputFile
  ) throws(PeftoolError) -> (range: Range<Int>, entryCount: Int) {
    let start = file.byteCount - endByteCount
    guard start >= 0 else {
      throw PeftoolError(.damaged, "a zip archive of \(file.byteCount) bytes, cut short")
    }
    let end = Fields(try file.bytes(start..<file.byteCount))
    guard end.u32(0) == endSignature, end.u16(20) == 0 else {
      throw PeftoolError(
        .damaged, "does not end with a zip directory: cut short, or bytes were added",
        offset: start)
    }
    var count = UInt64(end.u16(10))
    var byteCount = UInt64(end.u32(12))
    var offset = UInt64(end.u32(16))
    var disks = [UInt32(end.u16(4)), UInt32(end.u16(6))]
    var countHere = UInt64(end.u16(8))
    var limit = start
    let locatorStart = start - locator64ByteCount
    if locatorStart >= end64ByteCount {
      let locator = Fields(try file.bytes(locatorStart..<start))
      if locator.u32(0) == locator64Signature {
        let start64 = locatorStart - end64ByteCount
        let end64 = Fields(try file.bytes(start64..<locatorStart))
        guard locator.u64(8) == UInt64(start64), end64.u32(0) == end64Signature,
          end64.u64(4) == UInt64(end64ByteCount - 12), locator.u32(16) <= 1
        else {
          throw PeftoolError(
            .damaged, "the zip64 locator does not lead to the record before it",
            offset: locatorStart)
        }
        let wide = [end64.u64(24), end64.u64(32), end64.u64(40), end64.u64(48)]
        let narrow: [(UInt64, UInt64)] = [
          (countHere, 0xFFFF), (count, 0xFFFF), (byteCount, 0xFFFF_FFFF), (offset, 0xFFFF_FFFF),
        ]
        for (wide, (narrow, mark)) in zip(wide, narrow) where narrow != mark && narrow != wide {
          throw PeftoolError(
            .damaged, "the zip directory's end says \(narrow), its zip64 record \(wide)",
            offset: start)
        }
        (countHere, count, byteCount, offset) = (wide[0], wide[1], wide[2], wide[3])
        disks += [end64.u32(16), end64.u32(20), locator.u32(4)]
        limit = start64
      }
    }
    guard disks.allSatisfy({ $0 == 0 }), countHere == count else {
      throw PeftoolError(.unsupported, "a zip archive in several parts", offset: start)
    }
    guard byteCount <= UInt64(limit), offset == UInt64(limit) - byteCount else {
      throw PeftoolError(
        .damaged,
        "a zip directory of \(byteCount) bytes at byte \(offset), expected to end at "
          + "\(limit)",
        offset: start)
    }
    guard byteCount <= UInt64(maximumDirectoryByteCount) else {
      throw PeftoolError(
        .unsupported,
        "a zip directory of \(byteCount) bytes, expected at most "
          + "\(maximumDirectoryByteCount)",
        offset: Int(offset))
    }
    guard count <= byteCount / UInt64(directoryEntryByteCount) else {
      throw PeftoolError(
        .damaged, "a zip directory of \(byteCount) bytes for \(count) entries",
        offset: Int(offset))
    }
    return (Int(offset)..<limit, Int(count))
  }

  private static func headers(
    _ file: InputFile, _ directory: (range: Range<Int>, entryCount: Int)
  ) throws(PeftoolError) -> [Header] {
    let bytes = Fields(try file.bytes(directory.range))
    var headers: [Header] = []
    headers.reserveCapacity(directory.entryCount)
    var position = 0
    for _ in 0..<directory.entryCount {
      let start = directory.range.lowerBound + position
      guard bytes.count - position >= directoryEntryByteCount,
        bytes.u32(position) == directorySignature
      else { throw PeftoolError(.damaged, "no zip directory entry here", offset: start) }
      let nameStart = position + directoryEntryByteCount
      let extraStart = nameStart + Int(bytes.u16(position + 28))
      let commentStart = extraStart + Int(bytes.u16(position + 30))
      let end = commentStart + Int(bytes.u16(position + 32))
      guard end <= bytes.count else {
        throw PeftoolError(
          .damaged,
          "a zip directory entry of \(end - position) bytes, \(bytes.count - position) "
            + "are left",
          offset: start)
      }
      let nameBytes = Array(bytes.bytes[nameStart..<extraStart])
      guard let name = String(validating: nameBytes, as: UTF8.self), !name.isEmpty else {
        throw PeftoolError(.damaged, "a zip entry whose name is not UTF-8", offset: start)
      }
      let flags = bytes.u16(position + 8)
      try checkReadable(
        name, flags: flags, method: bytes.u16(position + 10), disk: bytes.u16(position + 34),
        offset: start)
      var wide = [
        UInt64(bytes.u32(position + 24)), UInt64(bytes.u32(position + 20)),
        UInt64(bytes.u32(position + 42)),
      ]
      try widen(&wide, by: Array(bytes.bytes[extraStart..<commentStart]), offset: start)
      guard wide[0] == wide[1], wide.allSatisfy({ $0 < UInt64(file.byteCount) }) else {
        throw PeftoolError(
          .damaged,
          "the zip entry '\(name.printable)' has \(wide[1]) bytes stored for \(wide[0]) "
            + "at byte \(wide[2]), the file has \(file.byteCount)",
          offset: start)
      }
      headers.append(
        Header(
          name: name, nameBytes: nameBytes, flags: flags, checksum: bytes.u32(position + 16),
          byteCount: Int(wide[0]), offset: Int(wide[2])))
      position = end
    }
    guard position == bytes.count else {
      throw PeftoolError(
        .damaged, "\(bytes.count - position) bytes in the zip directory after its last entry",
        offset: directory.range.lowerBound + position)
    }
    return headers
  }

  private static let hasDescriptor: UInt16 = 1 << 3
  private static let hasUTF8Name: UInt16 = 1 << 11

  private static func checkReadable(
    _ name: String, flags: UInt16, method: UInt16, disk: UInt16, offset: Int
  ) throws(PeftoolError) {
    func refuse(_ what: String) -> PeftoolError {
      PeftoolError(
        .unsupported, "the zip entry '\(name.printable)' is \(what), torch.save stores plainly",
        offset: offset)
    }
    guard flags & 1 == 0 else { throw refuse("encrypted") }
    guard method == 0 else { throw refuse("compressed (method \(method))") }
    guard flags & ~(hasDescriptor | hasUTF8Name) == 0 else {
      throw refuse("marked with flags 0x\(String(flags, radix: 16))")
    }
    guard disk == 0 else { throw refuse("in another part") }
  }

  /// Takes those numbers that are all ones from the zip64 field, in the order of the field.
  private static func widen(
    _ numbers: inout [UInt64], by extra: [UInt8], offset: Int
  ) throws(PeftoolError) {
    guard numbers.contains(0xFFFF_FFFF) else { return }
    let fields = Fields(extra)
    var position = 0
    while fields.count - position >= 4 {
      let end = position + 4 + Int(fields.u16(position + 2))
      guard end <= fields.count else { break }
      guard fields.u16(position) == 1 else {
        position = end
        continue
      }
      position += 4
      for place in numbers.indices where numbers[place] == 0xFFFF_FFFF {
        guard end - position >= 8 else { break }
        numbers[place] = fields.u64(position)
        position += 8
      }
      return
    }
    throw PeftoolError(.damaged, "a zip entry lacks its zip64 sizes", offset: offset)
  }

  /// Compares an entry's local header with the directory.
  ///
  /// - Returns: the entry, and where the next one begins.
  private static func entry(
    _ header: Header, in file: InputFile, before limit: Int
  ) throws(PeftoolError) -> (entry: Entry, end: Int) {
    func disagree(_ what: String) -> PeftoolError {
      PeftoolError(
        .damaged,
        "the zip directory and the local header disagree about "
          + "'\(header.name.printable)': \(what)",
        offset: header.offset)
    }
    guard limit - header.offset >= localByteCount else { throw disagree("it has no room") }
    let local = Fields(try file.bytes(header.offset..<header.offset + localByteCount))
    guard local.u32(0) == localSignature else { throw disagree("no local header is there") }
    let nameCount = Int(local.u16(26))
    let nameStart = header.offset + localByteCount
    let dataStart = nameStart + nameCount + Int(local.u16(28))
    guard dataStart <= limit, header.byteCount <= limit - dataStart else {
      throw disagree("its \(header.byteCount) bytes reach into the directory")
    }
    let more = try file.bytes(nameStart..<dataStart)
    let nameBytes = Array(more[..<nameCount])
    guard nameBytes == header.nameBytes else {
      let name = String(decoding: nameBytes, as: UTF8.self)
      throw disagree("the local name is '\(name.printable)'")
    }
    guard local.u16(6) == header.flags else { throw disagree("other flags") }
    guard local.u16(8) == 0 else { throw disagree("the local header has it compressed") }
    var sizes = [UInt64(local.u32(22)), UInt64(local.u32(18))]
    try widen(&sizes, by: Array(more[nameCount...]), offset: header.offset)
    let byteCount = UInt64(header.byteCount)
    let isLater = header.flags & hasDescriptor != 0
    let hasNone = isLater && sizes == [0, 0] && local.u32(14) == 0
    guard hasNone || sizes == [byteCount, byteCount] && local.u32(14) == header.checksum else {
      throw disagree("other sizes or another checksum")
    }
    let dataEnd = dataStart + header.byteCount
    let entry = Entry(name: header.name, byteRange: dataStart..<dataEnd)
    guard isLater else { return (entry, dataEnd) }
    // The descriptor has sizes of 4 bytes, or of 8 where the entry has a zip64 field.
    let descriptor = Fields(try file.bytes(dataEnd..<min(limit, dataEnd + 24)))
    if descriptor.count >= 16, descriptor.u32(0) == descriptorSignature,
      descriptor.u32(4) == header.checksum
    {
      if UInt64(descriptor.u32(8)) == byteCount, UInt64(descriptor.u32(12)) == byteCount,
        byteCount > 0 || descriptor.count < 24 || descriptor.u64(16) != 0
      {
        return (entry, dataEnd + 16)
      }
      if descriptor.count >= 24, descriptor.u64(8) == byteCount, descriptor.u64(16) == byteCount {
        return (entry, dataEnd + 24)
      }
    }
    throw disagree("another data descriptor")
  }
}

/// Little-endian numbers in an array whose length has been checked.
private struct Fields {
  let bytes: [UInt8]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var count: Int { bytes.count }

  private func number(_ offset: Int, _ count: Int) -> UInt64 {
    bytes.littleEndian(at: offset, count: count)
  }

  func u16(_ offset: Int) -> UInt16 { UInt16(number(offset, 2)) }
  func u32(_ offset: Int) -> UInt32 { UInt32(number(offset, 4)) }
  func u64(_ offset: Int) -> UInt64 { number(offset, 8) }
}
