import Adapters
import Checkpoints
import Files
import JSON
import Patterns
import Quantization
import Tensors

/// What `quantize` will write, decided from names, shapes and configurations, and of values from
/// the two ends of tied embeddings alone.
struct QuantizePlan: Sendable {
  /// How weights are quantized.
  enum Scheme: Equatable, Sendable {
    case blocks(FourBitCode, blockSize: Int, isNested: Bool)
    case rows
    case groups(GroupScheme)
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

  /// A weight to be quantized, and how.
  struct Weight: Sendable {
    /// The weight and how it lies.
    let linear: LinearModules.Weight
    /// What it becomes.
    let scheme: Scheme
    /// The type that its values are rounded to before they are coded.
    let loadDType: DType
    /// The type that it is said to have had, and that it has when it is dequantized.
    let dtype: DType
    /// As what 4-bit codes lie in the file, where it is not U8 (`bnb_4bit_quant_storage`).
    var storage: TensorInfo?

    var module: String { linear.module }
    var tensor: StoredTensor { linear.tensor }
    /// The output features.
    var rowCount: Int { linear.rowCount }
    /// The input features.
    var columnCount: Int { linear.columnCount }

    /// Whether its scales are quantized, too.
    var isNested: Bool {
      if case .blocks(_, _, true) = scheme { true } else { false }
    }
  }

  /// A tensor that a weight becomes, whose bytes come of its values.
  enum Part: Sendable { case codes, scales, nestedScales, shifts }

  /// What an output tensor holds.
  enum Content: Sendable {
    /// A tensor of the model.
    case copy(Conversion.Tensor)
    /// What is made of a weight.
    case made(weight: Int, Part)
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

  /// The model that is quantized.
  let model: Checkpoint
  /// The weights to be quantized.
  let weights: [Weight]
  /// The most bytes of a file.
  let shardByteCount: Int
  /// `config.json` with `quantization_config`; nil where the model has none.
  let config: JSON?
  /// What the user should know.
  let notes: [String]
  private let remainder: [Conversion.Tensor]

  /// Plans to quantize a model as transformers does.
  ///
  /// - Throws: `unsupported` for a base that is quantized already or of a type that bitsandbytes
  ///   does not quantize; as `LinearModules` and `GroupScheme.check`.
  init(_ checkpoint: Checkpoint, _ options: Options) throws(PeftoolError) {
    let base = try BaseModel(checkpoint)
    model = checkpoint
    shardByteCount = options.shardByteCount
    do throws(PeftoolError) {
      let dtype = try Self.loadDType(base)
      let modules = try LinearModules(
        of: base, include: options.include, exclude: options.exclude)
      for weight in modules.weights
      where FourBitState.name(of: weight.tensor.dtype) == nil {
        throw PeftoolError(
          .unsupported,
          "is \(weight.tensor.dtype.rawValue), and bitsandbytes quantizes F32, F16 and BF16",
          tensor: weight.tensor.info.name)
      }
      if case .groups(let scheme) = options.scheme {
        for weight in modules.weights { try scheme.check(weight) }
      }
      weights = modules.weights.map {
        Weight(linear: $0, scheme: options.scheme, loadDType: dtype, dtype: dtype)
      }
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
      if base.config == nil {
        notes.append(
          "there is no config.json, so that nothing says how the model is quantized: transformers "
            + "needs one with quantization_config")
      }
      if case .groups(let scheme) = options.scheme, let note = scheme.note { notes.append(note) }
      notes += checkpoint.leftBehind
      self.remainder = remainder.map {
        .init(name: $0.info.name, stored: $0, dtype: $0.dtype.isComputable ? dtype : $0.dtype)
      }
      self.notes = notes
      config = base.config?.with(
        quantization: Self.settings(options, dtype, skip: modules.skipModules))
    } catch {
      throw error.at(path: checkpoint.path)
    }
  }

  /// Plans to quantize a merged model as its base was.
  ///
  /// Weights that no adapter changes keep their codes; the others are coded with the settings that
  /// they had, from the numbers of `MergePlan.Options.singles`: as PEFT does (`Linear4bit.merge` in
  /// `tuners/lora/bnb.py`), but that a weight stays one of its type, where PEFT's becomes float32.
  /// - Parameters:
  ///   - merged: the merge into the base's dequantized view.
  ///   - base: the quantized base.
  ///   - before: its quantized weights.
  init(
    requantizing merged: MergePlan, of base: Checkpoint, before: [QuantizedWeight],
    shardByteCount: Int
  ) throws(PeftoolError) {
    let source = MergedSource(merged)
    model = base.viewed(through: source, config: merged.config)
    self.shardByteCount = shardByteCount
    var places: [ExactName: QuantizedWeight] = [:]
    for weight in before { places[ExactName(weight.name)] = weight }
    var weights: [Weight] = []
    var remainder: [Conversion.Tensor] = []
    for (tensor, info) in zip(merged.tensors, source.tensors) {
      let stored = StoredTensor(info, in: source)
      let origin = tensor.isOwn ? tensor.name : tensor.base.info.name
      guard let weight = places[ExactName(origin)] else {
        remainder.append(.init(name: info.name, stored: stored, dtype: info.dtype))
        continue
      }
      guard tensor.isChanged else {
        remainder += weight.copies(named: info.name, in: base)
        continue
      }
      let module = info.name.moduleOfWeight ?? info.name
      let linear = LinearModules.Weight(
        module: module, tensor: stored, isTransposed: merged.base.isConv1D(module) ?? false)
      switch weight.form {
      case .blocks(let state, let nested):
        weights.append(
          Weight(
            linear: linear,
            scheme: .blocks(state.code, blockSize: state.blockSize, isNested: nested != nil),
            loadDType: .f32, dtype: state.dtype, storage: weight.codes))
      case .rows:
        weights.append(Weight(linear: linear, scheme: .rows, loadDType: .f32, dtype: .f16))
      case .groups(let groups):
        let scheme = try GroupScheme(of: groups)
        try scheme.check(linear)
        weights.append(
          Weight(linear: linear, scheme: .groups(scheme), loadDType: .f32, dtype: .f32))
      }
    }
    self.weights = weights
    self.remainder = remainder
    notes = []
    config = (merged.config ?? merged.base.config)?.with(
      quantization: try base.modelConfig?.splitQuantization().settings ?? [])
  }

  /// The tensors in the order in which transformers fills shards; `offsets` has one for each
  /// weight.
  func tensors(offsets: [Float?]) -> [Tensor] {
    let copies = remainder.map { tensor in
      Tensor(
        name: tensor.name, dtype: tensor.dtype, shape: tensor.stored.shape,
        content: .copy(tensor))
    }
    let quantized = weights.indices.flatMap { tensors(of: $0, offset: offsets[$0]) }
    return (copies + quantized).map { (ParameterOrder($0.name), $0) }
      .sorted { $0.0 < $1.0 }.map(\.1)
  }

  private func tensors(of place: Int, offset: Float?) -> [Tensor] {
    let weight = weights[place]
    let name = "\(weight.module).weight"
    let shape = [weight.rowCount, weight.columnCount]
    switch weight.scheme {
    case .rows:
      return [
        Tensor(name: name, dtype: .i8, shape: shape, content: .made(weight: place, .codes)),
        Tensor(
          name: "\(weight.module).SCB", dtype: .f32, shape: [weight.rowCount],
          content: .made(weight: place, .scales)),
        Tensor(
          name: "\(weight.module).weight_format", dtype: .u8, shape: [], content: .bytes([0])),
      ]
    case .groups(let scheme):
      return scheme.parts(weight.linear).map { part, content in
        Tensor(
          name: weight.module + part.ending, dtype: part.dtype, shape: part.shape,
          content: content.map { .made(weight: place, $0) }
            ?? .bytes(scheme.groupIndex(weight.columnCount)))
      }
    case .blocks(let code, let blockSize, let isNested):
      let count = weight.rowCount * weight.columnCount
      let blockCount = FourBitCode.blockCount(of: count, blockSize: blockSize)
      var tensors = [
        Tensor(
          name: name, dtype: weight.storage?.dtype ?? .u8,
          shape: weight.storage?.shape ?? [FourBitCode.byteCount(of: count), 1],
          content: .made(weight: place, .codes)),
        Tensor(
          name: "\(name).absmax", dtype: isNested ? .u8 : .f32, shape: [blockCount],
          content: .made(weight: place, .scales)),
        Tensor(
          name: "\(name).quant_map", dtype: .f32, shape: [16],
          content: .bytes(code.levels.littleEndianBytes)),
      ]
      if isNested {
        tensors += [
          Tensor(
            name: "\(name).nested_absmax", dtype: .f32,
            shape: [FourBitCode.blockCount(of: blockCount, blockSize: NestedScales.blockSize)],
            content: .made(weight: place, .nestedScales)),
          Tensor(
            name: "\(name).nested_quant_map", dtype: .f32, shape: [256],
            content: .bytes(NestedScales.levels.littleEndianBytes)),
        ]
      }
      let state = FourBitState(
        code: code, blockSize: blockSize, dtype: weight.dtype, shape: shape, nestedOffset: offset)
      let text = Array(state.text.utf8)
      tensors.append(
        Tensor(
          name: "\(name).quant_state.bitsandbytes__\(code.rawValue)", dtype: .u8,
          shape: [text.count], content: .bytes(text)))
      return tensors
    }
  }

  /// The bytes of all tensors that a weight becomes.
  func byteCount(of place: Int, offset: Float?) -> Int {
    tensors(of: place, offset: offset).reduce(0) {
      $0 + $1.shape.reduce(1, *) * $1.dtype.bitCount / 8
    }
  }

  /// What transformers counts as the model's parameters.
  var parameterCount: Int {
    var count = remainder.reduce(0) { $0 + $1.stored.info.elementCount }
    for weight in weights {
      let elements = weight.rowCount * weight.columnCount
      // It doubles the bytes of 4-bit codes.
      if case .blocks = weight.scheme {
        count += FourBitCode.byteCount(of: elements) * 2
      } else {
        count += elements
      }
    }
    return count
  }

  private static func loadDType(_ base: BaseModel) throws(PeftoolError) -> DType {
    if let dtype = BaseModel.dtype(base.config) { return dtype }
    let found = base.tensors.lazy.map(\.stored.dtype).first { $0.isComputable }
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
      try input.isSame(as: output)
    else { return nil }
    return output.info.name
  }

  /// `quantization_config` as transformers writes it: the keys of `BitsAndBytesConfig.to_dict`,
  /// sorted; for group-wise INT4 what `GroupScheme` says.
  private static func settings(
    _ options: Options, _ dtype: DType, skip: [String]?
  ) -> [JSON.Member] {
    if case .groups(let scheme) = options.scheme { return scheme.settings(skip: skip) }
    var type = "fp4"
    var isNested = false
    var compute = "float32"
    let isFourBit = options.scheme != .rows
    if case .blocks(let code, _, let nested) = options.scheme {
      type = code.rawValue
      isNested = nested
      compute = FourBitState.name(of: options.computeDType ?? dtype) ?? compute
    }
    let settings = JSON.object([
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
    return [.init("quantization_config", settings)]
  }
}

extension QuantizedWeight {
  /// Its tensors as they are, under the name of another weight.
  fileprivate func copies(named name: String, in base: Checkpoint) -> [Conversion.Tensor] {
    let (old, new) = (self.name.moduleOfWeight, name.moduleOfWeight)
    return names.compactMap { part in
      guard let info = base[part] else { return nil }
      let ending = part.dropFirst((old ?? self.name).count)
      return .init(
        name: (new ?? name) + ending, stored: StoredTensor(info, in: base.source),
        dtype: info.dtype)
    }
  }
}

extension [Float] {
  fileprivate var littleEndianBytes: [UInt8] {
    flatMap { value in
      (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) }
    }
  }
}
