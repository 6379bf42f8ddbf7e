package import Files
package import JSON
package import Tensors

/// Several safetensors files that an index holds together (`model.safetensors.index.json`).
package struct ShardedSafetensors: TensorSource {
  /// The path of the index.
  package let path: String
  /// The index as it lies in the file.
  package let indexBytes: [UInt8]
  /// The index's `metadata`, null where there is none.
  package let indexMetadata: JSON
  /// The shards' file names, in order of their bytes, as `shards`.
  package let shardNames: [String]
  /// The open shards, in the order of `shardNames`.
  package let shards: [SafetensorsFile]
  package let tensors: [TensorInfo]

  package var files: [InputFile] { shards.map(\.file) }

  /// The pairs that stand in every shard with the same value.
  package var metadata: [(key: String, value: String)] {
    guard let first = shards.first else { return [] }
    return first.metadata.filter { pair in
      shards.dropFirst().allSatisfy { shard in
        shard.metadata.contains {
          $0.key.isExactly(pair.key) && $0.value.isExactly(pair.value)
        }
      }
    }
  }

  /// Reads an index and the headers of the shards that it names, which lie beside it.
  ///
  /// The index and the shards must tell the same: a tensor that the index puts elsewhere than it
  /// is, a tensor that the index leaves out, and a name in two shards are errors.
  /// - Throws: `io` (a missing shard is named), `damaged`, `unsupported`, each with its path.
  package init(index file: InputFile) throws(PeftoolError) {
    let index = try ShardIndex(reading: file)
    try self.init(index, shards: index.openShards())
  }

  /// Reads the headers of the shards that an index has opened, as `init(index:)`.
  init(_ index: ShardIndex, shards files: [InputFile]) throws(PeftoolError) {
    var shards: [SafetensorsFile] = []
    for (place, file) in files.enumerated() {
      if case .other(let what) = try FileSignature(of: file) {
        throw PeftoolError(.unsupported, "\(what), expected safetensors", path: file.path)
      }
      shards.append(try SafetensorsFile(file, fileIndex: place))
    }
    try index.check(shards)
    path = index.path
    self.shards = shards
    indexBytes = index.bytes
    indexMetadata = index.metadata
    shardNames = index.shardNames
    tensors = shards.flatMap(\.tensors)
  }
}
