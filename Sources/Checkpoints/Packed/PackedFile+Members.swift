package import Files
package import JSON
import Tensors

// The files that lie beside the tensors.
extension PackedFile {
  /// The place of the `adapter_config.json` that makes the tensors an adapter's; of a file without
  /// others in it the one that lies beside it, if any.
  package func adapterConfigPath(or beside: String?) -> String? {
    let others = contents.otherMembers
    guard !others.isEmpty else { return beside }
    return others.contains { $0.name == Checkpoint.adapterConfigName }
      ? Folder.path(path, Checkpoint.adapterConfigName) : nil
  }

  /// Writes one of the files that lie beside the tensors.
  ///
  /// Memory: a block.
  /// - Throws: as `readBlock` and `OutputFile.write`.
  package func write(
    _ member: PackedContents.Member, to file: OutputFile
  ) throws(PeftoolError) {
    var memory = Block(byteCount: min(PackedContents.blockByteCount, member.byteCount))
    for piece in contents.pieces[member.pieces] {
      for block in piece.blocks {
        let range = piece.range(ofBlock: block)
        var bytes = memory.mutableBytes(range.count)
        try readBlock(block, of: piece, into: &bytes)
        try file.write(memory.bytes(range.count), at: range.lowerBound)
      }
    }
  }

  /// The bytes of one of the files that lie beside the tensors: of one with a cap.
  private func bytes(
    of member: PackedContents.Member, atMost limit: Int
  ) throws(PeftoolError) -> [UInt8] {
    guard member.byteCount <= limit else {
      throw PeftoolError(
        .unsupported, "\(member.byteCount) bytes of JSON, expected at most \(limit)")
    }
    var bytes: [UInt8] = []
    for piece in contents.pieces[member.pieces] {
      for block in piece.blocks {
        var part = [UInt8](repeating: 0, count: piece.range(ofBlock: block).count)
        var span = part.mutableSpan
        // Any bit pattern is a UInt8.
        var raw = unsafe span.mutableBytes
        try readBlock(block, of: piece, into: &raw)
        bytes += part
      }
    }
    return bytes
  }

  /// The index of the shards in it, read at each call; nil where there is none.
  ///
  /// What it says is not compared with the shards.
  /// - Throws: as `readBlock` and `ShardIndex.init(parsing:path:)`, with the path.
  package var index: ShardIndex? {
    get throws(PeftoolError) {
      guard let member = contents.index else { return nil }
      let place = Folder.path(path, member.name)
      do throws(PeftoolError) {
        return try ShardIndex(
          parsing: bytes(of: member, atMost: ShardIndex.maximumByteCount), path: place)
      } catch {
        throw error.at(path: place)
      }
    }
  }

  /// The index, compared with the shards.
  ///
  /// - Throws: as `index`, and as `ShardIndex.check`.
  func checkedIndex() throws(PeftoolError) -> ShardIndex? {
    guard let index = try index else { return nil }
    var shards: [ExactName: [TensorInfo]] = [:]
    for member in contents.tensorMembers {
      shards[ExactName(member.name)] = member.header?.tensors ?? []
    }
    var named: [(path: String, tensors: [TensorInfo])] = []
    for name in index.shardNames {
      let place = Folder.path(path, name)
      guard let tensors = shards.removeValue(forKey: ExactName(name)) else {
        throw PeftoolError(
          .different, "is not there; the index puts tensors into this shard", path: place)
      }
      named.append((place, tensors))
    }
    for member in contents.tensorMembers {
      guard let tensor = shards[ExactName(member.name)]?.first else { continue }
      throw PeftoolError(
        .different, "is in this shard, but not in the index", tensor: tensor.name,
        path: Folder.path(path, member.name))
    }
    try index.check(named)
    return index
  }

  /// The JSON file of that name beside the tensors; nil where there is none.
  ///
  /// - Throws: as `readBlock`, and `damaged` where it is no JSON, with the path.
  package func json(_ name: String) throws(PeftoolError) -> JSON? {
    guard let member = contents.otherMembers.first(where: { $0.name.isExactly(name) }) else {
      return nil
    }
    let limits = JSON.Limits.configuration
    let place = Folder.path(path, name)
    do throws(PeftoolError) {
      return try JSON(parsing: bytes(of: member, atMost: limits.byteCount), limits: limits)
    } catch {
      throw error.at(path: place)
    }
  }
}
