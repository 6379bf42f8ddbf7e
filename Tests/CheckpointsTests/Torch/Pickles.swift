import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// Little-endian bytes of a number.
func littleEndian(_ number: UInt64, _ count: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }
}

/// A pickle by its opcodes, in the notation of Python's `pickletools`.
enum Op {
  static let mark: [UInt8] = Array("(".utf8)
  static let tuple: [UInt8] = Array("t".utf8)
  static let emptyTuple: [UInt8] = Array(")".utf8)
  static let emptyDict: [UInt8] = Array("}".utf8)
  static let emptyList: [UInt8] = Array("]".utf8)
  static let setItem: [UInt8] = Array("s".utf8)
  static let setItems: [UInt8] = Array("u".utf8)
  static let append: [UInt8] = Array("a".utf8)
  static let reduce: [UInt8] = Array("R".utf8)
  static let build: [UInt8] = Array("b".utf8)
  static let persistentID: [UInt8] = Array("Q".utf8)
  static let none: [UInt8] = Array("N".utf8)
  static let no: [UInt8] = [0x89]
  static let stackGlobal: [UInt8] = [0x93]

  static func global(_ module: String, _ name: String) -> [UInt8] {
    Array("c\(module)\n\(name)\n".utf8)
  }
  static func string(_ text: String) -> [UInt8] {
    Array("X".utf8) + littleEndian(UInt64(text.utf8.count), 4) + Array(text.utf8)
  }
  static func number(_ number: Int) -> [UInt8] {
    [0x8A, 8] + littleEndian(UInt64(bitPattern: Int64(number)), 8)
  }
  static func put(_ place: Int) -> [UInt8] {
    Array("r".utf8) + littleEndian(UInt64(place), 4)
  }
  static func get(_ place: Int) -> [UInt8] {
    Array("j".utf8) + littleEndian(UInt64(place), 4)
  }
  static func numbers(_ values: [Int]) -> [UInt8] { mark + values.flatMap(number) + tuple }
  static func tuple(_ parts: [UInt8]...) -> [UInt8] { mark + parts.flatMap { $0 } + tuple }

  /// A dictionary with one entry.
  static func entry(_ key: String, _ value: [UInt8]) -> [UInt8] {
    emptyDict + string(key) + value + setItem
  }

  static func storage(
    _ type: String = "FloatStorage", key: String = "0", count: Int = 4
  ) -> [UInt8] {
    tuple(string("storage"), global("torch", type), string(key), string("cpu"), number(count))
      + persistentID
  }

  /// `_rebuild_tensor_v2` of a storage of four floats, as torch calls it.
  static func tensor(
    _ storage: [UInt8] = storage(), offset: Int = 0, shape: [Int] = [2, 2],
    strides: [Int] = [2, 1]
  ) -> [UInt8] {
    global("torch._utils", "_rebuild_tensor_v2")
      + tuple(
        storage, number(offset), numbers(shape), numbers(strides), no,
        global("collections", "OrderedDict") + emptyTuple + reduce)
      + reduce
  }
}

/// A whole pickle of protocol 2.
func pickle(_ parts: [UInt8]...) -> [UInt8] {
  [0x80, 2] + parts.flatMap { $0 } + Array(".".utf8)
}

/// A zip archive of stored entries, with the means to make it lie.
struct Zip {
  struct Entry {
    var name: String
    var localName: String?
    var bytes: [UInt8]
    var flags: UInt16 = 0
    var method: UInt16 = 0
    var localMethod: UInt16?
    var localSize: Int?
    var directorySize: Int?
    var offset: Int?
    var padding: [UInt8] = []
  }

  var entries: [Entry]
  var count: Int?
  var comment: [UInt8] = []
  var gapBeforeDirectory: [UInt8] = []

  /// As `torch.save` lays a file out: the pickle, and storage "0" of four floats.
  init(_ pickle: [UInt8], storage: [UInt8] = [UInt8](repeating: 0, count: 16)) {
    entries = [
      Entry(name: "m/data.pkl", bytes: pickle),
      Entry(name: "m/byteorder", bytes: Array("little".utf8)),
      Entry(name: "m/data/0", bytes: storage),
    ]
  }

  var bytes: [UInt8] {
    var file: [UInt8] = []
    var directory: [UInt8] = []
    for entry in entries {
      let size = UInt64(entry.bytes.count)
      let localSize = entry.localSize.map { UInt64($0) } ?? size
      let directorySize = entry.directorySize.map { UInt64($0) } ?? size
      let offset = UInt64(entry.offset ?? file.count)
      let localName = Array((entry.localName ?? entry.name).utf8)
      let name = Array(entry.name.utf8)
      file += [0x50, 0x4B, 3, 4, 0, 0] + littleEndian(UInt64(entry.flags), 2)
      file += littleEndian(UInt64(entry.localMethod ?? entry.method), 2)
      file += [UInt8](repeating: 0, count: 8) + littleEndian(localSize, 4)
      file += littleEndian(localSize, 4) + littleEndian(UInt64(localName.count), 2) + [0, 0]
      file += localName + entry.bytes + entry.padding
      directory += [0x50, 0x4B, 1, 2, 0, 0, 0, 0] + littleEndian(UInt64(entry.flags), 2)
      directory += littleEndian(UInt64(entry.method), 2) + [UInt8](repeating: 0, count: 8)
      directory += littleEndian(directorySize, 4) + littleEndian(directorySize, 4)
      directory += littleEndian(UInt64(name.count), 2) + [UInt8](repeating: 0, count: 12)
      directory += littleEndian(offset, 4) + name
    }
    file += gapBeforeDirectory
    let start = UInt64(file.count)
    let number = littleEndian(UInt64(count ?? entries.count), 2)
    return file + directory + [0x50, 0x4B, 5, 6, 0, 0, 0, 0] + number + number
      + littleEndian(UInt64(directory.count), 4) + littleEndian(start, 4)
      + littleEndian(UInt64(comment.count), 2) + comment
  }
}

/// A file of the older form: its five pickles, and storages with their counts.
func stream(
  _ pickle: [UInt8], keys: [String] = ["0"], storages: [(count: Int, bytes: [UInt8])]? = nil,
  system: [UInt8]? = nil
) -> [UInt8] {
  let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
  var file = [0x80, 2, 0x8A, 10] + magic + Array(".".utf8)
  file += [0x80, 2] + Op.number(1001) + Array(".".utf8)
  file += system ?? [0x80, 2] + Op.entry("little_endian", [0x88]) + Array(".".utf8)
  file += pickle
  file += [0x80, 2] + Op.emptyList
  for key in keys { file += Op.string(key) + Op.append }
  file += Array(".".utf8)
  for storage in storages ?? [(4, [UInt8](repeating: 0, count: 16))] {
    file += littleEndian(UInt64(bitPattern: Int64(storage.count)), 8) + storage.bytes
  }
  return file
}

/// Reads bytes as a file of torch.save.
func torchFile(_ bytes: [UInt8]) throws -> TorchFile {
  let scratch = try Scratch()
  return try TorchFile(opening: scratch.write("model.pt", bytes))
}

/// What is wrong with the bytes; fails where nothing is.
func refusal(
  of bytes: [UInt8], sourceLocation: SourceLocation = #_sourceLocation
) throws -> PeftoolError? {
  do {
    let file = try torchFile(bytes)
    Issue.record("taken: \(file.tensors.map(\.name))", sourceLocation: sourceLocation)
    return nil
  } catch let error as PeftoolError {
    return error
  }
}

/// Expects that the bytes are refused for this reason.
func assertRejects(
  _ bytes: [UInt8], _ kind: PeftoolError.Kind, _ reason: String,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let error = try refusal(of: bytes, sourceLocation: sourceLocation)
  #expect(error?.reason == reason, sourceLocation: sourceLocation)
  #expect(error?.kind == kind, sourceLocation: sourceLocation)
  #expect(error?.path?.hasSuffix("/model.pt") == true, sourceLocation: sourceLocation)
}
