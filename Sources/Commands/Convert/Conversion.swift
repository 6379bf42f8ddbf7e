import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports
import Tensors

/// A GGUF model made a Hugging Face directory.
///
/// Peak memory: the metadata and their JSON, and 3 blocks of 1 MiB a thread, or of one head's rows
/// where those are more.
struct Conversion: Sendable {
  private let checkpoint: Checkpoint
  private let tensors: [TranslatedTensor]
  private let layout: CheckpointLayout
  private let texts: [(name: String, json: JSON)]
  let dtype: DType
  /// What the user should know.
  private(set) var notes: [String] = []

  /// Plans the conversion; of the tensors nothing is read but factors for frequencies.
  ///
  /// - Parameter dtype: what all tensors are written as; nil keeps that of the matrices, and takes
  ///   F32 for blocks.
  /// - Throws: `unsupported`, `different` and `damaged` with the path.
  init(
    _ checkpoint: Checkpoint, dtype: DType?, shardByteCount: Int
  ) throws(PeftoolError) {
    self.checkpoint = checkpoint
    do throws(PeftoolError) {
      guard let model = checkpoint.gguf else {
        throw PeftoolError(
          .unsupported, "is \(checkpoint.format.rawValue), expected GGUF")
      }
      let metadata = try GGUFMetadata(model.header)
      let factors = try Self.ropeFactors(model)
      let architecture = try GGUFArchitecture(metadata, model, ropeFactors: factors)
      let tensors = try GGUFTensors.translate(model, architecture)
      let tokenizer = try GGUFTokenizer(metadata)
      let result = dtype ?? Self.commonDType(tensors)
      guard let torchName = Self.torchNames[result] else {
        throw PeftoolError(.unsupported, "cannot be written as \(result.rawValue)")
      }
      self.tensors = tensors
      self.dtype = result
      layout = try CheckpointLayout(
        sharding: checkpoint,
        tensors.map {
          .init(name: $0.name, dtype: result, shape: $0.source.shape, fileIndex: 0)
        }, maximumByteCount: shardByteCount)
      let config = architecture.config(tokenizer.special, dtype: torchName)
      texts = [
        ("config.json", config),
        ("generation_config.json", .object(tokenizer.special.ids)),
        ("tokenizer.json", try tokenizer.json()),
        (
          "tokenizer_config.json",
          try tokenizer.configuration(contextLength: config.int(at: "max_position_embeddings"))
        ),
      ]
    } catch {
      throw error.at(path: checkpoint.path)
    }
    let blocks = tensors.count { $0.source.dtype.isBlock }
    if blocks > 0 {
      notes.append(
        "\(blocks.text(of: "tensor")) dequantized: the numbers are those of the quantized model, "
          + "not of the one that it was made from")
    }
  }

  private static let torchNames: [DType: String] = [
    .f32: "float32", .f16: "float16", .bf16: "bfloat16",
  ]

  /// The dtype of all matrices where that is one of F16 and BF16, else F32.
  private static func commonDType(_ tensors: [TranslatedTensor]) -> DType {
    let dtypes = Set(tensors.filter { $0.source.shape.count > 1 }.map(\.source.dtype))
    return dtypes.count == 1 && (dtypes == [.f16] || dtypes == [.bf16])
      ? dtypes.first ?? .f32 : .f32
  }

  private static func ropeFactors(_ model: GGUFFile) throws(PeftoolError) -> [Float]? {
    guard let tensor = model.tensors.first(where: { $0.name == GGUFTensors.ropeFactors }) else {
      return nil
    }
    guard tensor.dtype == .f32, tensor.elementCount <= 4096 else {
      throw PeftoolError(
        .unsupported,
        "is \(tensor.dtype.rawValue) of shape \(tensor.shape.shapeText), expected at most 4096 "
          + "numbers in F32", tensor: tensor.name)
    }
    let bytes = try model.bytes(of: tensor)
    var values = [Float](repeating: 0, count: tensor.elementCount)
    var span = values.mutableSpan
    // Any bytes may be read as bytes.
    unsafe Float.read(bytes.span.bytes, .f32, into: &span, count: tensor.elementCount)
    return values
  }

  /// The bytes of the safetensors files that will be written.
  var byteCount: Int { layout.byteCount }
  /// The tensors that will be written.
  var tensorCount: Int { tensors.count }

  /// Converts, and puts the directory in its place.
  ///
  /// - Throws: `io`, `damaged` where the input is cut short, `different` where it changed meanwhile
  ///   or a number does not fit the dtype.
  func run(
    to path: String, isForced: Bool, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    var output = try StagedOutput(
      .directory, at: path, force: isForced, apartFrom: checkpoint.source.files)
    let files = try output.createFiles(of: layout)
    for text in texts { try output.write(text.json, to: text.name) }
    try write(files, threads: threads, progress)
    try checkpoint.source.verifyUnchanged()
    try output.commit()
  }
}

// The pass.
extension Conversion {
  /// A step of the work, in the order of the output's bytes.
  private enum Step {
    case header(file: Int)
    /// Elements of a tensor, counted in units that stay together: elements, blocks or heads.
    case elements(Range<Int>, tensor: Int, file: Int, offset: Int)
  }

  private static let stepElementCount = 1 << 18

  private var steps: [Step] {
    var steps: [Step] = []
    for (place, file) in layout.files.enumerated() {
      steps.append(.header(file: place))
      for (item, byteRange) in file.tensors {
        let tensor = tensors[item].source
        let unit = max(tensors[item].unitElementCount, 1)
        let count = max(Self.stepElementCount / unit, 1) * unit
        for start in stride(from: 0, to: tensor.elementCount, by: count) {
          steps.append(
            .elements(
              start..<min(start + count, tensor.elementCount), tensor: item, file: place,
              offset: byteRange.lowerBound + dtype.byteCount(of: start)))
        }
      }
    }
    return steps
  }

  private func write(
    _ files: [OutputFile], threads: Int, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    let steps = steps
    try forEachBlock(count: steps.count, threads: threads) {
      (queue, current) throws(PeftoolError) in
      while let place = queue.next() {
        current = place
        switch steps[place] {
        case .header(let file):
          let header = layout.files[file].header
          // Any bytes may be read as bytes.
          try unsafe files[file].write(header.span.bytes, at: 0)
        case .elements(let elements, let tensor, let file, let offset):
          try convert(elements, of: tensors[tensor], into: files[file], at: offset)
          progress(dtype.byteCount(of: elements.count))
        }
      }
    }
  }

  private func convert(
    _ elements: Range<Int>, of tensor: TranslatedTensor, into file: OutputFile, at offset: Int
  ) throws(PeftoolError) {
    let source = tensor.source.dtype
    let count = elements.count
    var bytes = Block(byteCount: source.byteCount(of: count))
    try checkpoint.source.read(tensor.source, elements: elements, as: source, into: &bytes)
    if let headRowCount = tensor.interleavedRowCount {
      let rowByteCount = source.byteCount(of: tensor.source.rowElementCount)
      var apart = Block(byteCount: bytes.byteCount)
      bytes.deinterleave(rows: headRowCount, rowByteCount: rowByteCount, into: &apart)
      bytes = apart
    }
    var result = Block(byteCount: dtype.byteCount(of: count))
    if source.fitsSingle {
      translate(bytes, source, into: &result, count: count, Float.self)
    } else {
      translate(bytes, source, into: &result, count: count, Double.self)
    }
    let written = result.bytes(dtype.byteCount(of: count))
    let nonfinite = dtype.nonfiniteCount(written, count: count)
    guard nonfinite == 0 else {
      throw PeftoolError(
        .different,
        "\(nonfinite.text(of: "element")) NaN or infinite in \(dtype.rawValue)"
          + (dtype == .f16 ? "; F32 and BF16 hold larger numbers" : ""),
        tensor: tensor.source.name, path: checkpoint.path)
    }
    try file.write(written, at: offset)
  }

  private func translate<R: Real>(
    _ bytes: borrowing Block, _ source: DType, into result: inout Block, count: Int, _: R.Type
  ) {
    var values = [R](repeating: 0, count: count)
    var span = values.mutableSpan
    R.read(bytes.bytes(source.byteCount(of: count)), source, into: &span, count: count)
    var written = result.mutableBytes(dtype.byteCount(of: count))
    R.narrow(values.span, dtype, into: &written, count: count)
  }
}

extension TranslatedTensor {
  /// The elements that are read together: a block's, or a head's where its rows change places.
  var unitElementCount: Int {
    interleavedRowCount.map { $0 * source.rowElementCount } ?? source.dtype.blockElementCount
  }
}
