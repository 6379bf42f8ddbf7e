import Checkpoints
import Files
import JSON
import Tensors

/// A tensor on its way from a GGUF model into a Hugging Face directory.
struct TranslatedTensor {
  let source: TensorInfo
  /// The name in transformers.
  let name: String
  /// The rows of a head whose two halves lie interleaved; nil where rows keep their places.
  let interleavedRowCount: Int?
}

/// The tensors of a model of the Llama family, under llama.cpp's names and under transformers'.
enum GGUFTensors {
  /// Factors for the frequencies of positions, which `config.json` tells in other words.
  static let ropeFactors = "rope_freqs.weight"

  /// No model has more layers; what is asked for without tensors to compare with ends here.
  static let maximumLayerCount = 10_000

  /// A tensor that there must be.
  struct Place {
    /// The name in GGUF.
    let gguf: String
    /// The name in transformers.
    let name: String
    let shape: [Int]
    /// The rows of a head whose two halves lie interleaved in GGUF; nil where rows keep their
    /// places.
    var interleavedRowCount: Int?
  }

  /// Pairs all tensors with their names, and compares shapes.
  ///
  /// - Throws: `different` for a tensor that is missing, `unsupported` for one that has no place.
  static func translate(
    _ model: GGUFFile, _ architecture: GGUFArchitecture
  ) throws(PeftoolError) -> [TranslatedTensor] {
    // Every layer has several tensors, so a count beyond them all is refused before it is used.
    guard architecture.layerCount <= model.tensors.count else {
      throw PeftoolError(
        .different,
        "has \(model.tensors.count) tensors, too few for \(architecture.layerCount) layers")
    }
    var expected: [ExactName: Place] = [:]
    for place in places(architecture) { expected[ExactName(place.gguf)] = place }
    var translated: [TranslatedTensor] = []
    for tensor in model.tensors where tensor.name != ropeFactors {
      guard let target = expected.removeValue(forKey: ExactName(tensor.name)) else {
        throw PeftoolError(
          .unsupported,
          "has no place in a \(architecture.family.className) of \(architecture.layerCount) "
            + "layers", tensor: tensor.name)
      }
      guard tensor.shape == target.shape else {
        throw PeftoolError(
          .different,
          "is \(tensor.shape.shapeText), the metadata say \(target.shape.shapeText)",
          tensor: tensor.name)
      }
      guard tensor.dtype.isNumeric else {
        throw PeftoolError(
          .unsupported, "is \(tensor.dtype.rawValue), expected numbers", tensor: tensor.name)
      }
      // ggml itself makes none; rows that are one element each have no blocks.
      guard tensor.shape.count > 1 || !tensor.dtype.isBlock else {
        throw PeftoolError(
          .unsupported, "is a vector of \(tensor.dtype.rawValue), expected numbers one by one",
          tensor: tensor.name)
      }
      translated.append(
        TranslatedTensor(
          source: tensor, name: target.name, interleavedRowCount: target.interleavedRowCount))
    }
    if let missing = expected.keys.min(by: { $0.string.precedesByBytes($1.string) }) {
      throw PeftoolError(.different, "there is no such tensor", tensor: missing.string)
    }
    return translated
  }

  /// What there must be.
  static func places(_ model: GGUFArchitecture) -> [Place] {
    let (hidden, inner) = (model.hiddenSize, model.innerSize)
    let (queries, keys) = (
      model.headCount * model.headSize, model.keyValueHeadCount * model.headSize
    )
    let interleaved = model.family.interleavesHeads ? model.headSize : nil
    var places: [Place] = []
    func add(_ gguf: String, _ name: String, _ shape: [Int], interleaved: Int? = nil) {
      places.append(
        Place(gguf: gguf, name: name, shape: shape, interleavedRowCount: interleaved))
    }
    add("token_embd.weight", "model.embed_tokens.weight", [model.vocabularySize, hidden])
    add("output_norm.weight", "model.norm.weight", [hidden])
    if !model.isTied { add("output.weight", "lm_head.weight", [model.vocabularySize, hidden]) }
    for layer in 0..<model.layerCount {
      let (block, target) = ("blk.\(layer).", "model.layers.\(layer).")
      func module(
        _ from: String, _ to: String, _ shape: [Int], hasBias: Bool = false,
        interleaved: Int? = nil
      ) {
        add("\(block)\(from).weight", "\(target)\(to).weight", shape, interleaved: interleaved)
        if hasBias {
          add("\(block)\(from).bias", "\(target)\(to).bias", [shape[0]], interleaved: interleaved)
        }
      }
      let hasBias = model.family.hasBiases || model.hasAttentionBias
      module("attn_norm", "input_layernorm", [hidden])
      module(
        "attn_q", "self_attn.q_proj", [queries, hidden], hasBias: hasBias,
        interleaved: interleaved)
      module(
        "attn_k", "self_attn.k_proj", [keys, hidden], hasBias: hasBias, interleaved: interleaved)
      module("attn_v", "self_attn.v_proj", [keys, hidden], hasBias: hasBias)
      module(
        "attn_output", "self_attn.o_proj", [hidden, queries], hasBias: model.hasAttentionBias)
      if model.family.hasHeadNorms {
        module("attn_q_norm", "self_attn.q_norm", [model.headSize])
        module("attn_k_norm", "self_attn.k_norm", [model.headSize])
      }
      module("ffn_norm", "post_attention_layernorm", [hidden])
      module("ffn_gate", "mlp.gate_proj", [inner, hidden], hasBias: model.hasInnerBias)
      module("ffn_up", "mlp.up_proj", [inner, hidden], hasBias: model.hasInnerBias)
      module("ffn_down", "mlp.down_proj", [hidden, inner], hasBias: model.hasInnerBias)
    }
    return places
  }
}
