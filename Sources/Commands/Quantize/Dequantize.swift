import Adapters
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Quantization
import Tensors

/// What `dequantize` will write: the weights of a model by the formula of their codes.
///
/// A weight is level · scale in f32, rounded once to the type that it had. bitsandbytes' own decoder
/// for AVX-512 takes the scales of wrong blocks where the input width is no multiple of 64; its files
/// are right, and so is this.
struct DequantizePlan: Sendable {
  /// A tensor to be written.
  struct Tensor: Sendable {
    let name: String
    let dtype: DType
    let shape: [Int]
    /// The weight that it is made of; nil for a copy.
    let weight: QuantizedWeight?
    /// Where a copy comes from.
    let stored: StoredTensor
    /// Whether the weight is turned back, for a `Conv1D`.
    let isTransposed: Bool
  }

  let checkpoint: Checkpoint
  let tensors: [Tensor]
  /// `config.json` without `quantization_config`; nil where there is none.
  let config: JSON?

  /// Plans for a quantized model.
  ///
  /// - Throws: `unsupported` where bitsandbytes has quantized nothing; `damaged` and `different`
  ///   where the tensors of a weight do not fit each other.
  init(_ checkpoint: Checkpoint) throws(PeftoolError) {
    self.checkpoint = checkpoint
    var config = try checkpoint.config
    if let method = config?["quantization_config"]?["quant_method"],
      method != .string("bitsandbytes")
    {
      throw PeftoolError(
        .unsupported, "is quantized by \(method.summary), expected \"bitsandbytes\"",
        path: checkpoint.path)
    }
    let weights = try QuantizedWeight.all(in: checkpoint)
    guard !weights.isEmpty else {
      throw PeftoolError(
        .unsupported, "has no weight that bitsandbytes has quantized", path: checkpoint.path)
    }
    var places: [ExactName: QuantizedWeight] = [:]
    var companions: Set<ExactName> = []
    for weight in weights {
      places[ExactName(weight.codes.name)] = weight
      companions.formUnion(weight.names.map(ExactName.init))
    }
    var modelType = ""
    if case .string(let type) = config?["model_type"] { modelType = type }
    // LLM.int8 does not tell what a weight was before; what it is computed in is the configuration's.
    var dtype = DType.f16
    for key in ["dtype", "torch_dtype"] {
      if case .string(let name) = config?[key], let found = FourBitState.dtype(named: name) {
        dtype = found
        break
      }
    }
    tensors = checkpoint.tensors.compactMap { info -> Tensor? in
      let stored = StoredTensor(info, in: checkpoint.source)
      guard let weight = places[ExactName(info.name)] else {
        guard !companions.contains(ExactName(info.name)) else { return nil }
        return Tensor(
          name: info.name, dtype: info.dtype, shape: info.shape, weight: nil, stored: stored,
          isTransposed: false)
      }
      let module = info.name.moduleOfWeight ?? info.name
      let isTransposed = BaseModel.isConv1D(module, modelType: modelType)
      return Tensor(
        name: info.name, dtype: weight.dtype ?? dtype,
        shape: isTransposed ? weight.shape.reversed() : weight.shape, weight: weight,
        stored: stored, isTransposed: isTransposed)
    }.sorted { ParameterOrder($0.name) < ParameterOrder($1.name) }
    if case .object(let members) = config {
      config = .object(members.filter { $0.key != "quantization_config" })
    }
    self.config = config
  }

  /// The weights that are made of codes.
  var weightCount: Int { tensors.count { $0.weight != nil } }

  /// The bytes that are written.
  var byteCount: Int {
    tensors.reduce(0) { $0 + $1.shape.reduce(1, *) * $1.dtype.bitCount / 8 }
  }
}

/// Carries out a `DequantizePlan` in one pass.
///
/// Peak memory: for each thread a step of some MiB; for a `Conv1D`, which is turned around, the
/// weight in work twice.
struct Dequantize: Sendable {
  let plan: DequantizePlan

  private static let stepElementCount = 1 << 19
  private static let copyByteCount = 8 << 20

  private enum Step {
    case header(file: Int)
    case copy(InputFile, Range<Int>, file: Int, offset: Int)
    case elements(Range<Int>, tensor: Int, file: Int, offset: Int)
  }

  /// Dequantizes, and puts the output in its place; gives the bytes of the tensors' files.
  ///
  /// - Parameter progress: is told of bytes written, from any thread.
  /// - Throws: `io`, `damaged` and `different` where an input is cut short or changes.
  func run(
    to path: String, force: Bool, threads: Int?, shardByteCount: Int,
    progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Int {
    let layout = try CheckpointLayout(
      saving: plan.tensors.map {
        .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: 0)
      },
      maximumByteCount: shardByteCount,
      parameterCount: plan.tensors.reduce(0) { $0 + $1.shape.reduce(1, *) })
    let folder = ModelFolder(source: plan.checkpoint, layout: layout, config: plan.config)
    try folder.write(to: path, force: force) { files throws(PeftoolError) in
      let steps = steps(layout)
      try forEachBlock(count: steps.count, threads: threads ?? availableProcessorCount) {
        (queue, current) throws(PeftoolError) in
        var worker = DequantizeWorker()
        while let step = queue.next() {
          current = step
          switch steps[step] {
          case .header(let file):
            let header = layout.files[file].header
            // Any bytes may be read as bytes.
            try unsafe files[file].write(header.span.bytes, at: 0)
          case .copy(let input, let range, let file, let offset):
            try files[file].copy(range, of: input, to: offset)
            progress(range.count)
          case .elements(let elements, let tensor, let file, let offset):
            let tensor = plan.tensors[tensor]
            try worker.dequantize(elements, of: tensor, in: files[file], at: offset)
            progress(elements.count * tensor.dtype.bitCount / 8)
          }
        }
      }
    }
    return layout.byteCount
  }

  private func steps(_ layout: CheckpointLayout) -> [Step] {
    var steps: [Step] = []
    for (file, entry) in layout.files.enumerated() {
      steps.append(.header(file: file))
      for (item, range) in entry.tensors {
        let tensor = plan.tensors[item]
        guard let weight = tensor.weight else {
          let input = tensor.stored.source.files[tensor.stored.info.fileIndex]
          let from = tensor.stored.info.byteRange
          for start in stride(from: 0, to: from.count, by: Self.copyByteCount) {
            let end = min(start + Self.copyByteCount, from.count)
            steps.append(
              .copy(
                input, from.lowerBound + start..<from.lowerBound + end, file: file,
                offset: range.lowerBound + start))
          }
          continue
        }
        let count = weight.elementCount
        let unit = tensor.isTransposed ? count : weight.unit
        let length = max(1, Self.stepElementCount / unit) * unit
        for start in stride(from: 0, to: count, by: length) {
          steps.append(
            .elements(
              start..<min(start + length, count), tensor: item, file: file,
              offset: range.lowerBound + start * tensor.dtype.bitCount / 8))
        }
      }
    }
    return steps
  }
}

/// The buffers of one thread, and what it does with elements of a weight.
struct DequantizeWorker: ~Copyable {
  private var codes = Block(byteCount: 0)
  private var scaleBytes = Block(byteCount: 0)
  private var output = Block(byteCount: 0)
  private var turned = Block(byteCount: 0)
  private var scales: [Float] = []
  private var nestedScales: [Float] = []
  private var values: [Float] = []

  /// Writes elements that begin with a unit of the weight, and for a transposed one all of them.
  mutating func dequantize(
    _ elements: Range<Int>, of tensor: DequantizePlan.Tensor, in file: OutputFile, at offset: Int
  ) throws(PeftoolError) {
    guard let weight = tensor.weight else { return }
    do throws(PeftoolError) {
      switch weight.form {
      case .blocks(let state, let nested):
        try readBlocks(elements, of: weight, state, nested, tensor.stored.source)
        decode(elements.count, state, to: tensor.dtype)
      case .rows:
        try readRows(elements, of: weight, tensor.stored.source)
        decode(rows: elements.count / weight.shape[1], weight.shape[1], to: tensor.dtype)
      }
    } catch {
      throw tensor.stored.at(error)
    }
    let size = tensor.dtype.bitCount / 8
    guard tensor.isTransposed else {
      try file.write(output.bytes(elements.count * size), at: offset)
      return
    }
    turned.resize(to: elements.count * size)
    Self.turn(
      output, rows: weight.shape[0], columns: weight.shape[1], elementByteCount: size,
      into: &turned)
    try file.write(turned.bytes(elements.count * size), at: offset)
  }

  private mutating func readBlocks(
    _ elements: Range<Int>, of weight: QuantizedWeight, _ state: FourBitState,
    _ nested: QuantizedWeight.Nested?, _ source: any TensorSource
  ) throws(PeftoolError) {
    try Self.read(
      elements.lowerBound / 2..<FourBitCode.byteCount(of: elements.upperBound), of: weight.codes,
      source, into: &codes)
    let blocks =
      elements.lowerBound
      / state.blockSize..<FourBitCode.blockCount(
        of: elements.upperBound, blockSize: state.blockSize)
    guard let nested else {
      try Self.read(blocks, of: weight.scales, source, &scaleBytes, into: &scales)
      return
    }
    let nestedBlocks =
      blocks.lowerBound
      / NestedScales.blockSize..<FourBitCode.blockCount(
        of: blocks.upperBound, blockSize: NestedScales.blockSize)
    try Self.read(nestedBlocks, of: nested.absmax, source, &scaleBytes, into: &nestedScales)
    try Self.read(blocks, of: weight.scales, source, into: &scaleBytes)
    if scales.count < blocks.count { scales = Array(repeating: 0, count: blocks.count) }
    Self.decode(scaleBytes, nested, nestedScales, count: blocks.count, into: &scales)
  }

  private mutating func readRows(
    _ elements: Range<Int>, of weight: QuantizedWeight, _ source: any TensorSource
  ) throws(PeftoolError) {
    try Self.read(elements, of: weight.codes, source, into: &codes)
    let columns = weight.shape[1]
    try Self.read(
      elements.lowerBound / columns..<elements.upperBound / columns, of: weight.scales, source,
      &scaleBytes, into: &scales)
  }

  /// output ← the elements of the blocks that have been read.
  private mutating func decode(_ count: Int, _ state: FourBitState, to dtype: DType) {
    output.resize(to: count * dtype.bitCount / 8)
    let length = QuantizeWorker.tileElementCount
    if values.count < length { values = Array(repeating: 0, count: length) }
    for start in stride(from: 0, to: count, by: length) {
      let tile = start..<min(start + length, count)
      state.code.dequantize(
        codes, tile, blockSize: state.blockSize, scales: scales, into: &values)
      Self.narrow(values, tile, dtype, into: &output)
    }
  }

  /// output ← the elements of the rows that have been read.
  private mutating func decode(rows: Int, _ columns: Int, to dtype: DType) {
    output.resize(to: rows * columns * dtype.bitCount / 8)
    let length = max(1, QuantizeWorker.tileElementCount / columns)
    if values.count < length * columns {
      values = Array(repeating: 0, count: length * columns)
    }
    for start in stride(from: 0, to: rows, by: length) {
      let part = start..<min(start + length, rows)
      RowInt8.dequantize(codes, part, columns: columns, scales: scales, into: &values)
      Self.narrow(
        values, part.lowerBound * columns..<part.upperBound * columns, dtype, into: &output)
    }
  }

  private static func decode(
    _ codes: borrowing Block, _ nested: QuantizedWeight.Nested, _ absmax: [Float], count: Int,
    into scales: inout [Float]
  ) {
    let levels = nested.levels
    var span = scales.mutableSpan
    NestedScales.dequantize(
      codes.bytes(count), levels: levels.span, absmax: absmax.span, offset: nested.offset,
      count: count, into: &span)
  }

  private static func narrow(
    _ values: [Float], _ tile: Range<Int>, _ dtype: DType, into output: inout Block
  ) {
    let size = dtype.bitCount / 8
    var bytes = output.mutableBytes(tile.upperBound * size)
    var part = bytes._mutatingExtracting(tile.lowerBound * size..<tile.upperBound * size)
    Float.narrow(values.span, dtype, into: &part, count: tile.count)
  }

  private static func turn(
    _ block: borrowing Block, rows: Int, columns: Int, elementByteCount: Int,
    into turned: inout Block
  ) {
    let byteCount = rows * columns * elementByteCount
    var bytes = turned.mutableBytes(byteCount)
    Transposition.transpose(
      block.bytes(byteCount), rows: rows, columns: columns, elementByteCount: elementByteCount,
      into: &bytes)
  }

  private static func read(
    _ range: Range<Int>, of tensor: TensorInfo, _ source: any TensorSource,
    into block: inout Block
  ) throws(PeftoolError) {
    block.resize(to: range.count)
    var bytes = block.mutableBytes(range.count)
    try source.read(tensor, bytes: range, into: &bytes)
  }

  /// Reads F32 elements of a tensor.
  private static func read(
    _ range: Range<Int>, of tensor: TensorInfo, _ source: any TensorSource, _ block: inout Block,
    into values: inout [Float]
  ) throws(PeftoolError) {
    try read(range.lowerBound * 4..<range.upperBound * 4, of: tensor, source, into: &block)
    if values.count < range.count { values = Array(repeating: 0, count: range.count) }
    var span = values.mutableSpan
    Float.widen(block.bytes(range.count * 4), .f32, into: &span, count: range.count)
  }
}

extension QuantizedWeight {
  /// The type of the weight before, where the file tells.
  fileprivate var dtype: DType? {
    if case .blocks(let state, _) = form { state.dtype } else { nil }
  }

  /// Elements that can be read without others: those of the largest group that shares a scale.
  fileprivate var unit: Int {
    switch form {
    case .rows: shape[1]
    case .blocks(let state, let nested):
      max(
        QuantizeWorker.tileElementCount,
        nested == nil ? state.blockSize : state.blockSize * NestedScales.blockSize)
    }
  }
}

extension Block {
  /// Makes room for so many bytes, whose values do not matter.
  fileprivate mutating func resize(to byteCount: Int) {
    if self.byteCount < byteCount { self = Block(byteCount: byteCount) }
  }
}
