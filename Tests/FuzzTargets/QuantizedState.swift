import Checkpoints
import Files
import JSON
import Quantization
import Tensors

/// The tensors of a quantized weight are refused with an error, or stand for finite numbers, whether
/// these are read at once or in parts.
///
/// An input is a byte of flags, six bytes that say how tensors differ from what the state asks for,
/// the state, a NUL, and bytes that the tensors are filled with, over and over. With the flag 8 the
/// state is a `config.json` of INT4 by groups, of a weight whose sizes the filling says, which is seen in
/// other layouts, too.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard bytes.count > 7 else { return 0 }
  let rest = bytes[7...]
  let end = rest.firstIndex(of: 0) ?? rest.endIndex
  do throws(PeftoolError) {
    let config = bytes[0] & 8 == 8 ? try JSON(parsing: Array(rest[..<end])) : nil
    let source = TensorsInMemory(
      groups: try Int4Settings(config), isRows: bytes[0] & 1 == 1, changes: Array(bytes[1..<7]),
      state: Array(rest[..<end]), filling: Array(rest[end...]))
    let checkpoint = model.viewed(through: source, config: config)
    for weight in try QuantizedWeight.all(in: checkpoint) where weight.elementCount <= 1 << 16 {
      let dtype: DType = bytes[0] & 4 == 0 ? .f32 : .f16
      try decode(
        DequantizedSource(
          source, weights: [.init(weight, dtype: dtype, isTransposed: bytes[0] & 2 == 2)]),
        isFinite: config == nil && (dtype == .f32 || bytes[0] & 1 == 0))
      if let groups = weight.groups {
        for layout in RelaidSource.layouts {
          let relaid = try RelaidSource(source, weights: [groups], as: layout)
          for tensor in relaid.tensors { try readParts(tensor, of: relaid) }
        }
      }
    }
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}

/// Any checkpoint, for others to be seen through.
private let model: Checkpoint = {
  do {
    return try Checkpoint(opening: "Samples/quantized/llama-nf4-double/model.safetensors")
  } catch {
    fatalError("\(error)")
  }
}()

private func decode(_ source: DequantizedSource, isFinite: Bool) throws(PeftoolError) {
  guard let weight = source.tensors.first(where: { source.weights[.init($0.name)] != nil }) else {
    preconditionFailure("the weight is there")
  }
  let whole = try source.bytes(of: weight)
  whole.withUnsafeBytes {
    let bytes = RawSpan(_unsafeBytes: $0)
    precondition(
      !isFinite || weight.dtype.nonfiniteCount(bytes, count: weight.elementCount) == 0,
      "a number that is not finite")
  }
  try readParts(weight, of: source)
}

private func readParts(
  _ tensor: TensorInfo, of source: some TensorSource
) throws(PeftoolError) {
  let whole = try source.bytes(of: tensor)
  let count = tensor.elementCount
  for cut in [1, count / 2, count - 1] where cut > 0 {
    let place = min(cut, count) * tensor.dtype.bitCount / 8
    let parts = try [0..<place, place..<whole.count].map { (range) throws(PeftoolError) in
      var part = [UInt8](repeating: 0, count: range.count)
      var span = part.mutableSpan
      var raw = span.mutableBytes
      try source.read(tensor, bytes: range, into: &raw)
      return part
    }
    precondition(parts[0] + parts[1] == whole, "other bytes in parts")
  }
}

/// A weight and what lies beside it.
private struct TensorsInMemory: TensorSource {
  private(set) var tensors: [TensorInfo] = []
  private var contents: [String: [UInt8]] = [:]
  private let filling: [UInt8]

  var path: String { "memory" }
  var files: [InputFile] { model.source.files }
  var metadata: [(key: String, value: String)] { [] }

  init(
    groups settings: Int4Settings?, isRows: Bool, changes: [UInt8], state: [UInt8],
    filling: [UInt8]
  ) {
    self.filling = filling.isEmpty ? [0] : filling
    if let settings {
      appendGroups(settings, changes)
      return
    }
    if isRows {
      let rows = Int(state.first ?? 0)
      let columns = Int(state.last ?? 0)
      append("m.weight", .i8, [rows, columns], changes[0])
      append("m.SCB", .f32, [rows], changes[1])
      append("m.weight_format", .u8, [], changes[2], [changes[3] / 128])
      return
    }
    var parsed: FourBitState?
    do throws(PeftoolError) { parsed = try FourBitState(parsing: state) } catch {}
    if let text = parsed?.text {
      var again: FourBitState?
      do throws(PeftoolError) { again = try FourBitState(parsing: Array(text.utf8)) } catch {}
      precondition(again == parsed, "what was written reads differently")
    }
    // A shape that no input could fill is one of a few elements here.
    let known = parsed.flatMap { $0.elementCount <= 1 << 16 ? $0 : nil }
    let code = parsed?.code ?? .nf4
    append("m.weight", .u8, [FourBitCode.byteCount(of: known?.elementCount ?? 1), 1], changes[0])
    append(
      "m.weight.absmax", known?.nestedOffset == nil ? .f32 : .u8, [known?.blockCount ?? 1],
      changes[1])
    append(
      "m.weight.quant_map", .f32, [16], changes[2],
      code.levels.flatMap { level in
        (0..<4).map { UInt8(truncatingIfNeeded: level.bitPattern >> ($0 * 8)) }
      })
    append(
      "m.weight.quant_state.bitsandbytes__\(code.rawValue)", .u8, [state.count], changes[3], state)
    guard known?.nestedOffset != nil else { return }
    append("m.weight.nested_absmax", .f32, [known?.nestedBlockCount ?? 1], changes[4])
    append("m.weight.nested_quant_map", .f32, [256], changes[5])
  }

  /// A weight of INT4 in the layout that the settings say.
  private mutating func appendGroups(_ settings: Int4Settings, _ changes: [UInt8]) {
    func size(_ place: Int) -> Int { 8 * (1 + Int(filling[place % filling.count]) % 12) }
    let (layout, outputs, inputs) = (settings.layout, size(1), size(2))
    let groupSize = settings.groupSize.map { max(1, min($0, inputs)) } ?? inputs
    let groups = (inputs + groupSize - 1) / groupSize
    let types = layout.scaleDTypes
    let dtype = types[Int(filling[0]) % types.count]
    let parts = [
      layout.codes(outputs, inputs, groupSize: groupSize),
      layout.scales(outputs, groups: groups, dtype),
      layout.shifts(outputs, groups: groups, dtype), layout.groupIndex(inputs),
    ]
    for (part, change) in zip(parts, changes) {
      guard let part else { continue }
      append("m" + part.ending, part.dtype, part.shape, change)
    }
    guard layout == .hqq else { return }
    let settings = HQQSettings.all(outputs, inputs, groupSize: groupSize)
    let changed = Int(changes[5]) % settings.count
    for (place, setting) in settings.enumerated() {
      append(
        "m" + setting.part.ending, setting.part.dtype, setting.part.shape,
        place == changed ? changes[4] : 0, setting.bytes)
    }
  }

  /// Adds a tensor as it should be, or with what a byte changes of it.
  private mutating func append(
    _ name: String, _ dtype: DType, _ shape: [Int], _ change: UInt8, _ content: [UInt8]? = nil
  ) {
    var (dtype, shape, content) = (dtype, shape, content)
    switch change {
    case 1: return
    case 2 where !shape.isEmpty: shape[0] += 1
    case 3 where !shape.isEmpty: shape[0] = max(0, shape[0] - 1)
    case 4: dtype = [.u8, .i8, .f16, .f32, .i64][Int(filling[0]) % 5]
    case 5: content = nil
    case 6: shape.append(1)
    default: break
    }
    contents[name] = content
    let byteCount = shape.reduce(1, *) * dtype.bitCount / 8
    tensors.append(
      TensorInfo(name: name, dtype: dtype, shape: shape, byteRange: 0..<byteCount))
  }

  func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? { nil }

  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    precondition(range.lowerBound >= 0 && range.upperBound <= tensor.byteCount, "within the tensor")
    let known = contents[tensor.name] ?? []
    let content = known.isEmpty ? filling : known
    for place in range {
      buffer.storeBytes(
        of: content[place % content.count], toByteOffset: place - range.lowerBound, as: UInt8.self)
    }
  }
}
