package import Files
import JSON
import Quantization
package import Tensors

/// A weight that bitsandbytes has quantized, or that is in group-wise INT4, with the tensors that lie
/// beside it.
package struct QuantizedWeight: Sendable {
  /// The tensor with the codes: `MODULE.weight`, or `MODULE.qweight`.
  package let codes: TensorInfo
  /// The scales: F32 (U8 in double quantization) for 4-bit blocks, F32 for 8-bit rows.
  package let scales: TensorInfo
  /// How the codes are read.
  package let form: Form

  /// How a weight is quantized.
  package enum Form: Sendable {
    /// 4-bit blocks.
    case blocks(FourBitState, nested: Nested?)
    /// LLM.int8.
    case rows
    /// Group-wise INT4.
    case groups(Int4Weight)
  }

  /// Double quantization.
  package struct Nested: Sendable {
    /// The scales' own scales.
    package let absmax: TensorInfo
    /// The values of their codes.
    package let levels: [Float]
    /// What is added to a scale.
    package let offset: Float
  }

  /// The shape of the weight before.
  package var shape: [Int] {
    switch form {
    case .blocks(let state, _): state.shape
    case .rows: codes.shape
    case .groups(let weight): [weight.outputs, weight.inputs]
    }
  }
  /// What the weight is called where it is not quantized, `MODULE.weight`.
  package let name: String
  /// The elements of the weight.
  package var elementCount: Int { shape.reduce(1, *) }
  /// The names of all its tensors.
  package let names: [String]

  private static let scalesOfRows = ".SCB"
  private static let formatOfRows = ".weight_format"
  private static let stateOfBlocks = ".quant_state.bitsandbytes__"
  private static let endings = [
    ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", scalesOfRows, formatOfRows,
  ]

  private static let int4Endings = [".qweight", ".qzeros", ".scales", ".biases", ".g_idx"]
  private static let hqqEndings =
    [Int4Layout.hqq.codesEnding, Int4Layout.hqq.scalesEnding, Int4Layout.hqq.shiftsEnding]
    + HQQSettings.endings

  /// The weight as one of group-wise INT4; nil of other forms.
  package var groups: Int4Weight? { if case .groups(let weight) = form { weight } else { nil } }

  /// The quantized weights of a checkpoint, in the order of its tensors.
  ///
  /// - Throws: `damaged`, `different` and `unsupported` where the tensors of a weight do not fit
  ///   each other, or the weight of some is not there; `io`.
  package static func all(in checkpoint: Checkpoint) throws(PeftoolError) -> [QuantizedWeight] {
    let (weights, faults) = scan(checkpoint)
    if let fault = faults.first { throw fault }
    return weights
  }

  /// The quantized weights that are sound, and what is wrong with the others, one fault a weight.
  package static func scan(
    _ checkpoint: Checkpoint
  ) -> (weights: [QuantizedWeight], faults: [PeftoolError]) {
    var weights: [QuantizedWeight] = []
    var faults: [PeftoolError] = []
    let settings: Int4Settings?
    do throws(PeftoolError) {
      settings = try int4Settings(of: checkpoint)
    } catch {
      return ([], [error])
    }
    for tensor in checkpoint.tensors {
      let state = FourBitCode.allCases
        .map { tensor.name + stateOfBlocks + $0.rawValue }
        .compactMap { checkpoint[$0] }
      let module = tensor.name.hasSuffix(".weight") ? String(tensor.name.dropLast(7)) : tensor.name
      do throws(PeftoolError) {
        if let first = state.first {
          guard state.count == 1 else {
            throw PeftoolError(.damaged, "has an nf4 and an fp4 state")
          }
          weights.append(try QuantizedWeight(tensor, state: first, in: checkpoint))
        } else if let scales = checkpoint[module + scalesOfRows] {
          weights.append(try QuantizedWeight(tensor, module, scales: scales, in: checkpoint))
        } else if let settings, let module = Int4Weight.module(of: tensor, in: checkpoint) {
          weights.append(
            QuantizedWeight(try Int4Weight(tensor, of: module, settings, in: checkpoint)))
        }
      } catch {
        // What lies beside it may lie in another shard.
        let place = error.tensor.flatMap { checkpoint[$0] } ?? tensor
        faults.append(
          error.at(tensor: tensor.name, path: checkpoint.source.files[place.fileIndex].path))
      }
    }
    // What lies beside a weight with a fault would seem to belong to none.
    if faults.isEmpty { faults = orphans(of: weights, in: checkpoint) }
    return (weights, faults)
  }

  /// Without its state a weight's codes would pass for numbers.
  private static func orphans(
    of weights: [QuantizedWeight], in checkpoint: Checkpoint
  ) -> [PeftoolError] {
    // Such names mean something else where nothing is quantized.
    guard let first = weights.first else { return [] }
    let endings =
      switch first.form {
      case .groups(let weight): weight.layout == .hqq ? hqqEndings : int4Endings
      case .blocks, .rows: endings
      }
    let known = Set(weights.flatMap(\.names).map(ExactName.init))
    return checkpoint.tensors.filter { tensor in
      !known.contains(ExactName(tensor.name))
        && (tensor.name.contains(stateOfBlocks) || endings.contains(where: tensor.name.hasSuffix))
    }.map { tensor in
      PeftoolError(
        .damaged,
        "belongs to no quantized weight: others beside it are missing, or of another kind",
        tensor: tensor.name, path: checkpoint.source.files[tensor.fileIndex].path)
    }
  }

  /// What `config.json` says of weights in group-wise INT4; nil where there are none.
  private static func int4Settings(
    of checkpoint: Checkpoint
  ) throws(PeftoolError) -> Int4Settings? {
    let first = checkpoint.tensors.first { Int4Weight.module(of: $0, in: checkpoint) != nil }
    guard let first else { return nil }
    do throws(PeftoolError) {
      if let settings = try Int4Settings(checkpoint.modelConfig) { return settings }
    } catch {
      throw error.at(
        tensor: first.name, path: checkpoint.source.files[first.fileIndex].path)
    }
    throw PeftoolError(
      .unsupported,
      "has scales beside it, and no config.json says what they are: known are quantization (MLX) "
        + "and quantization_config of gptq, awq or hqq",
      tensor: first.name, path: checkpoint.source.files[first.fileIndex].path)
  }

  /// A weight in group-wise INT4.
  private init(_ weight: Int4Weight) {
    codes = weight.codes
    scales = weight.scales
    form = .groups(weight)
    names = weight.names
    name = weight.name
  }

  /// A weight of 8-bit rows.
  private init(
    _ codes: TensorInfo, _ module: String, scales: TensorInfo, in checkpoint: Checkpoint
  ) throws(PeftoolError) {
    guard codes.dtype == .i8, codes.shape.count == 2 else {
      throw PeftoolError(
        .damaged,
        "is \(codes.dtype.rawValue) of shape \(codes.shape.shapeText), a weight with SCB is a matrix "
          + "of I8")
    }
    try Self.check(scales, .f32, count: codes.shape[0])
    var names = [codes.name, scales.name]
    if let format = checkpoint[module + Self.formatOfRows] {
      try Self.check(format, .u8, count: 1)
      let value = try checkpoint.source.bytes(of: format)[0]
      guard value == 0 else {
        throw PeftoolError(
          .unsupported, "is \(value), expected 0: a weight by rows", tensor: format.name)
      }
      names.append(format.name)
    }
    self.codes = codes
    self.scales = scales
    form = .rows
    self.names = names
    name = codes.name
  }

  /// A weight of 4-bit blocks.
  private init(
    _ codes: TensorInfo, state: TensorInfo, in checkpoint: Checkpoint
  ) throws(PeftoolError) {
    let source = checkpoint.source
    let limit = Self.maximumStateByteCount
    guard state.dtype == .u8, state.byteCount <= limit else {
      throw PeftoolError(
        .damaged,
        "is \(state.dtype.rawValue) of \(state.byteCount) bytes, expected "
          + (state.dtype == .u8 ? "at most \(limit)" : "JSON as U8"),
        tensor: state.name)
    }
    let parsed: FourBitState
    do throws(PeftoolError) {
      parsed = try FourBitState(parsing: source.bytes(of: state))
    } catch {
      throw error.at(tensor: state.name)
    }
    guard state.name.hasSuffix(parsed.code.rawValue) else {
      throw PeftoolError(
        .different, "says quant_type \(parsed.code.rawValue)", tensor: state.name)
    }
    let byteCount = FourBitCode.byteCount(of: parsed.elementCount)
    guard codes.byteCount == byteCount else {
      throw PeftoolError(
        .different,
        "has \(codes.byteCount) bytes, shape \(parsed.shape.shapeText) needs \(byteCount)")
    }
    guard codes.strides == nil || codes.dtype.bitCount == 8 else {
      throw PeftoolError(
        .unsupported, "has codes in \(codes.dtype.rawValue) that do not lie in one piece")
    }
    func companion(_ ending: String) throws(PeftoolError) -> TensorInfo {
      guard let found = checkpoint["\(codes.name).\(ending)"] else {
        throw PeftoolError(.damaged, "has no tensor '\(codes.name.printable).\(ending)' beside it")
      }
      return found
    }
    let absmax = try companion("absmax")
    let map = try companion("quant_map")
    var names = [codes.name, absmax.name, map.name, state.name]
    guard try Self.levels(map, count: 16, in: source) == parsed.code.levels else {
      throw PeftoolError(
        .unsupported, "has other values than \(parsed.code.rawValue)", tensor: map.name)
    }
    var nested: Nested?
    if let offset = parsed.nestedOffset {
      try Self.check(absmax, .u8, count: parsed.blockCount)
      let scales = try companion("nested_absmax")
      let levels = try companion("nested_quant_map")
      try Self.check(scales, .f32, count: parsed.nestedBlockCount)
      nested = Nested(
        absmax: scales, levels: try Self.levels(levels, count: 256, in: source), offset: offset)
      names += [scales.name, levels.name]
    } else {
      try Self.check(absmax, .f32, count: parsed.blockCount)
    }
    self.codes = codes
    scales = absmax
    form = .blocks(parsed, nested: nested)
    self.names = names
    name = codes.name
  }

  /// A state has about 200 bytes.
  private static let maximumStateByteCount = 1 << 16

  private static func check(
    _ tensor: TensorInfo, _ dtype: DType, count: Int
  ) throws(PeftoolError) {
    guard tensor.dtype == dtype, tensor.elementCount == count else {
      throw PeftoolError(
        .different,
        "is \(tensor.dtype.rawValue) of \(tensor.elementCount), "
          + "the weight needs \(dtype.rawValue) of \(count)",
        tensor: tensor.name)
    }
  }

  private static func levels(
    _ tensor: TensorInfo, count: Int, in source: any TensorSource
  ) throws(PeftoolError) -> [Float] {
    try check(tensor, .f32, count: count)
    let bytes = try source.bytes(of: tensor)
    var levels = [Float](repeating: 0, count: count)
    var span = levels.mutableSpan
    // Any bit pattern is an element.
    Float.widen(unsafe bytes.span.bytes, .f32, into: &span, count: count)
    guard levels.allSatisfy(\.isFinite) else {
      throw PeftoolError(.damaged, "has NaN or infinite values", tensor: tensor.name)
    }
    return levels
  }
}
