import Adapters
import Checkpoints
import Files
import Glibc
import JSON
import Patterns
import Quantization
import Tensors

/// What `quantize` will write, decided from names, shapes and configurations alone.
struct QuantizePlan: Sendable {
  /// How weights are quantized.
  enum Scheme: Equatable, Sendable {
    case blocks(FourBitCode, blockSize: Int, isNested: Bool)
    case rows
  }

  /// The user's choices.
  struct Options: Sendable {
    var scheme = Scheme.blocks(.nf4, blockSize: 64, isNested: true)
    var include: [Glob] = []
    var exclude: [Glob] = []
    /// `bnb_4bit_compute_dtype`; nil for the model's own dtype.
    var computeDType: DType?
    var shardByteCount = 50_000_000_000
  }

  /// What an output tensor holds.
  enum Content: Sendable {
    /// A tensor of the base, converted where `dtype` is another.
    case copy(StoredTensor, dtype: DType)
    /// The codes of a weight, with which its scales are written.
    case codes(weight: Int)
    /// The scales of a weight: bytes that come with the codes.
    case scales(weight: Int)
    /// The scales' scales, likewise.
    case nestedScales(weight: Int)
    /// Bytes that are known before the values.
    case bytes([UInt8])
  }

  /// A tensor to be written.
  struct Tensor: Sendable {
    let name: String
    let dtype: DType
    let shape: [Int]
    let content: Content
  }

  let base: BaseModel
  let options: Options
  /// The weights to be quantized.
  let weights: [LinearModules.Weight]
  /// The type in which transformers loads the model: that of `config.json`, else that of the first
  /// floating tensor.
  let dtype: DType
  /// `config.json` with `quantization_config`; nil where the base has none.
  let config: JSON?
  /// What the user should know.
  let notes: [String]
  private let remainder: [StoredTensor]

  /// Plans for a base.
  ///
  /// - Throws: `unsupported` for a base that is quantized already or of a type that bitsandbytes
  ///   does not quantize; as `LinearModules`.
  init(_ checkpoint: Checkpoint, _ options: Options) throws(PeftoolError) {
    let base = try BaseModel(checkpoint)
    self.base = base
    self.options = options
    do throws(PeftoolError) {
      let dtype = try Self.loadDType(base)
      self.dtype = dtype
      let modules = try LinearModules(
        of: base, include: options.include, exclude: options.exclude)
      for weight in modules.weights
      where FourBitState.name(of: weight.tensor.dtype) == nil {
        throw PeftoolError(
          .unsupported,
          "is \(weight.tensor.dtype.rawValue), and bitsandbytes quantizes F32, F16 and BF16",
          tensor: weight.tensor.info.name)
      }
      weights = modules.weights
      var notes = modules.notes
      let quantized = Set(modules.weights.map { ExactName($0.tensor.info.name) })
      var remainder = base.tensors.map(\.stored)
        .filter { !quantized.contains(ExactName($0.info.name)) }
      if let copy = try Self.redundantOutput(base) {
        remainder.removeAll { $0.info.name.isExactly(copy) }
        notes.append("\(copy.printable) is left out: it is the input embedding once more")
      }
      let converted = remainder.count { $0.dtype.isComputable && $0.dtype != dtype }
      if converted > 0 {
        notes.append(
          "\(converted) tensors are converted to \(dtype.rawValue), in which transformers loads "
            + "the model")
      }
      if !checkpoint.otherWeights.isEmpty {
        let names = checkpoint.otherWeights.prefix(5).map(\.printable).joined(separator: ", ")
        notes.append("other weights in the model's folder are not carried along: \(names)")
      }
      self.remainder = remainder
      self.notes = notes
      config = Self.config(base, options, dtype, skip: modules.skipModules)
    } catch {
      throw error.at(path: checkpoint.path)
    }
  }

  /// The state of a weight with the offset of its scales, which only its values tell.
  func state(of weight: Int, offset: Float?) -> FourBitState? {
    guard case .blocks(let code, let blockSize, _) = options.scheme else { return nil }
    let weight = weights[weight]
    return FourBitState(
      code: code, blockSize: blockSize, dtype: dtype,
      shape: [weight.rowCount, weight.columnCount], nestedOffset: offset)
  }

  /// The tensors in the order in which transformers fills shards; `offsets` has one for each
  /// weight.
  func tensors(offsets: [Float?]) -> [Tensor] {
    let copies = remainder.map { stored in
      let dtype = stored.dtype.isComputable ? dtype : stored.dtype
      return Tensor(
        name: stored.info.name, dtype: dtype, shape: stored.shape,
        content: .copy(stored, dtype: dtype))
    }
    let quantized = weights.indices.flatMap {
      tensors(of: weights[$0], $0, offset: offsets[$0])
    }
    return (copies + quantized).map { (ParameterOrder($0.name), $0) }
      .sorted { $0.0 < $1.0 }.map(\.1)
  }

  private func tensors(
    of weight: LinearModules.Weight, _ place: Int, offset: Float?
  ) -> [Tensor] {
    let name = "\(weight.module).weight"
    let shape = [weight.rowCount, weight.columnCount]
    switch options.scheme {
    case .rows:
      return [
        Tensor(name: name, dtype: .i8, shape: shape, content: .codes(weight: place)),
        Tensor(
          name: "\(weight.module).SCB", dtype: .f32, shape: [weight.rowCount],
          content: .scales(weight: place)),
        Tensor(
          name: "\(weight.module).weight_format", dtype: .u8, shape: [], content: .bytes([0])),
      ]
    case .blocks(let code, let blockSize, let isNested):
      let count = weight.rowCount * weight.columnCount
      let blockCount = FourBitCode.blockCount(of: count, blockSize: blockSize)
      var tensors = [
        Tensor(
          name: name, dtype: .u8, shape: [FourBitCode.byteCount(of: count), 1],
          content: .codes(weight: place)),
        Tensor(
          name: "\(name).absmax", dtype: isNested ? .u8 : .f32, shape: [blockCount],
          content: .scales(weight: place)),
        Tensor(
          name: "\(name).quant_map", dtype: .f32, shape: [16],
          content: .bytes(code.levels.littleEndianBytes)),
      ]
      if isNested {
        tensors += [
          Tensor(
            name: "\(name).nested_absmax", dtype: .f32,
            shape: [FourBitCode.blockCount(of: blockCount, blockSize: NestedScales.blockSize)],
            content: .nestedScales(weight: place)),
          Tensor(
            name: "\(name).nested_quant_map", dtype: .f32, shape: [256],
            content: .bytes(NestedScales.levels.littleEndianBytes)),
        ]
      }
      let state = Array((state(of: place, offset: offset)?.text ?? "").utf8)
      tensors.append(
        Tensor(
          name: "\(name).quant_state.bitsandbytes__\(code.rawValue)", dtype: .u8,
          shape: [state.count], content: .bytes(state)))
      return tensors
    }
  }

  /// The bytes of all tensors that a weight becomes.
  func byteCount(of place: Int, offset: Float?) -> Int {
    tensors(of: weights[place], place, offset: offset).reduce(0) {
      $0 + $1.shape.reduce(1, *) * $1.dtype.bitCount / 8
    }
  }

  /// What transformers counts as the model's parameters.
  var parameterCount: Int {
    var count = remainder.reduce(0) { $0 + $1.info.elementCount }
    for weight in weights {
      let elements = weight.rowCount * weight.columnCount
      // It doubles the bytes of the codes.
      count += options.scheme == .rows ? elements : FourBitCode.byteCount(of: elements) * 2
    }
    return count
  }

  private static func loadDType(_ base: BaseModel) throws(PeftoolError) -> DType {
    var found = base.tensors.lazy.map(\.stored.dtype).first { $0.isComputable }
    for part in [base.config, base.config?["text_config"]] {
      for key in ["dtype", "torch_dtype"] {
        if case .string(let name) = part?[key], let dtype = FourBitState.dtype(named: name) {
          found = dtype
          return dtype
        }
      }
    }
    guard let found, FourBitState.name(of: found) != nil else {
      throw PeftoolError(
        .unsupported,
        "is in \(found?.rawValue ?? "no floating type"), and bitsandbytes quantizes F32, F16 and "
          + "BF16")
    }
    return found
  }

  /// The output embedding's name where a tied model stores it, too, with the same bytes.
  private static func redundantOutput(_ base: BaseModel) throws(PeftoolError) -> String? {
    guard base.isTied, let input = base.inputEmbedding?.stored,
      let output = base.outputEmbedding?.stored, input.info.name != output.info.name,
      input.dtype == output.dtype, input.shape == output.shape
    else { return nil }
    var left = Block(byteCount: 1 << 20)
    var right = Block(byteCount: 1 << 20)
    var start = 0
    while start < input.info.byteCount {
      let range = start..<min(start + left.byteCount, input.info.byteCount)
      var bytes = left.mutableBytes(range.count)
      try input.source.read(input.info, bytes: range, into: &bytes)
      var others = right.mutableBytes(range.count)
      try output.source.read(output.info, bytes: range, into: &others)
      guard left.bytes(range.count).isEqual(right.bytes(range.count)) else { return nil }
      start = range.upperBound
    }
    return output.info.name
  }

  /// `config.json` as transformers writes it: the keys of `BitsAndBytesConfig.to_dict`, sorted.
  private static func config(
    _ base: BaseModel, _ options: Options, _ dtype: DType, skip: [String]?
  ) -> JSON? {
    guard case .object(var members) = base.config else { return nil }
    var type = "fp4"
    var isNested = false
    var compute = "float32"
    let isFourBit = options.scheme != .rows
    if case .blocks(let code, _, let nested) = options.scheme {
      type = code.rawValue
      isNested = nested
      compute = FourBitState.name(of: options.computeDType ?? dtype) ?? compute
    }
    let quantization = JSON.object([
      .init("_load_in_4bit", .bool(isFourBit)),
      .init("_load_in_8bit", .bool(!isFourBit)),
      .init("bnb_4bit_compute_dtype", .string(compute)),
      .init("bnb_4bit_quant_storage", .string("uint8")),
      .init("bnb_4bit_quant_type", .string(type)),
      .init("bnb_4bit_use_double_quant", .bool(isNested)),
      .init("llm_int8_enable_fp32_cpu_offload", .bool(false)),
      .init("llm_int8_has_fp16_weight", .bool(false)),
      .init("llm_int8_skip_modules", skip.map { .array($0.map(JSON.string)) } ?? .null),
      .init("llm_int8_threshold", .number("6.0")),
      .init("load_in_4bit", .bool(isFourBit)),
      .init("load_in_8bit", .bool(!isFourBit)),
      .init("quant_method", .string("bitsandbytes")),
    ])
    let key = "quantization_config"
    members.removeAll { $0.key == key }
    // transformers sorts the keys; where somebody else has not, the new one comes last.
    let isSorted = zip(members, members.dropFirst()).allSatisfy {
      $0.key.precedesByBytes($1.key)
    }
    let sortedPlace = members.firstIndex { key.precedesByBytes($0.key) }
    let place = isSorted ? sortedPlace ?? members.endIndex : members.endIndex
    members.insert(.init(key, quantization), at: place)
    return .object(members)
  }
}

extension [Float] {
  fileprivate var littleEndianBytes: [UInt8] {
    flatMap { value in
      (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) }
    }
  }
}

extension RawSpan {
  fileprivate func isEqual(_ other: RawSpan) -> Bool {
    guard byteCount == other.byteCount else { return false }
    // Both buffers live through the comparison.
    return unsafe withUnsafeBytes { a in
      unsafe other.withUnsafeBytes { b in
        guard let left = a.baseAddress, let right = b.baseAddress else { return true }
        return unsafe memcmp(left, right, a.count) == 0
      }
    }
  }
}
