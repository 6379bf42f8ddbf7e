package import Files
package import Tensors

/// Several files of `torch.save` that an index holds together (`pytorch_model.bin.index.json`).
package struct ShardedTorch: TensorSource {
  /// What the index says.
  package let index: ShardIndex
  /// The open shards, in the order of `shardNames`.
  package let shards: [TorchFile]
  package let tensors: [TensorInfo]

  package var path: String { index.path }
  package var files: [InputFile] { shards.map(\.file) }
  package var metadata: [(key: String, value: String)] { [] }

  /// The shards' file names, in order of their bytes, as `shards`.
  package var shardNames: [String] { index.shardNames }

  /// Reads the pickles of the shards that an index has opened.
  ///
  /// The index and the shards must tell the same, as for safetensors.
  /// - Throws: `io` (a missing shard is named), `damaged`, `unsupported`, `different`, each with
  ///   its path.
  package init(_ index: ShardIndex, shards files: [InputFile]) throws(PeftoolError) {
    var shards: [TorchFile] = []
    for (place, file) in files.enumerated() {
      shards.append(try TorchFile(file, fileIndex: place))
    }
    try index.check(shards.map { ($0.path, $0.tensors) })
    self.index = index
    self.shards = shards
    tensors = shards.flatMap(\.tensors)
  }
}
