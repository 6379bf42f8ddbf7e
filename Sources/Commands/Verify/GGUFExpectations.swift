import Checkpoints
import Files
import Tensors

/// What the metadata of a GGUF model make certain of its tensors and of each other.
struct GGUFExpectations {
  private let model: GGUFFile
  private let architecture: String

  init(_ model: GGUFFile) {
    self.model = model
    architecture = model.header["general.architecture"]?.text ?? ""
  }

  /// No model has more; a file may say anything.
  private static let maximumLayerCount = 100_000

  /// What does not fit together.
  var faults: [PeftoolError] {
    (layerFaults + vocabularyFaults).map { $0.at(path: model.files[0].path) }
  }

  private var layerFaults: [PeftoolError] {
    let key = "\(architecture).block_count"
    guard let count = model.header[key]?.int, count >= 0 else { return [] }
    var layers: Set<Int> = []
    for tensor in model.tensors {
      let parts = tensor.name.split(separator: ".", maxSplits: 2)
      if parts.count > 2, parts[0] == "blk", let layer = Int(parts[1]) { layers.insert(layer) }
    }
    guard !layers.isEmpty else { return [] }
    var faults: [PeftoolError] = []
    let missing = (0..<min(count, Self.maximumLayerCount)).filter { !layers.contains($0) }
    let extra = layers.filter { $0 >= count }.sorted()
    if !missing.isEmpty {
      faults.append(
        PeftoolError(
          .different, "\(key) is \(count), the tensors have no layer \(missing.rangesText)"))
    }
    if !extra.isEmpty {
      faults.append(
        PeftoolError(
          .different, "\(key) is \(count), the tensors have layer \(extra.rangesText), too"))
    }
    return faults
  }

  private var vocabularyFaults: [PeftoolError] {
    guard case .array(let tokens) = model.header["tokenizer.ggml.tokens"] else { return [] }
    var faults: [PeftoolError] = []
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
      guard case .array(let values) = model.header[key], values.count != tokens.count else {
        continue
      }
      faults.append(
        PeftoolError(
          .different,
          "\(key) has \(values.count) elements, tokenizer.ggml.tokens has \(tokens.count)"))
    }
    // Rows beyond the vocabulary are padding; a token without a row is a fault.
    if let embedding = model.tensors.first(where: { $0.name == "token_embd.weight" }),
      let rows = embedding.shape.first, rows < tokens.count
    {
      faults.append(
        PeftoolError(
          .different, "has \(rows) rows, tokenizer.ggml.tokens has \(tokens.count) elements",
          tensor: embedding.name))
    }
    for key in ["bos", "eos", "unknown", "padding"].map({ "tokenizer.ggml.\($0)_token_id" }) {
      guard let id = model.header[key]?.int, !(0..<tokens.count).contains(id) else { continue }
      faults.append(
        PeftoolError(
          .different, "\(key) is \(id), tokenizer.ggml.tokens has \(tokens.count) elements"))
    }
    return faults
  }
}
