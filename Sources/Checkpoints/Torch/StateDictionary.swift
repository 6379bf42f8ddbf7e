import Files
import JSON
import Tensors

/// The tensors of a pickled object, each by the path that leads to it.
///
/// Keys and places in lists are joined by dots: `{"optimizer": {"state": [t]}}` holds
/// `optimizer.state.0`. Where everything lies in one dictionary that trainers wrap state dicts in,
/// as in `{"state_dict": …, "epoch": 3}`, its key is taken off.
struct StateDictionary {
  /// A tensor's name, and its place in the heap.
  struct Entry {
    var name: String
    let tensor: Int
  }

  /// In the order of the dictionaries.
  private(set) var entries: [Entry] = []
  /// Strings, numbers and booleans that lie among the tensors, as text by their paths.
  private(set) var metadata: [(key: String, value: String)] = []

  /// Containers within containers.
  static let maximumDepth = 32
  /// The bytes of all names and of the metadata together.
  static let maximumTextByteCount = 32 << 20
  /// The keys that trainers put a model's state dict under.
  static let wrappers = ["state_dict", "model_state_dict", "model"]
  /// The name of a tensor that is no part of anything.
  static let soleName = "tensor"

  /// A container that is being gone through.
  private struct Level {
    let keys: [PickleValue]?
    let values: [PickleValue]
    /// What the names in it begin with: a path and a dot.
    let prefix: String
    var next = 0
  }

  /// Goes through an object.
  ///
  /// - Throws: `damaged` where two tensors have one name or a key stands twice, `unsupported`
  ///   where a key is no text and no number, for what is nested too deep and what holds no tensor.
  init(_ object: PickledObject) throws(PeftoolError) {
    let heap = object.heap
    /// The place at the top of each tensor's path, and the key there if it leads on.
    var tops: [(place: Int, key: String?)] = []
    var levels: [Level] = []
    var visitCount = 0
    var textByteCount = 0

    func count(_ text: String) throws(PeftoolError) {
      textByteCount += text.utf8.count
      guard textByteCount <= Self.maximumTextByteCount else {
        throw PeftoolError(
          .unsupported,
          "names and texts of more than \(Self.maximumTextByteCount) bytes together")
      }
    }

    func open(_ value: PickleValue, prefix: String) throws(PeftoolError) -> Bool {
      let level: Level
      switch value {
      case .dictionary(let place):
        let dictionary = heap.dictionaries[place]
        try Self.checkKeys(dictionary, heap, prefix)
        level = Level(keys: dictionary.keys, values: dictionary.values, prefix: prefix)
      case .list(let place): level = Level(keys: nil, values: heap.lists[place], prefix: prefix)
      case .tuple(let place): level = Level(keys: nil, values: heap.tuples[place], prefix: prefix)
      default: return false
      }
      guard levels.count < Self.maximumDepth else {
        throw PeftoolError(
          .unsupported, "nested deeper than \(Self.maximumDepth) dictionaries: \(prefix.printable)")
      }
      // A dictionary that is reached on many paths costs at each.
      visitCount += level.values.count
      guard visitCount <= object.work else {
        throw PeftoolError(
          .unsupported, "the same dictionaries again and again: \(prefix.printable)")
      }
      try count(prefix)
      levels.append(level)
      return true
    }

    if case .tensor(let tensor) = object.value {
      entries = [Entry(name: Self.soleName, tensor: tensor)]
      return
    }
    guard try open(object.value, prefix: "") else {
      throw PeftoolError(
        .unsupported, "holds \(object.value.kind), expected a dictionary of tensors")
    }
    while let level = levels.last {
      guard level.next < level.values.count else {
        levels.removeLast()
        continue
      }
      levels[levels.count - 1].next += 1
      let value = level.values[level.next]
      guard value.mayHoldTensors || value.text(heap) != nil else { continue }
      let key =
        try level.keys.map { keys throws(PeftoolError) in
          try Self.name(of: keys[level.next], heap, level.prefix, isNeeded: value.mayHoldTensors)
        } ?? String(level.next)
      guard let key else { continue }
      let name = level.prefix + key
      if case .tensor(let tensor) = value {
        try count(name)
        entries.append(Entry(name: name, tensor: tensor))
        let top = levels[0]
        let topKey = top.keys.flatMap { heap.string($0[top.next - 1]) }
        tops.append((top.next - 1, levels.count > 1 ? topKey : nil))
      } else if let text = value.text(heap) {
        // A pickle has a text once, however often it refers to it.
        try count(name)
        try count(text)
        metadata.append((name, text))
      } else {
        _ = try open(value, prefix: name + ".")
      }
    }
    guard let top = tops.first else {
      throw PeftoolError(.unsupported, "holds no tensors")
    }
    if let key = top.key, Self.wrappers.contains(where: key.isExactly),
      tops.allSatisfy({ $0.place == top.place })
    {
      for place in entries.indices {
        entries[place].name = String(entries[place].name.utf8.dropFirst(key.utf8.count + 1)) ?? ""
      }
    }
    try checkNames()
  }

  private func checkNames() throws(PeftoolError) {
    var names: Set<ExactName> = []
    for entry in entries where !names.insert(ExactName(entry.name)).inserted {
      throw PeftoolError(.damaged, "two tensors have this name", tensor: entry.name)
    }
  }

  /// Refuses a key that stands twice, of which Python keeps the last value.
  private static func checkKeys(
    _ dictionary: PickleHeap.Dictionary, _ heap: PickleHeap, _ prefix: String
  ) throws(PeftoolError) {
    var names: Set<ExactName> = []
    var numbers: Set<Int> = []
    for key in dictionary.keys {
      let isNew =
        if let name = heap.string(key) {
          names.insert(ExactName(name)).inserted
        } else if case .int(let number) = key {
          numbers.insert(number).inserted
        } else {
          true
        }
      if isNew { continue }
      let text = heap.string(key) ?? key.text(heap) ?? ""
      throw PeftoolError(.damaged, "the key '\((prefix + text).printable)' stands twice")
    }
  }

  /// The text of a key; nil for one of another kind that leads to no tensor.
  private static func name(
    of key: PickleValue, _ heap: PickleHeap, _ prefix: String, isNeeded: Bool
  ) throws(PeftoolError) -> String? {
    if let name = heap.string(key) { return name }
    if case .int(let number) = key { return String(number) }
    guard isNeeded else { return nil }
    throw PeftoolError(
      .unsupported,
      "\(key.kind) as a key in '\(prefix.printable)', expected a text or a number")
  }
}

extension PickleValue {
  /// Whether it is a tensor or a container.
  fileprivate var mayHoldTensors: Bool {
    switch self {
    case .tensor, .dictionary, .list, .tuple: true
    default: false
    }
  }

  /// The text of a string, a number or a boolean.
  fileprivate func text(_ heap: PickleHeap) -> String? {
    switch self {
    case .bool(let value): value ? "true" : "false"
    case .int(let value): "\(value)"
    case .float(let value): "\(value)"
    case .string(let place): heap.strings[place]
    default: nil
    }
  }
}
