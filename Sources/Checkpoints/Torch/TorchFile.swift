package import Files
import JSON
package import Tensors

/// A file of `torch.save`: a zip archive, or the stream of versions before 1.6.
///
/// Only the pickle is in memory, as descriptions of tensors; nothing in it is run.
/// `Formats/torch.md` has the rules one by one.
package struct TorchFile: TensorSource {
  /// How the file is built.
  package enum Container: Sendable {
    /// A zip archive with a pickle and a file a storage.
    case zip
    /// Pickles, one behind the other, and then the storages.
    case stream
  }

  /// The open file.
  package let file: InputFile
  /// How it is built.
  package let container: Container
  package let tensors: [TensorInfo]
  /// Strings, numbers and booleans that lie among the tensors, as text.
  package let metadata: [(key: String, value: String)]

  /// The file's path as the user gave it.
  package var path: String { file.path }
  /// The one file.
  package var files: [InputFile] { [file] }

  /// What all tensors together may take, as a multiple of the file's size.
  ///
  /// Tensors share storages, and one of stride 0 repeats its elements; a small file that asks for
  /// an immense output is refused.
  package static let maximumExpansion = 8
  /// What they may take in any case.
  package static let freeByteCount = 16 << 20

  /// Opens a file and reads its pickle, and not a byte of its tensors.
  ///
  /// - Throws: `io`, `damaged` and `unsupported`, each with the path.
  package init(opening path: String) throws(PeftoolError) {
    try self.init(InputFile(opening: path))
  }

  /// Reads the pickle of an open file, which is the checkpoint's file number `fileIndex`.
  ///
  /// - Throws: `io`, `damaged` and `unsupported`, each with the path.
  package init(_ file: InputFile, fileIndex: Int = 0) throws(PeftoolError) {
    do throws(PeftoolError) {
      let isZip = try file.bytes(0..<min(2, file.byteCount)) == Array("PK".utf8)
      let object: PickledObject
      let ranges: [Range<Int>]
      if isZip {
        (object, ranges) = try Self.readZip(file)
      } else {
        (object, ranges) = try TorchStream.read(file)
      }
      let dictionary = try StateDictionary(object)
      var tensors: [TensorInfo] = []
      tensors.reserveCapacity(dictionary.entries.count)
      var total = 0
      let limit = file.byteCount.multipliedReportingOverflow(by: Self.maximumExpansion)
      for entry in dictionary.entries {
        let tensor = object.heap.tensors[entry.tensor]
        let info = TensorInfo(entry.name, tensor, at: ranges[tensor.storage], fileIndex)
        let (sum, overflow) = total.addingReportingOverflow(info.byteCount)
        guard !overflow, limit.overflow || sum - Self.freeByteCount <= limit.partialValue else {
          throw PeftoolError(
            .unsupported,
            "with it the tensors take more than \(Self.maximumExpansion) times the file's "
              + "\(file.byteCount) bytes: storages are shared, or strides are 0",
            tensor: entry.name)
        }
        total = sum
        tensors.append(info)
      }
      self.file = file
      container = isZip ? .zip : .stream
      self.tensors = tensors
      metadata = dictionary.metadata
    } catch {
      throw error.at(path: file.path)
    }
  }

  private static func readZip(
    _ file: InputFile
  ) throws(PeftoolError) -> (PickledObject, [Range<Int>]) {
    let archive = try ZipArchive(file)
    var places: [ExactName: Range<Int>] = [:]
    for entry in archive.entries { places[ExactName(entry.name)] = entry.byteRange }
    guard let first = archive.entries.first,
      let slash = first.name.utf8.firstIndex(of: UInt8(ascii: "/"))
    else {
      throw PeftoolError(.unsupported, "is a zip archive, but not one of torch.save")
    }
    let folder = String(first.name[..<slash])
    if let stray = archive.entries.first(where: { !$0.name.utf8.starts(with: "\(folder)/".utf8) }) {
      throw PeftoolError(
        .damaged, "the zip entry '\(stray.name.printable)' is not in '\(folder.printable)'")
    }
    guard let pickle = places[ExactName("\(folder)/data.pkl")] else {
      throw PeftoolError(.unsupported, "is a zip archive without \(folder.printable)/data.pkl")
    }
    guard places[ExactName("\(folder)/constants.pkl")] == nil else {
      throw PeftoolError(
        .unsupported, "is a TorchScript archive, which holds code; save its state_dict() instead")
    }
    if let order = places[ExactName("\(folder)/byteorder")] {
      let text = try file.bytes(order.prefix(16))
      guard text == Array("little".utf8) else {
        throw PeftoolError(
          .unsupported,
          "byteorder is '\(String(decoding: text, as: UTF8.self).printable)', "
            + "expected 'little'")
      }
    }
    var bytes = PickleBytes(file, pickle)
    let object = try PickleInterpreter.read(&bytes, storages: .zip)
    guard bytes.remaining == 0 else {
      throw PeftoolError(
        .damaged, "\(bytes.remaining) bytes after the pickle's end", offset: bytes.position)
    }
    var ranges: [Range<Int>] = []
    for storage in object.heap.storages {
      guard ShardIndex.isFileName(storage.key),
        let range = places[ExactName("\(folder)/data/\(storage.key)")]
      else {
        throw PeftoolError(
          .damaged, "the pickle names storage '\(storage.key.printable)', which is not in the file")
      }
      // torch counts whole elements, and writes all bytes.
      guard range.count - storage.byteCount >= 0,
        range.count - storage.byteCount < storage.elementByteCount
      else {
        throw PeftoolError(
          .damaged,
          "storage '\(storage.key.printable)' has \(range.count) bytes, the pickle gives "
            + "it \(storage.byteCount)",
          offset: range.lowerBound)
      }
      ranges.append(range)
    }
    return (object, ranges)
  }
}

extension TensorInfo {
  /// A tensor of torch's under a name, in a storage that lies at a range of the file.
  fileprivate init(_ name: String, _ tensor: TorchTensor, at storage: Range<Int>, _ fileIndex: Int)
  {
    let (start, view) = (storage.lowerBound, tensor.view)
    self.init(
      name: name, dtype: tensor.dtype, shape: view.shape,
      byteRange: start + view.byteRange.lowerBound..<start + view.byteRange.upperBound,
      fileIndex: fileIndex, strides: view.isContiguous ? nil : view.strides)
  }
}
