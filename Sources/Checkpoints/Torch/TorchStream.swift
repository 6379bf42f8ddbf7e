import Files
import JSON

/// The form of `torch.save` before version 1.6: five pickles, and then the storages.
enum TorchStream {
  /// A pickle of this number begins the file.
  private static let magic: [UInt8] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
  private static let version = 1001
  /// The number of elements before each storage.
  private static let countByteCount = 8

  /// Reads the pickles and the counts before the storages.
  ///
  /// - Returns: the object, and for each of its storages where it lies in the file.
  /// - Throws: `damaged`, `unsupported`, `io`.
  static func read(_ file: InputFile) throws(PeftoolError) -> (PickledObject, [Range<Int>]) {
    var bytes = PickleBytes(file, 0..<file.byteCount)
    try readMagic(&bytes)
    let version = try PickleInterpreter.read(&bytes, storages: .none)
    guard version.value == .int(Self.version) else {
      throw PeftoolError(
        .unsupported, "not the version of torch.save's stream, expected \(Self.version)")
    }
    let system = try PickleInterpreter.read(&bytes, storages: .none)
    try checkSystem(system)
    let object = try PickleInterpreter.read(&bytes, storages: .stream)
    let keys = try readKeys(&bytes)
    return (object, try ranges(keys, object, file, from: bytes.position))
  }

  /// The number is too large for the interpreter to keep, so its bytes are compared.
  private static func readMagic(_ bytes: inout PickleBytes) throws(PeftoolError) {
    var expected: [UInt8] = [PickleOpcode.long1.rawValue, UInt8(magic.count)]
    expected += magic + [PickleOpcode.stop.rawValue]
    let start = try bytes.take(min(2, bytes.remaining))
    var rest = try bytes.take(min(expected.count, bytes.remaining))
    if start.count == 2, start[1] >= 4, rest.first == PickleOpcode.frame.rawValue {
      let frame = [UInt8(expected.count), 0, 0, 0, 0, 0, 0, 0]
      rest = Array(rest.dropFirst())
      rest += try bytes.take(min(1 + frame.count, bytes.remaining))
      expected = frame + expected
    }
    guard start.first == PickleOpcode.proto.rawValue, rest == expected else {
      throw PeftoolError(
        .unsupported, "is a Python pickle, but none of torch.save: it begins with another number",
        offset: 0)
    }
  }

  private static func checkSystem(_ object: PickledObject) throws(PeftoolError) {
    let heap = object.heap
    guard let system = heap.dictionary(object.value) else {
      throw PeftoolError(.damaged, "\(object.value.kind) for the system's facts")
    }
    for (key, value) in zip(system.keys, system.values)
    where heap.string(key) == "little_endian" && value != .bool(true) {
      throw PeftoolError(.unsupported, "was saved with its bytes in big-endian order")
    }
  }

  /// The keys of the storages, in the order in which they follow.
  private static func readKeys(_ bytes: inout PickleBytes) throws(PeftoolError) -> [String] {
    let list = try PickleInterpreter.read(&bytes, storages: .none)
    guard case .list(let place) = list.value else {
      throw PeftoolError(.damaged, "\(list.value.kind) for the storages' keys, expected a list")
    }
    var keys: [String] = []
    for value in list.heap.lists[place] {
      guard let key = list.heap.string(value) else {
        throw PeftoolError(.damaged, "\(value.kind) among the storages' keys, expected strings")
      }
      keys.append(key)
    }
    return keys
  }

  private static func ranges(
    _ keys: [String], _ object: PickledObject, _ file: InputFile, from start: Int
  ) throws(PeftoolError) -> [Range<Int>] {
    var places: [ExactName: Int] = [:]
    for (place, storage) in object.heap.storages.enumerated() {
      places[ExactName(storage.key)] = place
    }
    var ranges = [Range<Int>?](repeating: nil, count: places.count)
    var position = start
    for key in keys {
      guard let place = places[ExactName(key)], ranges[place] == nil else {
        throw PeftoolError(
          .damaged, "storage '\(key.printable)' is listed, but used by no tensor or listed twice")
      }
      let storage = object.heap.storages[place]
      guard file.byteCount - position >= countByteCount else {
        throw PeftoolError(
          .damaged, "the file ends before storage '\(key.printable)'", offset: position)
      }
      let field = try file.bytes(position..<position + countByteCount)
      let count = field.littleEndian(at: 0, count: countByteCount)
      guard count == UInt64(storage.elementCount) else {
        throw PeftoolError(
          .damaged,
          "storage '\(key.printable)' has \(count) elements, the pickle gives it "
            + "\(storage.elementCount)",
          offset: position)
      }
      position += countByteCount
      guard storage.byteCount <= file.byteCount - position else {
        throw PeftoolError(
          .damaged,
          "storage '\(key.printable)' needs \(storage.byteCount) bytes, "
            + "\(file.byteCount - position) are left",
          offset: position)
      }
      ranges[place] = position..<position + storage.byteCount
      position += storage.byteCount
    }
    guard position == file.byteCount else {
      throw PeftoolError(
        .damaged, "\(file.byteCount - position) bytes after the last storage", offset: position)
    }
    var found: [Range<Int>] = []
    for (place, range) in ranges.enumerated() {
      guard let range else {
        let key = object.heap.storages[place].key.printable
        throw PeftoolError(.damaged, "storage '\(key)' is not in the file")
      }
      found.append(range)
    }
    return found
  }
}
