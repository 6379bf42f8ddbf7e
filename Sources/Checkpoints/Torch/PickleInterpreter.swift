import Files
import JSON
import Tensors

/// Reads a pickle of tensors: just the opcodes that `torch.save` writes for state dicts, and just
/// the names in `TorchGlobal`.
///
/// Nothing is looked up, imported or called. A tensor becomes its description, a storage its key;
/// every other name is refused when it is read, before anything is done with it. Memory is bounded
/// by the number of opcodes, of which each makes at most one value.
struct PickleInterpreter {
  /// How a storage is named by its persistent id, which differs between torch's two containers.
  enum StorageForm {
    /// `("storage", type, key, location, count)`.
    case zip
    /// The same and None, or a view of a storage.
    case stream
    /// No storage may be named.
    case none
  }

  /// A pickle has some 250 bytes a tensor.
  static let maximumByteCount = 32 << 20
  /// Opcodes, and what some of them count for beyond themselves; a hostile pickle of so many takes
  /// no more than some 100 MB.
  ///
  /// A tensor takes some 70: more than fifty thousand tensors in one file.
  static let maximumWork = 4_000_000
  /// What a tensor counts for beyond its opcodes, without its dimensions.
  static let tensorWork = 8
  /// What a string, a dictionary and a list count for.
  static let partWork = 4
  /// What a tuple counts for.
  static let tupleWork = 2
  /// Python's pickler sets a thousand entries at a time.
  static let maximumStackCount = 100_000
  /// Containers that are being filled at one time.
  static let maximumMarkCount = 1000
  /// The bytes of a module's or a function's name.
  static let maximumNameByteCount = 1000
  /// The protocols of Python 2.3 to 3.14.
  static let protocols: ClosedRange<UInt8> = 2...5

  private let form: StorageForm
  private var bytes: PickleBytes
  private var heap = PickleHeap()
  private var stack: [PickleValue] = []
  /// For each mark the height of the stack below it.
  private var marks: [Int] = []
  private var memo: [PickleValue?] = []
  private var storages: [ExactName: Int] = [:]
  private var work = 0

  /// Reads the pickle that begins at the next byte, and no byte behind its STOP.
  ///
  /// - Throws: `unsupported` for a name or an opcode that is none of a state dict's, `damaged` for
  ///   what Python would not read either, each with the offset; `io`.
  static func read(
    _ bytes: inout PickleBytes, storages form: StorageForm
  ) throws(PeftoolError) -> PickledObject {
    var interpreter = PickleInterpreter(form: form, bytes: bytes)
    var start = bytes.position
    do throws(PeftoolError) {
      let value = try interpreter.run(&start)
      bytes = interpreter.bytes
      return PickledObject(
        value: value, heap: interpreter.heap, work: interpreter.work)
    } catch {
      var error = error
      error.offset = error.offset ?? start
      throw error
    }
  }

  private init(form: StorageForm, bytes: PickleBytes) {
    self.form = form
    self.bytes = bytes
  }

  /// - Parameter start: the offset of the opcode that is being read.
  private mutating func run(_ start: inout Int) throws(PeftoolError) -> PickleValue {
    let first = bytes.position
    let proto = try bytes.next()
    guard proto == PickleOpcode.proto.rawValue else {
      throw PeftoolError(.damaged, "begins with byte 0x\(proto.hex), a pickle begins with 0x80")
    }
    let version = try bytes.next()
    guard Self.protocols.contains(version) else {
      throw PeftoolError(.unsupported, "pickle protocol \(version), expected 2 to 5")
    }
    while true {
      start = bytes.position
      try spend(1)
      guard start - first <= Self.maximumByteCount else { throw Self.tooLong }
      let byte = try bytes.next()
      guard let opcode = PickleOpcode(rawValue: byte) else { throw try refusal(of: byte) }
      if opcode == .stop {
        let value = try pop()
        guard stack.isEmpty, marks.isEmpty else {
          throw PeftoolError(.damaged, "the pickle ends with \(stack.count) values left over")
        }
        return value
      }
      try carryOut(opcode)
    }
  }

  private mutating func refusal(of byte: UInt8) throws(PeftoolError) -> PeftoolError {
    guard let name = PickleOpcode.refused[byte] else {
      return PeftoolError(.damaged, "byte 0x\(byte.hex) is no pickle opcode")
    }
    if name == "INST" {
      let (module, name) = (try nameLine(), try nameLine())
      return PeftoolError(.unsupported, TorchGlobal.refusal(module: module, name: name))
    }
    return PeftoolError(
      .unsupported, "the pickle opcode \(name), which no dictionary of tensors needs")
  }

  private mutating func carryOut(_ opcode: PickleOpcode) throws(PeftoolError) {
    switch opcode {
    case .stop: break
    case .proto: throw PeftoolError(.damaged, "a second PROTO within a pickle")
    case .frame:
      let count = try bytes.number(byteCount: 8)
      guard count <= UInt64(bytes.remaining) else {
        throw PeftoolError(.damaged, "a frame of \(count) bytes, \(bytes.remaining) are left")
      }

    case .none: try push(.none)
    case .newTrue: try push(.bool(true))
    case .newFalse: try push(.bool(false))
    case .binInt1: try push(.int(Int(try bytes.next())))
    case .binInt2: try push(.int(Int(try bytes.number(byteCount: 2))))
    case .binInt:
      try push(.int(Int(Int32(truncatingIfNeeded: try bytes.number(byteCount: 4)))))
    case .long1: try push(try longInteger())
    case .binFloat:
      try push(.float(Double(bitPattern: try bytes.number(byteCount: 8).byteSwapped)))

    case .binUnicode, .binString: try pushString(Int(try bytes.number(byteCount: 4)))
    case .shortBinUnicode, .shortBinString: try pushString(Int(try bytes.next()))
    case .binBytes:
      _ = try take(Int(try bytes.number(byteCount: 4)))
      try push(.bytes)
    case .shortBinBytes:
      _ = try take(Int(try bytes.next()))
      try push(.bytes)

    case .mark:
      guard marks.count < Self.maximumMarkCount else {
        throw PeftoolError(.unsupported, "nested deeper than \(Self.maximumMarkCount) containers")
      }
      marks.append(stack.count)
    case .emptyTuple: try pushTuple([])
    case .tuple: try pushTuple(try popToMark())
    case .tuple1: try pushTuple(try pop(1))
    case .tuple2: try pushTuple(try pop(2))
    case .tuple3: try pushTuple(try pop(3))
    case .emptyList:
      try spend(Self.partWork)
      heap.lists.append([])
      try push(.list(heap.lists.count - 1))
    case .append: try append(try pop(1))
    case .appends: try append(try popToMark())
    case .emptyDict:
      try spend(Self.partWork)
      heap.dictionaries.append(.init())
      try push(.dictionary(heap.dictionaries.count - 1))
    case .setItem: try setItems(try pop(2))
    case .setItems: try setItems(try popToMark())

    case .binGet: try get(Int(try bytes.next()))
    case .longBinGet: try get(Int(try bytes.number(byteCount: 4)))
    case .binPut: try put(Int(try bytes.next()))
    case .longBinPut: try put(Int(try bytes.number(byteCount: 4)))
    case .memoize: try put(memo.count)

    case .global: try pushGlobal(module: try nameLine(), name: try nameLine())
    case .stackGlobal:
      let names = try pop(2)
      guard let module = heap.string(names[0]), let name = heap.string(names[1]) else {
        throw PeftoolError(
          .damaged, "STACK_GLOBAL has \(names[0].kind) and \(names[1].kind), expected two strings")
      }
      try pushGlobal(module: module, name: name)
    case .reduce:
      let (function, arguments) = (try pop(2)).pair
      try push(try call(function, arguments))
    case .build: try build(try pop())
    case .binPersID:
      let id = try pop()
      try push(try storage(id))
    }
  }
}

// The stack and the memo.
extension PickleInterpreter {
  /// Counts what is done, so that a short pickle cannot ask for much by copying what it has made.
  private mutating func spend(_ count: Int) throws(PeftoolError) {
    work += count
    guard work <= Self.maximumWork else {
      throw PeftoolError(.unsupported, "a pickle of more than \(Self.maximumWork) opcodes")
    }
  }

  private mutating func push(_ value: PickleValue) throws(PeftoolError) {
    guard stack.count < Self.maximumStackCount else {
      throw PeftoolError(
        .unsupported, "a pickle with more than \(Self.maximumStackCount) values on its stack")
    }
    stack.append(value)
  }

  /// The values above the last mark cannot be reached by what comes before.
  private var floor: Int { marks.last ?? 0 }

  private mutating func pop() throws(PeftoolError) -> PickleValue {
    guard stack.count > floor, let value = stack.popLast() else {
      throw PeftoolError(.damaged, "the pickle takes a value from an empty stack")
    }
    return value
  }

  private mutating func pop(_ count: Int) throws(PeftoolError) -> [PickleValue] {
    guard stack.count - floor >= count else {
      throw PeftoolError(
        .damaged, "the pickle takes \(count) values from a stack of \(stack.count - floor)")
    }
    let values = Array(stack.suffix(count))
    stack.removeLast(count)
    return values
  }

  private mutating func popToMark() throws(PeftoolError) -> [PickleValue] {
    guard let mark = marks.popLast() else {
      throw PeftoolError(.damaged, "the pickle looks for a mark that was never set")
    }
    let values = Array(stack[mark...])
    stack.removeSubrange(mark...)
    return values
  }

  private func top() throws(PeftoolError) -> PickleValue {
    guard stack.count > floor, let value = stack.last else {
      throw PeftoolError(.damaged, "the pickle looks at an empty stack")
    }
    return value
  }

  private mutating func pushTuple(_ values: [PickleValue]) throws(PeftoolError) {
    try spend(Self.tupleWork)
    heap.tuples.append(values)
    try push(.tuple(heap.tuples.count - 1))
  }

  private mutating func take(_ count: Int) throws(PeftoolError) -> [UInt8] {
    guard count <= Self.maximumByteCount || count > bytes.remaining else { throw Self.tooLong }
    return try bytes.take(count)
  }

  private static let tooLong = PeftoolError(
    .unsupported, "a pickle of more than \(maximumByteCount) bytes")

  private mutating func pushString(_ count: Int) throws(PeftoolError) {
    guard let text = String(validating: try take(count), as: UTF8.self) else {
      throw PeftoolError(.unsupported, "a string that is not UTF-8")
    }
    try spend(Self.partWork)
    heap.strings.append(text)
    try push(.string(heap.strings.count - 1))
  }

  private mutating func longInteger() throws(PeftoolError) -> PickleValue {
    let digits = try bytes.take(Int(try bytes.next()))
    guard digits.count <= 8 else { return .longInteger }
    let number = digits.littleEndian(at: 0, count: digits.count)
    // The sign is the highest bit of the last byte.
    let shift = UInt64(64 - 8 * digits.count)
    return .int(digits.isEmpty ? 0 : Int(Int64(bitPattern: number << shift) >> Int64(shift)))
  }

  private mutating func nameLine() throws(PeftoolError) -> String {
    let line = try bytes.line(limit: Self.maximumNameByteCount)
    guard let name = String(validating: line, as: UTF8.self) else {
      throw PeftoolError(.damaged, "a name that is not UTF-8")
    }
    return name
  }

  private mutating func pushGlobal(module: String, name: String) throws(PeftoolError) {
    guard let global = TorchGlobal(module: module, name: name) else {
      throw PeftoolError(.unsupported, TorchGlobal.refusal(module: module, name: name))
    }
    try push(.global(global))
  }

  private mutating func get(_ place: Int) throws(PeftoolError) {
    guard memo.indices.contains(place), let value = memo[place] else {
      throw PeftoolError(.damaged, "memo \(place) was never put")
    }
    try push(value)
  }

  /// Puts the top into the memo, whose places picklers count from 0, and Python 2's from 1.
  private mutating func put(_ place: Int) throws(PeftoolError) {
    let value = try top()
    guard place <= memo.count + 1 else {
      throw PeftoolError(.damaged, "memo \(place) is put, expected \(memo.count)")
    }
    guard !memo.indices.contains(place) || memo[place] == nil else {
      throw PeftoolError(.damaged, "memo \(place) is put twice")
    }
    while memo.count <= place { memo.append(nil) }
    memo[place] = value
  }

  private mutating func append(_ values: [PickleValue]) throws(PeftoolError) {
    guard case .list(let place) = try top() else {
      throw PeftoolError(.damaged, "APPEND to \(try top().kind), expected a list")
    }
    heap.lists[place] += values
  }

  private mutating func setItems(_ items: [PickleValue]) throws(PeftoolError) {
    guard case .dictionary(let place) = try top() else {
      throw PeftoolError(.damaged, "SETITEM on \(try top().kind), expected a dictionary")
    }
    guard items.count % 2 == 0 else {
      throw PeftoolError(.damaged, "SETITEMS has a key without a value")
    }
    for at in stride(from: 0, to: items.count, by: 2) {
      try set(items[at], items[at + 1], in: place)
    }
  }

  private mutating func set(
    _ key: PickleValue, _ value: PickleValue, in place: Int
  ) throws(PeftoolError) {
    switch key {
    case .list, .dictionary, .storage, .tensor:
      throw PeftoolError(.damaged, "\(key.kind) as a key")
    default:
      heap.dictionaries[place].keys.append(key)
      heap.dictionaries[place].values.append(value)
    }
  }

  /// Attributes of an OrderedDict, such as a state dict's `_metadata`, which are no tensors.
  private mutating func build(_ state: PickleValue) throws(PeftoolError) {
    guard let target = heap.dictionary(try top()), target.isOrdered else {
      throw PeftoolError(
        .unsupported, "BUILD on \(try top().kind), expected an OrderedDict")
    }
    guard case .dictionary = state else {
      throw PeftoolError(.unsupported, "BUILD with \(state.kind), expected a dictionary")
    }
  }

  /// A storage, by its persistent id.
  private mutating func storage(_ id: PickleValue) throws(PeftoolError) -> PickleValue {
    let expected = form == .zip ? 5 : 6
    guard form != .none, let parts = heap.tuple(id), parts.count == expected,
      heap.string(parts[0]) == "storage"
    else {
      if let parts = heap.tuple(id), let first = parts.first, heap.string(first) == "module" {
        throw PeftoolError(
          .unsupported, "holds a module with its source text; save its state_dict() instead")
      }
      throw PeftoolError(.unsupported, "a persistent id that names no storage")
    }
    guard case .global(.storage(let dtype)) = parts[1] else {
      throw PeftoolError(.damaged, "a storage of type \(parts[1].kind)")
    }
    guard let key = heap.string(parts[2]), heap.string(parts[3]) != nil,
      case .int(let count) = parts[4], count >= 0
    else {
      throw PeftoolError(.damaged, "a storage without key, location or count")
    }
    if form == .stream, parts[5] != .none {
      throw PeftoolError(
        .unsupported,
        "storage \(key.printable) is a view, as torch before 0.4 wrote them; "
          + "load the file in torch and save it again")
    }
    let (byteCount, overflow) = count.multipliedReportingOverflow(
      by: dtype.map { $0.bitCount / 8 } ?? 1)
    guard !overflow else {
      throw PeftoolError(.damaged, "storage \(key.printable) has \(count) elements")
    }
    let storage = TorchStorage(
      key: key, dtype: dtype, elementCount: count, byteCount: byteCount)
    if let known = storages[ExactName(key)] {
      guard heap.storages[known] == storage else {
        throw PeftoolError(
          .damaged, "storage \(key.printable) is named twice, with different types or sizes")
      }
      return .storage(known)
    }
    heap.storages.append(storage)
    storages[ExactName(key)] = heap.storages.count - 1
    return .storage(heap.storages.count - 1)
  }
}

// What the names would do.
extension PickleInterpreter {
  private mutating func call(
    _ function: PickleValue, _ arguments: PickleValue
  ) throws(PeftoolError) -> PickleValue {
    guard case .global(let global) = function else {
      throw PeftoolError(.unsupported, "would call \(function.kind)")
    }
    guard let arguments = heap.tuple(arguments) else {
      throw PeftoolError(.damaged, "would call \(global) with \(arguments.kind) for a tuple")
    }
    return try call(global, arguments)
  }

  private mutating func call(
    _ global: TorchGlobal, _ arguments: [PickleValue]
  ) throws(PeftoolError) -> PickleValue {
    switch global {
    case .orderedDict: return try orderedDictionary(arguments)
    case .size:
      guard arguments.count == 1, case .tuple = arguments[0] else { throw misuse(global) }
      return arguments[0]
    case .device:
      guard (1...2).contains(arguments.count), heap.string(arguments[0]) != nil else {
        throw misuse(global)
      }
      return .device
    case .rebuildTensor:
      guard arguments.count == 4 else { throw misuse(global) }
      return try tensor(arguments)
    case .rebuildTensorV2:
      guard (6...7).contains(arguments.count) else { throw misuse(global) }
      try checkMetadata(arguments.dropFirst(6).first)
      return try tensor(arguments)
    case .rebuildTensorV3:
      guard (7...8).contains(arguments.count), case .global(.dtype(let dtype)) = arguments[6]
      else { throw misuse(global) }
      guard let dtype else {
        throw PeftoolError(.unsupported, "a tensor of a dtype that safetensors does not have")
      }
      try checkMetadata(arguments.dropFirst(7).first)
      return try tensor(arguments, dtype: dtype)
    case .rebuildParameter, .rebuildParameterWithState:
      guard arguments.count == (global == .rebuildParameter ? 3 : 4),
        case .tensor = arguments[0]
      else { throw misuse(global) }
      return arguments[0]
    case .rebuildFromType:
      // Its function is called with its arguments, and the tensor then gets attributes. No call
      // leads here again: the function is one of the others.
      guard arguments.count == 4, case .global(let function) = arguments[0],
        function.makesTensor, arguments[1] == .global(.tensorClass),
        let inner = heap.tuple(arguments[2])
      else { throw misuse(global) }
      return try call(function, inner)
    case .tensorClass, .storage, .dtype:
      throw PeftoolError(.unsupported, "would call \(global)")
    }
  }

  private func misuse(_ global: TorchGlobal) -> PeftoolError {
    PeftoolError(.damaged, "\(global) with arguments that torch does not give it")
  }

  /// An empty one, or one of a list of pairs, as Python 2 wrote them.
  private mutating func orderedDictionary(
    _ arguments: [PickleValue]
  ) throws(PeftoolError) -> PickleValue {
    var pairs: [PickleValue] = []
    if arguments.count == 1, case .list(let place) = arguments[0] {
      pairs = heap.lists[place]
    } else if !arguments.isEmpty {
      throw misuse(.orderedDict)
    }
    let place = heap.dictionaries.count
    heap.dictionaries.append(.init(isOrdered: true))
    try spend(Self.partWork + 2 * pairs.count)
    for pair in pairs {
      var parts = heap.tuple(pair)
      if case .list(let list) = pair { parts = heap.lists[list] }
      guard let parts, parts.count == 2 else { throw misuse(.orderedDict) }
      try set(parts[0], parts[1], in: place)
    }
    return .dictionary(place)
  }

  /// The `conj` and `neg` bits, which change what the stored numbers mean.
  private func checkMetadata(_ value: PickleValue?) throws(PeftoolError) {
    guard let value, value != .none else { return }
    guard let bits = heap.dictionary(value), bits.keys.isEmpty else {
      throw PeftoolError(
        .unsupported,
        "a tensor that is stored conjugated or negated; resolve_conj() and "
          + "resolve_neg() give a plain one")
    }
  }

  /// A tensor: storage, offset, sizes, strides, and what has no meaning here.
  private mutating func tensor(
    _ arguments: [PickleValue], dtype given: DType? = nil
  ) throws(PeftoolError) -> PickleValue {
    guard case .storage(let place) = arguments[0], case .int(let offset) = arguments[1],
      let sizes = heap.tuple(arguments[2]), let strides = heap.tuple(arguments[3])
    else {
      throw PeftoolError(
        .damaged,
        "a tensor of \(arguments.prefix(4).map(\.kind).joined(separator: ", ")), "
          + "expected a storage, an offset, sizes and strides")
    }
    try spend(Self.tensorWork + sizes.count + strides.count)
    let storage = heap.storages[place]
    guard let dtype = given ?? storage.dtype else {
      throw PeftoolError(.damaged, "a tensor without a dtype")
    }
    let view = try TorchView(
      dtype: dtype, offset: offset, shape: Self.numbers(sizes), strides: Self.numbers(strides),
      storageByteCount: storage.byteCount)
    heap.tensors.append(TorchTensor(storage: place, dtype: dtype, view: view))
    return .tensor(heap.tensors.count - 1)
  }

  private static func numbers(_ values: [PickleValue]) throws(PeftoolError) -> [Int] {
    var numbers: [Int] = []
    for value in values {
      guard case .int(let number) = value else {
        throw PeftoolError(.damaged, "\(value.kind) among sizes and strides, expected numbers")
      }
      numbers.append(number)
    }
    return numbers
  }
}

extension TorchGlobal {
  /// Whether a call of it gives a tensor, and can be an argument of `_rebuild_from_type_v2`.
  fileprivate var makesTensor: Bool {
    switch self {
    case .rebuildTensor, .rebuildTensorV2, .rebuildTensorV3, .rebuildParameter,
      .rebuildParameterWithState:
      true
    default: false
    }
  }
}

extension [PickleValue] {
  fileprivate var pair: (PickleValue, PickleValue) { (self[0], self[1]) }
}

extension UInt8 {
  /// Two hexadecimal digits.
  var hex: String { (self < 16 ? "0" : "") + String(self, radix: 16) }
}
