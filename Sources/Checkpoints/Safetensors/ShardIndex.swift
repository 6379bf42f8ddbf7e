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

  /// Reads an index file.
  ///
  /// - Throws: `io`, `damaged`, `unsupported`, with the path.
  package init(opening path: String) throws(PeftoolError) {
    let file = try InputFile(opening: path)
    do throws(PeftoolError) {
      guard file.byteCount <= ShardedSafetensors.limits.byteCount else {
        throw PeftoolError(
          .unsupported,
          "\(file.byteCount) bytes of JSON, "
            + "expected at most \(ShardedSafetensors.limits.byteCount)")
      }
      try self.init(parsing: file.bytes(0..<file.byteCount), path: path)
    } catch {
      throw error.at(path: path)
    }
  }

  /// Reads an index's text.
  ///
  /// - Throws: `damaged` and `unsupported`.
  package init(parsing bytes: [UInt8], path: String) throws(PeftoolError) {
    let json = try JSON(parsing: bytes, limits: ShardedSafetensors.limits)
    guard case .object = json else { throw json.unfit("the index", "an object") }
    let map = try json.object(at: "weight_map")
    var names: Set<ExactName> = []
    for member in map {
      guard case .string(let shard) = member.value else {
        throw PeftoolError(
          .damaged, "weight_map gives \(member.value.summary), expected a file name",
          tensor: member.key)
      }
      guard Self.isFileName(shard) else {
        throw PeftoolError(
          .damaged, "weight_map gives \"\(shard.printable)\", expected a name without a folder",
          tensor: member.key)
      }
      names.insert(ExactName(shard))
    }
    let shardNames = names.map(\.string).sorted { $0.precedesByBytes($1) }
    let places = Dictionary(
      uniqueKeysWithValues: shardNames.enumerated().map { (ExactName($0.element), $0.offset) })
    var shardByTensor: [ExactName: Int] = [:]
    shardByTensor.reserveCapacity(map.count)
    for member in map {
      guard case .string(let shard) = member.value else { continue }
      shardByTensor[ExactName(member.key)] = places[ExactName(shard)]
    }
    self.path = path
    self.bytes = bytes
    self.shardNames = shardNames
    self.shardByTensor = shardByTensor
    metadata = json["metadata"] ?? .null
  }

  /// Whether a name out of a file stays in its folder: one component, no `/`, no NUL, not `..`.
  package static func isFileName(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.utf8.contains(0)
      && !name.utf8.contains(UInt8(ascii: "/"))
  }

  /// Compares the index with the shards that it names.
  func check(_ shards: [SafetensorsFile]) throws(PeftoolError) {
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
