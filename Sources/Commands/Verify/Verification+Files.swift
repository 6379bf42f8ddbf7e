import Checkpoints
import Files
import JSON
import Reports
import Tensors

// Opening what can be opened.
extension Verification {
  mutating func openFile(_ path: String) throws(PeftoolError) -> SoundFiles {
    // What cannot be opened at all is no fault of its content.
    let input = try InputFile(opening: path)
    var source = SoundFiles(path: path)
    do throws(PeftoolError) {
      source.append(try openTensorFile(input))
      if let packed = source.packed { try compareIndex(of: packed) }
    } catch {
      faults.append(error)
    }
    return source
  }

  mutating func compareIndex(of packed: PackedFile) throws(PeftoolError) {
    guard let index = try packed.index else { return }
    checked.append("\(index.shardNames.count.text(of: "shard")) and their index")
    let names = packed.contents.tensorMembers.map(\.name)
    let known = Set(names.map(ExactName.init))
    for name in index.shardNames where !known.contains(ExactName(name)) {
      faults.append(
        PeftoolError(
          .different, "is not there; the index puts tensors into this shard",
          path: Folder.path(packed.path, name)))
    }
    compare(index, with: packed.tensors, in: names, of: packed.path)
  }

  mutating func openShards(_ path: String) throws(PeftoolError) -> SoundFiles {
    var source = SoundFiles(path: path)
    let folder = Folder.parent(of: path)
    let index: ShardIndex
    do throws(PeftoolError) {
      index = try ShardIndex(reading: InputFile(opening: path))
    } catch {
      guard error.kind != .io else { throw error }
      faults.append(error)
      // Without an index the shards may still be looked at, each for itself.
      for name in try Folder.names(in: folder) where name.hasSuffix(".safetensors") {
        openShard(Folder.path(folder, name), tensorCount: nil, into: &source)
      }
      return source
    }
    var tensorCounts = Array(repeating: 0, count: index.shardNames.count)
    for shard in index.shardByTensor.values { tensorCounts[shard] += 1 }
    for (name, count) in zip(index.shardNames, tensorCounts) {
      openShard(Folder.path(folder, name), tensorCount: count, into: &source)
    }
    checked.append("\(index.shardNames.count.text(of: "shard")) and their index")
    compare(
      index, with: source.tensors, in: source.files.map { Folder.name(of: $0.path) }, of: folder)
    return source
  }

  mutating func openGGUF(_ input: InputFile) -> SoundFiles {
    var source = SoundFiles(path: input.path)
    do throws(PeftoolError) {
      let model = try GGUFFile(input)
      source.append(model)
      if model.files.count > 1 { checked.append(model.files.count.text(of: "file")) }
      faults += GGUFExpectations(model).faults
    } catch {
      faults.append(error)
    }
    return source
  }

  mutating func openShard(
    _ path: String, tensorCount: Int?, into source: inout SoundFiles
  ) {
    do throws(PeftoolError) {
      let input: InputFile
      do throws(PeftoolError) {
        input = try InputFile(opening: path)
      } catch {
        let wanted = tensorCount.map { "; the index puts \($0.text(of: "tensor")) into it" } ?? ""
        throw PeftoolError(error.kind, error.reason + wanted, path: path)
      }
      source.append(try openTensorFile(input, fileIndex: source.files.count))
    } catch {
      faults.append(error)
    }
  }

  /// Compares the index with the tensors of the shards that could be opened, by their names.
  mutating func compare(
    _ index: ShardIndex, with tensors: [TensorInfo], in names: [String], of folder: String
  ) {
    var found: [ExactName: Int] = [:]
    for tensor in tensors {
      let name = ExactName(tensor.name)
      let shard = names[tensor.fileIndex]
      func add(_ kind: PeftoolError.Kind, _ reason: String) {
        faults.append(
          PeftoolError(kind, reason, tensor: tensor.name, path: Folder.path(folder, shard)))
      }
      if let other = found.updateValue(tensor.fileIndex, forKey: name) {
        add(.damaged, "stands in this shard and in \(names[other].printable)")
      } else if let expected = index.shardByTensor[name].map({ index.shardNames[$0] }) {
        if expected != shard {
          add(.different, "is in this shard, the index has it in \(expected.printable)")
        }
      } else {
        add(.different, "is in this shard, but not in the index")
      }
    }
    let known = Set(names.map(ExactName.init))
    let isKnown = index.shardNames.map { known.contains(ExactName($0)) }
    let missing = index.shardByTensor.filter { found[$0.key] == nil && isKnown[$0.value] }
    for (name, shard) in missing.sorted(by: { $0.key.string.precedesByBytes($1.key.string) }) {
      faults.append(
        PeftoolError(
          .different, "the index has it in this shard, which has no such tensor",
          tensor: name.string, path: Folder.path(folder, index.shardNames[shard])))
    }
  }
}

/// The files of a checkpoint that could be opened.
struct SoundFiles: TensorSource {
  let path: String
  /// The one file, where it is packed.
  private(set) var packed: PackedFile?
  /// Who reads the tensors: not their bytes as they lie, where they are packed.
  var reader: any TensorSource { if let packed { packed } else { self } }
  private(set) var files: [InputFile] = []
  private(set) var tensors: [TensorInfo] = []
  let metadata: [(key: String, value: String)] = []

  init(path: String) { self.path = path }

  mutating func append(_ file: any TensorSource) {
    packed = file as? PackedFile
    files += file.files
    tensors += file.tensors
  }
}
