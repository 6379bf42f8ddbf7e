package import Files
import JSON
package import Tensors

/// Where the tensors of a checkpoint to be written go: files, their headers, and the index.
///
/// The sum of the tensors' bytes, not the tensors, is what a layout is made of; nothing is read.
package struct CheckpointLayout: Sendable {
  /// A tensor to be written.
  package struct Item: Sendable {
    /// Its name, any text.
    package let name: String
    /// The type of its elements.
    package let dtype: DType
    /// Its sizes, the slowest first.
    package let shape: [Int]
    /// The file of the base that it belongs with: its own, or that of a tensor near it.
    package let fileIndex: Int

    package init(name: String, dtype: DType, shape: [Int], fileIndex: Int) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
      self.fileIndex = fileIndex
    }

    /// The product of the shape.
    var elementCount: Int { shape.contains(0) ? 0 : shape.reduce(1, *) }

    var headerItem: SafetensorsHeader.Item { .init(name: name, dtype: dtype, shape: shape) }
  }

  /// A safetensors file to be written.
  package struct File: Sendable {
    /// Its name in the folder.
    package let name: String
    /// Its first bytes: the length, the JSON text and its padding.
    package let header: [UInt8]
    /// The tensors in the order in which their bytes lie: places in the list given, and ranges.
    package let tensors: [(item: Int, byteRange: Range<Int>)]
    /// Its size, header and all.
    package let byteCount: Int
  }

  /// The files, in the order of their names.
  package let files: [File]
  /// The index's file name and text; nil for a single file.
  package let index: (name: String, text: [UInt8])?

  /// The bytes of all files together, without the index.
  package var byteCount: Int { files.reduce(0) { $0 + $1.byteCount } }

  /// The files of a base once more, with their names, order and metadata.
  ///
  /// Where a file's tensors keep names, dtypes and shapes it keeps its header byte for byte, and
  /// the index likewise. Files of another format than safetensors get the names that safetensors
  /// would have, and the reference library's order; so do those of a view. The items are in the
  /// order of the base, added ones behind their anchors.
  /// - Throws: as `SafetensorsHeader.encode`.
  package init(keeping base: Checkpoint, _ items: [Item]) throws(PeftoolError) {
    let sources = base.isView ? [] : base.safetensorsFiles
    guard !sources.isEmpty else {
      (files, index) = try Self.translation(of: base, items)
      return
    }
    var files: [File] = []
    var isSame = true
    for (source, places) in zip(sources, Self.places(of: items, inFiles: sources.count)) {
      let tensors = source.header.tensors
      let isFileSame =
        places.count == tensors.count
        && zip(places, tensors).allSatisfy { place, tensor in
          let item = items[place]
          return item.name.isExactly(tensor.name) && item.dtype == tensor.dtype
            && item.shape == tensor.shape
        }
      if isFileSame {
        files.append(
          File(
            name: source.name, header: source.beginning,
            tensors: zip(places, tensors).map { ($0, $1.byteRange) },
            byteCount: source.byteCount))
      } else {
        files.append(
          try File(
            source.name, items, places, order: .given,
            metadata: source.header.hasMetadata ? source.header.metadata : nil))
        isSame = false
      }
    }
    self.files = files
    index = try base.safetensorsIndex.map { index in
      (
        Folder.name(of: index.path),
        isSame ? index.bytes : Self.indexText(index.metadata, items, files)
      )
    }
  }

  /// The places of each file's items in the list.
  private static func places(of items: [Item], inFiles fileCount: Int) -> [[Int]] {
    var places = [[Int]](repeating: [], count: fileCount)
    for (place, item) in items.enumerated() { places[item.fileIndex].append(place) }
    return places
  }

  /// A safetensors file for each file of a base that has none of these tensors in safetensors.
  private static func translation(
    of base: Checkpoint, _ items: [Item]
  ) throws(PeftoolError) -> ([File], (name: String, text: [UInt8])?) {
    let kept = base.safetensorsFiles.map(\.name)
    let names =
      kept.isEmpty
      ? base.shardedTorch.map { safetensorsNames($0.shardNames) } ?? [base.newFileName] : kept
    var files: [File] = []
    for (name, places) in zip(names, Self.places(of: items, inFiles: names.count)) {
      files.append(
        try File(name, items, places, order: .reference, metadata: base.writtenMetadata))
    }
    let index = try base.indexMetadata.map { metadata in
      (ShardPlan.indexName, indexText(metadata, items, files))
    }
    return (files, index)
  }

  /// `pytorch_model-00001-of-00002.bin` as `model-00001-of-00002.safetensors`, each name once.
  static func safetensorsNames(_ names: [String]) -> [String] {
    let stems = names.map { name in
      let stem =
        [".bin", ".pt", ".pth"].first(where: name.hasSuffix)
        .map { String(name.dropLast($0.count)) } ?? name
      return stem.hasPrefix("pytorch_model") ? String(stem.dropFirst("pytorch_".count)) : stem
    }
    let isUnique = Set(stems.map(ExactName.init)).count == stems.count
    return (isUnique ? stems : names).map { "\($0).safetensors" }
  }

  /// One file, in the reference library's order, with the metadata that all of the base's have.
  ///
  /// - Throws: as `SafetensorsHeader.encode`.
  package init(single base: Checkpoint, _ items: [Item]) throws(PeftoolError) {
    files = [
      try File(
        base.newFileName, items, Array(items.indices), order: .reference,
        metadata: base.writtenMetadata)
    ]
    index = nil
  }

  /// New shards of at most so many bytes, as transformers spreads them.
  ///
  /// - Throws: as `SafetensorsHeader.encode`.
  package init(
    sharding base: Checkpoint, _ items: [Item], maximumByteCount: Int
  ) throws(PeftoolError) {
    try self.init(
      spreading: items, maximumByteCount: maximumByteCount, metadata: base.writtenMetadata,
      parameterCount: try base.indexMetadata?["total_parameters"].map { _ in
        items.reduce(0) { $0 + $1.elementCount }
      })
  }

  /// A model as transformers saves it: shards of at most so many bytes, with the metadata
  /// `{"format": "pt"}`; the items are in the order in which it fills shards.
  ///
  /// - Throws: as `SafetensorsHeader.encode`.
  package init(
    saving items: [Item], maximumByteCount: Int, parameterCount: Int
  ) throws(PeftoolError) {
    try self.init(
      spreading: items, maximumByteCount: maximumByteCount, metadata: [("format", "pt")],
      parameterCount: parameterCount)
  }

  private init(
    spreading items: [Item], maximumByteCount: Int, metadata: [(key: String, value: String)]?,
    parameterCount: Int?
  ) throws(PeftoolError) {
    var byteCounts: [Int] = []
    for item in items {
      byteCounts.append(try TensorInfo.byteCount(dtype: item.dtype, shape: item.shape))
    }
    let plan = ShardPlan(byteCounts: byteCounts, maximumByteCount: maximumByteCount)
    var files: [File] = []
    for (name, places) in zip(plan.fileNames, plan.shards) {
      files.append(try File(name, items, places, order: .reference, metadata: metadata))
    }
    self.files = files
    let text = plan.indexText(names: items.map(\.name), totalParameters: parameterCount)
    index = files.count > 1 ? (ShardPlan.indexName, Array(text.utf8)) : nil
  }

  /// An index with metadata like the base's, for other tensors.
  private static func indexText(
    _ base: JSON, _ items: [Item], _ files: [File]
  ) -> [UInt8] {
    var metadata: [JSON.Member] = []
    if case .object(let members) = base { metadata = members }
    let sizes = [
      "total_size": files.reduce(0) { $0 + $1.byteCount - $1.header.count },
      "total_parameters": items.reduce(0) { $0 + $1.elementCount },
    ]
    metadata = metadata.map { member in
      sizes[member.key].map { JSON.Member(member.key, .number($0)) } ?? member
    }
    let map = files.flatMap { file in
      file.tensors.map { JSON.Member(items[$0.item].name, .string(file.name)) }
    }
    return Array(ShardPlan.indexText(metadata: .object(metadata), weightMap: map).utf8)
  }
}

extension CheckpointLayout.File {
  fileprivate init(
    _ name: String, _ items: [CheckpointLayout.Item], _ places: [Int],
    order: SafetensorsHeader.Order, metadata: [(key: String, value: String)]?
  ) throws(PeftoolError) {
    let encoded = try SafetensorsHeader.encode(
      places.map { items[$0].headerItem }, metadata: metadata, order: order)
    self.name = name
    header = encoded.bytes
    tensors = encoded.fileOrder.map { (places[$0], encoded.byteRanges[$0]) }
    byteCount = encoded.fileByteCount
  }
}

extension Checkpoint {
  /// The safetensors files, which a packed file holds, too; none of another format.
  fileprivate var safetensorsFiles: [SafetensorsPart] {
    if let packed { return packed.contents.tensorMembers.compactMap(SafetensorsPart.init) }
    let files = sharded?.shards ?? singleFile.map { [$0] } ?? []
    let names = sharded?.shardNames ?? [singleFileName]
    return zip(names, files).map(SafetensorsPart.init)
  }

  /// The index of the safetensors files; nil for a single one.
  fileprivate var safetensorsIndex: ShardIndex? {
    get throws(PeftoolError) {
      if let packed { try packed.checkedIndex() } else { sharded?.index }
    }
  }

  /// The `__metadata__` of what is written anew; nil for none.
  fileprivate var writtenMetadata: [(key: String, value: String)]? {
    let files = safetensorsFiles
    guard !files.isEmpty else { return [("format", "pt")] }
    let metadata = source.metadata
    let isWritten = kind == .file ? files[0].header.hasMetadata : !metadata.isEmpty
    return isWritten ? metadata : nil
  }

  /// The `metadata` of the base's index.
  fileprivate var indexMetadata: JSON? {
    get throws(PeftoolError) {
      try safetensorsIndex?.metadata ?? shardedTorch?.index.metadata
    }
  }

  /// The name that the only file gets in a folder.
  fileprivate var singleFileName: String {
    directory == nil ? newFileName : Folder.name(of: source.path)
  }

  /// The name that the libraries of the field look for.
  fileprivate var newFileName: String {
    guard isAdapter else { return ShardPlan.singleName }
    let isMLX = Folder.name(of: source.path).isExactly(Checkpoint.mlxAdapterName)
    return isMLX ? Checkpoint.mlxAdapterName : Checkpoint.adapterName
  }
}

/// A safetensors file that a layout may keep, wherever it lies.
private struct SafetensorsPart {
  let name: String
  let header: SafetensorsHeader
  /// The first bytes: the length, the JSON text and its padding.
  let beginning: [UInt8]
  let byteCount: Int

  init(_ name: String, _ file: SafetensorsFile) {
    self.name = name
    header = file.header
    beginning = file.beginning
    byteCount = file.file.byteCount
  }

  init?(_ member: PackedContents.Member) {
    guard let header = member.header else { return nil }
    name = member.name
    self.header = header
    beginning = member.beginning
    byteCount = member.byteCount
  }
}
