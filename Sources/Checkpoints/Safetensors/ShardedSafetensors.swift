package import Files
import JSON
package import Tensors

/// Several safetensors files that an index holds together (`model.safetensors.index.json`).
package struct ShardedSafetensors: TensorSource {
  /// What the index says.
  package let index: ShardIndex
  /// The open shards, in the order of `shardNames`.
  package let shards: [SafetensorsFile]
  package let tensors: [TensorInfo]

  package var path: String { index.path }
  /// The shards' file names, in order of their bytes, as `shards`.
  package var shardNames: [String] { index.shardNames }
  package var files: [InputFile] { shards.map(\.file) }

  /// The pairs that stand in every shard with the same value.
  package var metadata: [(key: String, value: String)] {
    SafetensorsHeader.commonMetadata(shards.map(\.metadata))
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
    try index.check(shards.map { ($0.path, $0.tensors) })
    self.index = index
    self.shards = shards
    tensors = shards.flatMap(\.tensors)
  }
}

extension SafetensorsHeader {
  /// The pairs that stand in the metadata of every file with the same value.
  static func commonMetadata(
    _ files: [[(key: String, value: String)]]
  ) -> [(key: String, value: String)] {
    guard let first = files.first else { return [] }
    let others = files.dropFirst().map { file in
      Dictionary(file.map { (ExactName($0.key), $0.value) }, uniquingKeysWith: { $1 })
    }
    return first.filter { pair in
      others.allSatisfy { $0[ExactName(pair.key)]?.isExactly(pair.value) == true }
    }
  }
}
