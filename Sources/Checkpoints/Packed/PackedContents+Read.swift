package import Files
import JSON

extension PackedContents {
  /// Reads the header frame, which a file begins with: what is packed, the blocks' entries, and
  /// where the frame ends.
  ///
  /// Its checksum is compared before anything in it is looked at.
  /// - Throws: `io`, `damaged` and `unsupported`, with the offset.
  package static func read(
    _ file: InputFile
  ) throws(PeftoolError) -> (contents: PackedContents, entries: [PackedEntry], end: Int) {
    let prefix = try file.bytes(0..<min(prefixByteCount, file.byteCount))
    let end = try frameEnd(prefix, fileByteCount: file.byteCount)
    let found = try checksum(of: file, 24..<end)
    let expected = prefix.littleEndian(at: 16, count: 8)
    guard found == expected else {
      throw PeftoolError(
        .damaged,
        "the header's checksum is \(found.checksumText), expected \(expected.checksumText)",
        offset: 16)
    }
    let textByteCount = prefix.littleEndian(at: 24, count: 8)
    guard textByteCount <= UInt64(end - prefixByteCount) else {
      throw PeftoolError(
        .damaged, "a text of \(textByteCount) bytes, the header has \(end - prefixByteCount) left",
        offset: 24)
    }
    var position = prefixByteCount + Int(textByteCount)
    let limits = JSON.Limits.configuration
    guard textByteCount <= limits.byteCount else {
      throw PeftoolError(
        .unsupported, "a text of \(textByteCount) bytes, expected at most \(limits.byteCount)",
        offset: 24)
    }
    let text: JSON
    do throws(PeftoolError) {
      text = try JSON(parsing: file.bytes(prefixByteCount..<position))
    } catch {
      throw PeftoolError(
        error.kind, error.reason, offset: error.offset.map { prefixByteCount + $0 })
    }
    let listed = try files(text)
    var files: [(name: String, byteCount: Int, beginning: [UInt8])] = []
    for (name, byteCount, count) in listed {
      guard count <= end - position else {
        throw PeftoolError(
          .damaged,
          "in it \(name.printable): a header of \(count) bytes, \(end - position) are left",
          offset: position)
      }
      files.append((name, byteCount, try file.bytes(position..<position + count)))
      position += count
    }
    let contents = try PackedContents(files, base: base(text))
    let needed = contents.blockCount * PackedEntry.byteCount
    guard end - position == needed else {
      throw PeftoolError(
        .damaged,
        "\(end - position) bytes for \(contents.blockCount) blocks, expected \(needed)",
        offset: position)
    }
    return (contents, try contents.readEntries(file, position..<end), end)
  }

  private static func frameEnd(
    _ prefix: [UInt8], fileByteCount: Int
  ) throws(PeftoolError) -> Int {
    guard prefix.count == prefixByteCount else {
      throw PeftoolError(
        .damaged, "the file has \(fileByteCount) bytes, a packed file has 32 before its list")
    }
    guard prefix.starts(with: skippableMagic), Array(prefix[8..<16]) == magic else {
      throw PeftoolError(.damaged, "does not begin as a packed file", offset: 0)
    }
    let end = 8 + Int(prefix.littleEndian(at: 4, count: 4))
    guard (prefixByteCount...fileByteCount).contains(end) else {
      throw PeftoolError(
        .damaged, "a header of \(end) bytes, the file has \(fileByteCount)", offset: 4)
    }
    guard end <= maximumHeaderByteCount else {
      throw PeftoolError(
        .unsupported, "a header of \(end) bytes, expected at most \(maximumHeaderByteCount)",
        offset: 4)
    }
    return end
  }

  private static func checksum(
    of file: InputFile, _ range: Range<Int>
  ) throws(PeftoolError) -> UInt64 {
    var checksum = try Checksum()
    var block = Block(byteCount: min(1 << 20, range.count))
    for part in range.cut(into: 1 << 20) {
      var bytes = block.mutableBytes(part.count)
      try file.read(at: part.lowerBound, into: &bytes)
      checksum.add(block.bytes(part.count))
    }
    return checksum.value
  }

  /// The files that the text lists; `headerByteCount` is 0 where none is given.
  private static func files(
    _ text: JSON
  ) throws(PeftoolError) -> [(name: String, byteCount: Int, headerByteCount: Int)] {
    try refuseOtherKeys(text, ["files", "base"], in: "the list")
    var files: [(name: String, byteCount: Int, headerByteCount: Int)] = []
    for file in try text.array(at: "files") {
      try refuseOtherKeys(file, ["name", "bytes", "header"], in: "a file")
      let byteCount = try file.int(at: "bytes")
      let count = try file["header"]?.int(named: "header")
      guard byteCount >= 0, count ?? 1 > 0 else {
        throw PeftoolError(
          .damaged,
          "a file has \(byteCount) bytes and a header of \(count ?? 0), expected 0 or "
            + "more and 1 or more")
      }
      files.append((try file.string(at: "name"), byteCount, count ?? 0))
    }
    return files
  }

  private static func base(_ text: JSON) throws(PeftoolError) -> String? {
    guard let base = try text["base"]?.string(named: "base") else { return nil }
    guard !base.isEmpty, !base.utf8.contains(0) else {
      throw PeftoolError(.damaged, "base is no path")
    }
    return base
  }

  private static func refuseOtherKeys(
    _ json: JSON, _ keys: [String], in place: String
  ) throws(PeftoolError) {
    for member in try json.object(named: place) where !keys.contains(where: member.key.isExactly) {
      throw PeftoolError(
        .unsupported,
        "\(place) has the key \"\(member.key.printable)\", "
          + "which this version of peftool does not know")
    }
  }

  /// Reads the entries by parts: there may be millions.
  private func readEntries(
    _ file: InputFile, _ range: Range<Int>
  ) throws(PeftoolError) -> [PackedEntry] {
    var entries: [PackedEntry] = []
    entries.reserveCapacity(blockCount)
    for part in range.cut(into: PackedEntry.byteCount << 14) {
      let bytes = try file.bytes(part)
      for place in stride(from: 0, to: bytes.count, by: PackedEntry.byteCount) {
        do throws(PeftoolError) {
          let entry = try PackedEntry(bytes, at: place)
          guard entry.baseChecksum == nil || isDifferencePossible(entries.count) else {
            throw PeftoolError(
              .damaged, "a difference, expected a base and a block of a tensor for one")
          }
          entries.append(entry)
        } catch {
          throw PeftoolError(error.kind, error.reason, offset: part.lowerBound + place)
        }
      }
    }
    return entries
  }

  private func isDifferencePossible(_ block: Int) -> Bool {
    base != nil && piece(ofBlock: block).tensor != nil
  }
}
