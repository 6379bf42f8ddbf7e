import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// A Hugging Face directory, or an adapter, made a GGUF file: the mirror of `Conversion`.
///
/// Peak memory: the tokenizer, and what `GGUFOutput` takes.
struct GGUFWriting: Sendable {
  let source: any TensorSource
  let output: GGUFOutput
  /// The type of the matrices, where their rows have whole blocks.
  let dtype: DType
  /// What the user should know.
  var notes: [String] = []

  /// Plans the conversion of a model; of the tensors nothing is read.
  ///
  /// - Parameter dtype: what matrices are written as; nil takes the first matrix's BF16 or F16, and
  ///   F16 where it has neither.
  /// - Throws: `unsupported`, `different` and `damaged` with the path.
  init(_ checkpoint: Checkpoint, dtype: DType?) throws(PeftoolError) {
    if let what = checkpoint.packed != nil ? "packed" : checkpoint.gguf != nil ? "GGUF" : nil {
      throw PeftoolError(
        .unsupported, "is \(what): convert it to a directory first, then that to GGUF",
        path: checkpoint.path)
    }
    let codes = dtype == .q4v1 ? try CodesForGGUF(checkpoint) : nil
    let checkpoint = codes?.model ?? checkpoint
    source = checkpoint.source
    notes = codes?.notes ?? []
    guard let folder = checkpoint.directory, let config = try checkpoint.config else {
      throw PeftoolError(
        .unsupported, "has no config.json beside its tensors: no model directory",
        path: checkpoint.path)
    }
    let configPath = Folder.path(folder, "config.json")
    let architecture: GGUFArchitecture
    do throws(PeftoolError) {
      architecture = try GGUFArchitecture(
        config: config, hasOutput: checkpoint["lm_head.weight"] != nil)
    } catch {
      throw error.at(path: configPath)
    }
    let result = dtype ?? Self.commonDType(checkpoint.tensors)
    guard let fileType = GGUFFileType.number(of: result) else {
      throw PeftoolError(
        .unsupported, "cannot be written as \(result.rawValue)", path: checkpoint.path)
    }
    self.dtype = result
    let tokenizer = try TokenizerFields(inFolder: folder, config: config, architecture)
    do throws(PeftoolError) {
      var tensors = try Self.tensors(
        of: checkpoint, architecture, dtype: result, keepsOthers: codes?.hasCodes ?? false)
      if let factors = architecture.ropeFactors {
        tensors.insert(
          .init(name: GGUFTensors.ropeFactors, dtype: .f32, content: .values(factors)), at: 0)
      }
      let generationPath = Folder.path(folder, "generation_config.json")
      var fields: [GGUFField] = [
        .text("general.architecture", architecture.family.architecture),
        .text("general.type", "model"),
      ]
      fields += try GeneralFields.fields(
        folder: folder, config: config,
        generation: Folder.exists(generationPath) ? try JSON(opening: generationPath) : nil,
        parameterCount: tensors.reduce(0) { $0 + $1.shape.reduce(1, *) })
      fields += try architecture.fields(fileType: fileType)
      fields.append(GeneralFields.quantizationVersion)
      fields += try tokenizer.fields()
      output = try GGUFOutput(fields, tensors)
      let whole = tensors.count { $0.dtype != result && $0.shape.count > 1 }
      if whole > 0, codes?.hasCodes != true {
        notes.append(
          "\(whole.text(of: "tensor")) as F16, whose rows have no whole blocks "
            + "of \(result.rawValue)")
      }
    } catch {
      throw error.at(path: checkpoint.path)
    }
    if let window = architecture.slidingWindow, window < architecture.contextLength {
      notes.append(
        "sliding_window \(window) is left out, as llama.cpp's converter does: the model will look "
          + "at all of its context")
    }
  }

  /// What llama.cpp's converter chooses with `--outtype auto`.
  private static func commonDType(_ tensors: [TensorInfo]) -> DType {
    tensors.first { $0.shape.count > 1 && ($0.dtype == .bf16 || $0.dtype == .f16) }?.dtype ?? .f16
  }

  /// Tensors that models of transformers 4 had saved and that nothing reads.
  private static let ignoredEndings = [
    ".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias",
  ]

  private static func tensors(
    of checkpoint: Checkpoint, _ architecture: GGUFArchitecture, dtype: DType,
    keepsOthers: Bool
  ) throws(PeftoolError) -> [GGUFOutput.Tensor] {
    // Every layer has several tensors, so a count beyond them all is refused before it is used.
    guard architecture.layerCount <= checkpoint.tensors.count else {
      throw PeftoolError(
        .different,
        "has \(checkpoint.tensors.count) tensors, too few for \(architecture.layerCount) layers")
    }
    var expected: [ExactName: GGUFTensors.Place] = [:]
    for place in GGUFTensors.places(architecture) { expected[ExactName(place.name)] = place }
    var tensors: [GGUFOutput.Tensor] = []
    for tensor in checkpoint.tensors {
      if ignoredEndings.contains(where: tensor.name.hasSuffix) { continue }
      // Of tied embeddings transformers reads the first alone.
      if architecture.isTied, tensor.name == "lm_head.weight" { continue }
      guard let place = expected.removeValue(forKey: ExactName(tensor.name)) else {
        throw PeftoolError(
          .unsupported,
          "has no place in a \(architecture.family.className) of \(architecture.layerCount) layers",
          tensor: tensor.name)
      }
      try check(tensor, place)
      var stored = GGUFOutput.Stored(source: checkpoint.source, info: tensor)
      if let rows = place.interleavedRowCount { stored.order = .interleaved(rows) }
      let isKept =
        keepsOthers && !tensor.dtype.isBlock && GGUFFileType.number(of: tensor.dtype) != nil
      tensors.append(
        .init(
          name: place.gguf,
          dtype: GGUFFileType.dtype(of: place, as: isKept ? tensor.dtype : dtype),
          content: .stored(stored)))
    }
    if let missing = expected.keys.min(by: { $0.string.precedesByBytes($1.string) }) {
      throw PeftoolError(.different, "there is no such tensor", tensor: missing.string)
    }
    return tensors
  }

  private static func check(
    _ tensor: TensorInfo, _ place: GGUFTensors.Place
  ) throws(PeftoolError) {
    guard tensor.shape == place.shape else {
      throw PeftoolError(
        .different, "is \(tensor.shape.shapeText), config.json says \(place.shape.shapeText)",
        tensor: tensor.name)
    }
    guard tensor.dtype.isComputable || tensor.dtype == .q4v1 else {
      throw PeftoolError(
        .unsupported, "is \(tensor.dtype.rawValue), expected F64, F32, F16, BF16 or F8",
        tensor: tensor.name)
    }
  }

  /// The size of the file that will be written.
  var byteCount: Int { output.byteCount }
  /// The tensors that will be written.
  var tensorCount: Int { output.tensorCount }

  /// Converts, and puts the file in its place.
  ///
  /// - Throws: as `GGUFOutput.run`.
  func run(
    to path: String, isForced: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    try output.run(
      to: path, apartFrom: [source], isForced: isForced, threads: threads,
      progress: progress)
  }
}

/// The mixtures of types that peftool writes: one type for all matrices.
enum GGUFFileType {
  /// llama.cpp's number for the mixture; nil for a type that is not written.
  static func number(of dtype: DType) -> Int? { numbers[dtype] }

  private static let numbers: [DType: Int] = [
    .f32: 0, .f16: 1, .q4v0: 2, .q4v1: 3, .q8v0: 7, .q5v0: 8, .q5v1: 9, .bf16: 32,
  ]

  /// What one tensor is written as: vectors and norms as F32, rows that end inside a block as F16.
  static func dtype(of place: GGUFTensors.Place, as dtype: DType) -> DType {
    guard place.shape.count > 1 else { return .f32 }
    return self.dtype(ofRow: place.shape.last ?? 0, as: dtype)
  }

  /// The type for rows of so many elements.
  static func dtype(ofRow elementCount: Int, as dtype: DType) -> DType {
    elementCount.isMultiple(of: dtype.blockElementCount) ? dtype : .f16
  }
}
