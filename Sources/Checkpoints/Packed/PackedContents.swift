package import Files
import JSON
package import Tensors

/// What a packed file holds: files, the pieces that they are cut into, and the pieces' blocks.
///
/// The same for who writes and who reads, so that both count blocks alike.
package struct PackedContents: Sendable {
  /// The bytes of a block before it is packed; the last of a piece may have fewer.
  package static let blockByteCount = 1 << 20
  /// The longest header frame that is read: of a model of 2.7 TB.
  package static let maximumHeaderByteCount = 64 << 20
  /// The bytes of the header frame before its JSON text.
  static let prefixByteCount = 32

  /// A file that is packed.
  package struct Member: Sendable {
    /// Its name, without a folder.
    package let name: String
    /// Its size.
    package let byteCount: Int
    /// The first bytes of a safetensors file, its header with the length before it, which stand in
    /// the header frame as they are; empty for another file.
    package let beginning: [UInt8]
    /// What those say; nil for another file.
    package let header: SafetensorsHeader?
    /// Its pieces' places in the list of all.
    package let pieces: Range<Int>
  }

  /// A tensor, or all of a file that is no safetensors; never empty.
  package struct Piece: Sendable {
    /// The file's place in the list of members.
    package let member: Int
    /// The tensor; nil for another file.
    package let tensor: TensorInfo?
    /// Where its bytes lie in the file.
    package let range: Range<Int>
    /// The numbers of its blocks.
    package let blocks: Range<Int>

    /// Where the bytes of one of its blocks lie in the file.
    package func range(ofBlock block: Int) -> Range<Int> {
      let start = range.lowerBound + (block - blocks.lowerBound) * blockByteCount
      return start..<min(start + blockByteCount, range.upperBound)
    }
  }

  /// The files, in their order.
  package let members: [Member]
  /// The safetensors files among them, in the order of their `fileIndex`.
  package let tensorMembers: [Member]
  /// What they are cut into, in the order of the blocks.
  package let pieces: [Piece]
  /// The path of the base that blocks may be differences to, as the user gave it; nil without one.
  package let base: String?

  /// The number of blocks.
  package var blockCount: Int { pieces.last?.blocks.upperBound ?? 0 }

  /// Cuts files into pieces; each is a name, a size, and the beginning of a safetensors file.
  ///
  /// - Throws: `damaged` and `unsupported` where a name is none, stands twice or no file has
  ///   tensors; where a header does not fit its file; and where there are more blocks than a header
  ///   frame holds.
  package init(
    _ files: [(name: String, byteCount: Int, beginning: [UInt8])], base: String?
  ) throws(PeftoolError) {
    var cutting = Cutting()
    var names: Set<ExactName> = []
    var members: [Member] = []
    var fileIndex = 0
    for file in files {
      do throws(PeftoolError) {
        guard ShardIndex.isFileName(file.name), names.insert(ExactName(file.name)).inserted else {
          throw PeftoolError(
            .damaged, "a file's name is empty, has a folder or stands twice")
        }
        let first = cutting.pieces.count
        var header: SafetensorsHeader?
        if file.beginning.isEmpty {
          try cutting.append(members.count, nil, 0..<file.byteCount)
        } else {
          let found = try Self.header(file, fileIndex: fileIndex)
          for tensor in found.tensors {
            try cutting.append(members.count, tensor, tensor.byteRange)
          }
          header = found
          fileIndex += 1
        }
        members.append(
          Member(
            name: file.name, byteCount: file.byteCount, beginning: file.beginning,
            header: header, pieces: first..<cutting.pieces.count))
      } catch {
        throw PeftoolError(
          error.kind, "in it \(file.name.printable): \(error.reason)", offset: error.offset,
          tensor: error.tensor)
      }
    }
    self.members = members
    tensorMembers = members.filter { $0.header != nil }
    pieces = cutting.pieces
    self.base = base
    try checkTensors()
  }

  private static func header(
    _ file: (name: String, byteCount: Int, beginning: [UInt8]), fileIndex: Int
  ) throws(PeftoolError) -> SafetensorsHeader {
    let lengthByteCount = SafetensorsHeader.lengthByteCount
    let count = try SafetensorsHeader.byteCount(
      prefix: Array(file.beginning.prefix(lengthByteCount)), fileByteCount: file.byteCount)
    guard lengthByteCount + count == file.beginning.count else {
      throw PeftoolError(
        .damaged,
        "a header of \(count) bytes, \(file.beginning.count - lengthByteCount) are there")
    }
    return try SafetensorsHeader(
      text: Array(file.beginning.dropFirst(lengthByteCount)),
      dataByteCount: file.byteCount - file.beginning.count, fileIndex: fileIndex)
  }

  /// Checks that there are files of tensors, several only with an index, and no name in two.
  private func checkTensors() throws(PeftoolError) {
    guard !tensorMembers.isEmpty else {
      throw PeftoolError(.damaged, "has no safetensors file in it")
    }
    guard tensorMembers.count == 1 || index != nil else {
      throw PeftoolError(
        .damaged, "has \(tensorMembers.count) safetensors files in it, expected an index with them")
    }
    guard tensorMembers.count > 1 else { return }
    var names: Set<ExactName> = []
    for tensor in tensors {
      guard names.insert(ExactName(tensor.name)).inserted else {
        throw PeftoolError(.damaged, "stands in two of the files in it", tensor: tensor.name)
      }
    }
  }

  /// The index of shards: the file whose name says that it is one.
  package var index: Member? {
    members.first { $0.header == nil && $0.name.hasSuffix(".safetensors.index.json") }
  }

  /// The files beside the tensors, without the index.
  package var otherMembers: [Member] {
    let index = index?.name
    return members.filter { $0.header == nil && !$0.name.isExactly(index ?? "") }
  }

  /// The tensors of all files.
  package var tensors: [TensorInfo] { members.flatMap { $0.header?.tensors ?? [] } }

  /// The piece that a tensor is; nil where it is empty.
  package func piece(of tensor: TensorInfo) -> Piece? {
    guard !tensor.byteRange.isEmpty else { return nil }
    var places = tensorMembers[tensor.fileIndex].pieces
    // Within a file pieces are in the order of their bytes.
    while places.count > 1 {
      let middle = (places.lowerBound + places.upperBound) / 2
      places =
        pieces[middle].range.lowerBound <= tensor.byteRange.lowerBound
        ? middle..<places.upperBound : places.lowerBound..<middle
    }
    return pieces[places.lowerBound]
  }

  /// The piece that a block is a part of.
  package func piece(ofBlock block: Int) -> Piece {
    var places = pieces.indices
    while places.count > 1 {
      let middle = (places.lowerBound + places.upperBound) / 2
      places =
        pieces[middle].blocks.lowerBound <= block
        ? middle..<places.upperBound : places.lowerBound..<middle
    }
    return pieces[places.lowerBound]
  }
}

/// Pieces while they are counted.
private struct Cutting {
  var pieces: [PackedContents.Piece] = []
  private var blockCount = 0

  mutating func append(
    _ member: Int, _ tensor: TensorInfo?, _ range: Range<Int>
  ) throws(PeftoolError) {
    guard !range.isEmpty else { return }
    let count = (range.count - 1) / PackedContents.blockByteCount + 1
    let limit = PackedContents.maximumHeaderByteCount / PackedEntry.byteCount
    guard count <= limit - blockCount else {
      throw PeftoolError(
        .unsupported,
        "with it there are more than \(limit) blocks of \(PackedContents.blockByteCount) bytes",
        tensor: tensor?.name)
    }
    pieces.append(
      .init(
        member: member, tensor: tensor, range: range, blocks: blockCount..<blockCount + count))
    blockCount += count
  }
}
