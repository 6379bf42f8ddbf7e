import Tensors

/// A value on the interpreter's stack: small, without pointers to other values.
///
/// What has parts lies in a `PickleHeap`, and the number is its place there; so values that hold
/// one another, or themselves, cost no more than their opcodes and are freed without recursion.
enum PickleValue: Equatable, Sendable {
  case none
  case bool(Bool)
  case int(Int)
  case float(Double)
  /// An integer outside of 64 bits.
  case longInteger
  /// Bytes, of which nothing is kept.
  case bytes
  case string(Int)
  case tuple(Int)
  case list(Int)
  case dictionary(Int)
  /// A name out of the table of those that may appear.
  case global(TorchGlobal)
  case storage(Int)
  case tensor(Int)
  /// A device: where a tensor once lay.
  case device

  /// What it is, in a message.
  var kind: String {
    switch self {
    case .none: "None"
    case .bool: "a bool"
    case .int: "a number"
    case .float: "a float"
    case .longInteger: "an integer of more than 64 bits"
    case .bytes: "bytes"
    case .string: "a string"
    case .tuple: "a tuple"
    case .list: "a list"
    case .dictionary: "a dictionary"
    case .global(let global): "\(global)"
    case .storage: "a storage"
    case .tensor: "a tensor"
    case .device: "a device"
    }
  }
}

/// A storage as the pickle names it: a run of elements that tensors are views of.
struct TorchStorage: Equatable, Sendable {
  /// Its name in the file.
  let key: String
  /// The dtype of its elements; nil where it is one of bytes.
  let dtype: DType?
  /// The number of its elements, or of its bytes.
  let elementCount: Int
  /// The bytes of its elements.
  let byteCount: Int

  /// The bytes of one element.
  var elementByteCount: Int { dtype.map { $0.bitCount / 8 } ?? 1 }
}

/// A tensor as the pickle describes it; it lies within its storage.
struct TorchTensor: Equatable, Sendable {
  /// The place of its storage in the heap.
  let storage: Int
  /// The type of its elements.
  let dtype: DType
  /// Where they lie in the storage.
  let view: TorchView
}

/// What the values of a pickle are made of.
struct PickleHeap: Sendable {
  /// A dictionary's entries in the order in which they were set, doubles and all.
  struct Dictionary: Sendable {
    var keys: [PickleValue] = []
    var values: [PickleValue] = []
    /// Whether it is an OrderedDict, the one kind that may have attributes.
    var isOrdered = false
  }

  var strings: [String] = []
  var tuples: [[PickleValue]] = []
  var lists: [[PickleValue]] = []
  var dictionaries: [Dictionary] = []
  var storages: [TorchStorage] = []
  var tensors: [TorchTensor] = []

  /// The text of a value that is a string.
  func string(_ value: PickleValue) -> String? {
    if case .string(let place) = value { return strings[place] }
    return nil
  }

  /// The parts of a value that is a tuple.
  func tuple(_ value: PickleValue) -> [PickleValue]? {
    if case .tuple(let place) = value { return tuples[place] }
    return nil
  }

  /// The dictionary that a value is.
  func dictionary(_ value: PickleValue) -> Dictionary? {
    if case .dictionary(let place) = value { return dictionaries[place] }
    return nil
  }
}

/// A pickle that has been read: its object, and what that is made of.
struct PickledObject: Sendable {
  let value: PickleValue
  let heap: PickleHeap
  /// The number of its opcodes and of what they copied: what looking through it may cost, too.
  let work: Int
}
