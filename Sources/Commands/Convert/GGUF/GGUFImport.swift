import Adapters
import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// What a GGUF model becomes: tensors under transformers' names, configuration and tokenizer.
struct GGUFImport: Sendable {
  /// The tensors, all as `dtype`.
  let tensors: [Conversion.Tensor]
  /// What they are written as.
  let dtype: DType
  /// The files beside them, where they are wanted.
  let companions: [(name: String, json: JSON)]
  /// What the user should know.
  let notes: [String]

  /// Plans the conversion; of the tensors nothing is read but factors for frequencies.
  ///
  /// - Parameter dtype: what all tensors are written as; nil keeps that of the matrices, and takes
  ///   F32 for blocks.
  /// - Parameter hasCompanions: whether the files beside the tensors are wanted; what is wrong with
  ///   the tokenizer is of no matter without.
  /// - Throws: `unsupported`, `different` and `damaged` with the path.
  init(_ checkpoint: Checkpoint, dtype: DType?, hasCompanions: Bool) throws(PeftoolError) {
    do throws(PeftoolError) {
      guard let model = checkpoint.gguf else {
        throw PeftoolError(
          .unsupported, "is \(checkpoint.format.rawValue), expected GGUF")
      }
      guard model.header["general.type"]?.text != "adapter" else {
        throw PeftoolError(
          .unsupported, "is an adapter of llama.cpp, expected a model: those are not read back")
      }
      let metadata = try GGUFMetadata(model.header)
      let factors = try Self.ropeFactors(model)
      let architecture = try GGUFArchitecture(metadata, model, ropeFactors: factors)
      let translated = try GGUFTensors.translate(model, architecture)
      let result = dtype ?? Self.commonDType(translated)
      guard let torchName = result.torchName else {
        throw PeftoolError(.unsupported, "cannot be written as \(result.rawValue)")
      }
      let rowCounts = translated.compactMap { tensor in
        tensor.interleavedRowCount.map { (tensor.source.name, $0) }
      }
      let source = HeadOrderSource(
        stored: model, headRowCounts: Dictionary(uniqueKeysWithValues: rowCounts))
      tensors = translated.map {
        .init(name: $0.name, stored: StoredTensor($0.source, in: source), dtype: result)
      }
      self.dtype = result
      companions =
        hasCompanions ? try Self.companions(metadata, architecture, dtype: torchName) : []
    } catch {
      throw error.at(path: checkpoint.path)
    }
    let blocks = tensors.count { $0.stored.dtype.isBlock }
    notes =
      blocks == 0
      ? []
      : [
        "\(blocks.text(of: "tensor")) dequantized: the numbers are those of the quantized model, "
          + "not of the one that it was made from"
      ]
  }

  private static func companions(
    _ metadata: GGUFMetadata, _ architecture: GGUFArchitecture, dtype: String
  ) throws(PeftoolError) -> [(name: String, json: JSON)] {
    let tokenizer = try GGUFTokenizer(metadata)
    let config = architecture.config(tokenizer.special, dtype: dtype)
    return [
      ("config.json", config),
      ("generation_config.json", .object(tokenizer.special.ids)),
      ("tokenizer.json", try tokenizer.json()),
      (
        "tokenizer_config.json",
        try tokenizer.configuration(contextLength: config.int(at: "max_position_embeddings"))
      ),
    ]
  }

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
}
