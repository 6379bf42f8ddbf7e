package import Files
package import JSON
import Tensors

/// An index file: which tensor lies in which shard.
package struct ShardIndex: Sendable {
  /// The path of the index.
  package let path: String
  /// The index as it lies in the file.
  package let bytes: [UInt8]
  /// What `metadata` holds, null where there is none.
  package let metadata: JSON
  /// The file names in the map, each once, in order of their bytes.
  package let shardNames: [String]
  /// For each tensor's name the place of its shard in `shardNames`.
  package let shardByTensor: [ExactName: Int]

  /// The longest index that is read: as long as a header.
  static let maximumByteCount = SafetensorsHeader.maximumByteCount
  /// Twice the tensors of the largest models; so many are still read or refused within a second.
  private static let maximumValueCount = 300_000
  private static let maximumDepth = 64

  /// Reads an open index file.
  ///
  /// - Throws: `io`, `damaged`, `unsupported`, with the path.
  package init(reading file: InputFile) throws(PeftoolError) {
    do throws(PeftoolError) {
      guard file.byteCount <= Self.maximumByteCount else {
        throw PeftoolError(
          .unsupported,
          "\(file.byteCount) bytes of JSON, expected at most \(Self.maximumByteCount)")
      }
      try self.init(parsing: file.bytes(0..<file.byteCount), path: file.path)
    } catch {
      throw error.at(path: file.path)
    }
  }

  /// Reads an index's text.
  ///
  /// - Throws: `damaged` and `unsupported`.
  package init(parsing bytes: [UInt8], path: String) throws(PeftoolError) {
    var reader = try JSONReader(
      bytes, maximumDepth: Self.maximumDepth, maximumValueCount: Self.maximumValueCount)
    var keys: Set<ExactName> = []
    var metadata: Range<Int>?
    var map: ShardMap?
    try reader.readObject { (reader, key, offset) throws(PeftoolError) in
      guard keys.insert(ExactName(key)).inserted else {
        throw PeftoolError(.damaged, "\"\(key.printable)\" stands twice", offset: offset)
      }
      switch key {
      case "weight_map": map = try ShardMap(&reader)
      case "metadata":
        let start = reader.offset
        try reader.skip(isStrict: true)
        metadata = start..<reader.offset
      default: try reader.skip(isStrict: true)
      }
    }
    try reader.finish()
    guard let map else {
      throw PeftoolError(
        .damaged,
        "weight_map is missing, expected an object: no index of shards; a model is named by its "
          + "folder")
    }
    self.path = path
    self.bytes = bytes
    self.metadata =
      if let metadata { try JSON(parsing: Array(bytes[metadata])) } else { .null }
    (shardNames, shardByTensor) = map.sorted
  }

  /// Whether a name out of a file stays in its folder: one component, no `/`, no NUL, not `..`.
  package static func isFileName(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.utf8.contains(0)
      && !name.utf8.contains(UInt8(ascii: "/"))
  }

  /// Opens the shards, which lie beside the index, in the order of `shardNames`.
  ///
  /// - Throws: as `InputFile`, saying that the index names the shard.
  func openShards() throws(PeftoolError) -> [InputFile] {
    var shards: [InputFile] = []
    for name in shardNames {
      let path = Folder.path(Folder.parent(of: path), name)
      do throws(PeftoolError) {
        shards.append(try InputFile(opening: path))
      } catch {
        throw PeftoolError(
          error.kind, "\(error.reason); the index puts tensors into this shard", path: path)
      }
    }
    return shards
  }

  /// Compares the index with the shards that it names, in the order of `shardNames`.
  ///
  /// - Throws: `different` where a tensor is in one of them only, `damaged` where it is in two.
  func check(_ shards: [(path: String, tensors: [TensorInfo])]) throws(PeftoolError) {
    var found: [ExactName: Int] = [:]
    found.reserveCapacity(shardByTensor.count)
    for (place, shard) in shards.enumerated() {
      for tensor in shard.tensors {
        let name = ExactName(tensor.name)
        if let other = found.updateValue(place, forKey: name) {
          throw PeftoolError(
            .damaged, "stands in this shard and in \(shardNames[other].printable)",
            tensor: tensor.name, path: shard.path)
        }
        guard let expected = shardByTensor[name] else {
          throw PeftoolError(
            .different, "is in this shard, but not in the index",
            tensor: tensor.name, path: shard.path)
        }
        guard expected == place else {
          throw PeftoolError(
            .different, "is in this shard, the index has it in \(shardNames[expected].printable)",
            tensor: tensor.name, path: shard.path)
        }
      }
    }
    guard found.count < shardByTensor.count else { return }
    let missing = shardByTensor.filter { found[$0.key] == nil }
      .min { $0.key.string.precedesByBytes($1.key.string) }
    guard let missing else { return }
    throw PeftoolError(
      .different, "the index has it in this shard, which has no such tensor",
      tensor: missing.key.string, path: shards[missing.value].path)
  }
}

/// `weight_map` while it is read: shards in the order in which they appear.
private struct ShardMap {
  private let names: [ExactName]
  private let shardByTensor: [ExactName: Int]

  init(_ reader: inout JSONReader) throws(PeftoolError) {
    let kind = try reader.nextKind()
    guard kind == .object else {
      throw PeftoolError(
        .damaged, "weight_map is \(kind.rawValue), expected an object", offset: reader.offset)
    }
    // The closure may not touch self before it is whole.
    var map = (names: [ExactName](), places: [ExactName: Int](), shards: [ExactName: Int]())
    try reader.readObject { (reader, tensor, offset) throws(PeftoolError) in
      let kind = try reader.nextKind()
      guard kind == .string else {
        throw PeftoolError(
          .damaged, "weight_map gives \(kind.rawValue), expected a file name", offset: offset,
          tensor: tensor)
      }
      let shard = try reader.readString()
      guard ShardIndex.isFileName(shard) else {
        throw PeftoolError(
          .damaged, "weight_map gives \"\(shard.printable)\", expected a name without a folder",
          offset: offset, tensor: tensor)
      }
      let name = ExactName(shard)
      let place = map.places[name] ?? map.names.count
      if place == map.names.count {
        map.names.append(name)
        map.places[name] = place
      }
      guard map.shards.updateValue(place, forKey: ExactName(tensor)) == nil else {
        throw PeftoolError(
          .damaged, "stands twice in weight_map", offset: offset, tensor: tensor)
      }
    }
    names = map.names
    shardByTensor = map.shards
  }

  /// The shards' names in order of their bytes, and the tensors' places among them.
  var sorted: (names: [String], shardByTensor: [ExactName: Int]) {
    let order = names.indices.sorted { names[$0].string.precedesByBytes(names[$1].string) }
    var ranks = Array(repeating: 0, count: order.count)
    for (rank, place) in order.enumerated() { ranks[place] = rank }
    return (order.map { names[$0].string }, shardByTensor.mapValues { ranks[$0] })
  }
}
