import Checkpoints
import Files
package import JSON
package import Tensors

/// The changes to a model's `config.json` that a merge asks for; keys keep their places.
struct ConfigEdits {
  fileprivate static let dtypeKeys = ["dtype", "torch_dtype"]
  private let base: BaseModel
  private var config: JSON?
  private var isChanged = false
  /// The keys that have other values now, each with its value.
  private(set) var settings: [JSON.Member] = []
  /// What the user should know of them.
  private(set) var notes: [String] = []

  init(base: BaseModel) {
    self.base = base
    config = base.config
    // The base's file has another one.
    isChanged = base.checkpoint.isView && config != nil
  }

  /// The configuration, where it has changed.
  var result: JSON? { isChanged ? config : nil }

  /// Says that the embeddings are no longer one parameter.
  mutating func untie() {
    set("tie_word_embeddings", .bool(false), isAdded: true)
    notes.append(
      "an adapter changes one end of the tied embeddings: both ends are written, "
        + "and the merged model is not tied")
  }

  /// Follows an embedding of another size.
  mutating func resize(to vocabularySize: Int?) {
    guard let vocabularySize, vocabularySize != base.inputEmbedding?.stored.rowCount else { return }
    set("vocab_size", .number(vocabularySize), isAdded: true)
    notes.append(
      "the vocabulary has \(vocabularySize) entries now: take the tokenizer that was trained with "
        + "the adapter")
  }

  /// Follows `layer_replication`.
  mutating func replicate() {
    let layers = base.replicatedLayers
    guard !layers.isEmpty else { return }
    for key in ["num_hidden_layers", "n_layer", "num_layers"] {
      set(key, .number(layers.count), isAdded: false)
    }
    for key in ["layer_types", "mlp_layer_types"] {
      guard case .array(let types) = textConfig?[key], layers.allSatisfy(types.indices.contains)
      else { continue }
      set(key, .array(layers.map { types[$0] }), isAdded: false)
    }
    notes.append("layer_replication: the model has \(layers.count) layers of its own now")
  }

  /// Follows adapters that were trained with positions stretched to longer texts.
  ///
  /// - Throws: as `StretchedPositions.Shared`.
  mutating func stretch(by adapters: [Adapter]) throws(PeftoolError) {
    let shared = try StretchedPositions.Shared(of: adapters)
    notes += shared.notes
    guard let old = config, let positions = shared.positions?.missing(in: old) else { return }
    let new = try positions.applied(to: old)
    config = new
    isChanged = true
    for key in PositionScaling.configKeys {
      if let value = new[key], value != old[key] { settings.append(.init(key, value)) }
    }
    notes.append("positions are stretched as in training: \(positions.scaling.text)")
  }

  /// Follows `--dtype`.
  mutating func setDType(_ dtype: DType) {
    guard let old = config, let name = dtype.torchName else { return }
    let new = old.with(dtype)
    guard new != old else { return }
    config = new
    isChanged = true
    let key = Self.dtypeKeys.first { old[$0] != nil } ?? Self.dtypeKeys[0]
    settings.append(.init(key, .string(name)))
  }

  /// Says of the codes, which stay, what the base's file says.
  mutating func keep(quantization settings: [JSON.Member]) {
    guard !settings.isEmpty, let new = config?.with(quantization: settings) else { return }
    config = new
  }

  /// The part of the configuration that describes the language model.
  private var textConfig: JSON? {
    if let text = config?["text_config"], case .object = text { return text }
    return config
  }

  /// Sets a key wherever it stands, at the top and in `text_config`.
  ///
  /// Where it stands nowhere, it is added at the top if `isAdded`.
  private mutating func set(_ key: String, _ value: JSON, isAdded: Bool) {
    guard let old = config else { return }
    var new = old.replacing(key, value)
    if let text = old["text_config"] {
      new = new.replacing("text_config", text.replacing(key, value))
    }
    if isAdded, new == old, old[key] == nil, old["text_config"]?[key] == nil,
      case .object(let members) = old
    {
      new = .object(members + [.init(key, value)])
    }
    if new != old {
      config = new
      isChanged = true
      settings.append(.init(key, value))
    }
  }
}

extension JSON {
  /// A model's configuration with another dtype, wherever it names one: in its parts, too.
  package func with(_ dtype: DType) -> JSON {
    guard case .object(let members) = self, let name = dtype.torchName else { return self }
    return .object(
      members.map { member in
        if ConfigEdits.dtypeKeys.contains(member.key), case .string = member.value {
          return .init(member.key, .string(name))
        }
        // How weights are quantized is another matter.
        let isPart = member.key != "quantization_config"
        return isPart ? .init(member.key, member.value.with(dtype)) : member
      })
  }

  /// A model's configuration with settings of quantization.
  ///
  /// transformers sorts the keys; where somebody else has not, the new ones come last.
  package func with(quantization settings: [JSON.Member]) -> JSON? {
    guard case .object(var members) = self else { return nil }
    for member in settings {
      let key = member.key
      members.removeAll { $0.key == key }
      let isSorted = zip(members, members.dropFirst()).allSatisfy {
        $0.key.precedesByBytes($1.key)
      }
      let sortedPlace = members.firstIndex { key.precedesByBytes($0.key) }
      members.insert(
        member, at: isSorted ? sortedPlace ?? members.endIndex : members.endIndex)
    }
    return .object(members)
  }

  /// What a configuration says of quantization, and what else it says.
  package func splitQuantization() -> (settings: [JSON.Member], rest: JSON) {
    guard case .object(let members) = self else { return ([], self) }
    let isSetting: (JSON.Member) -> Bool = { BaseModel.quantizationKeys.contains($0.key) }
    return (members.filter(isSetting), .object(members.filter { !isSetting($0) }))
  }

  /// The object with another value for a key that it has.
  fileprivate func replacing(_ key: String, _ value: JSON) -> JSON {
    guard case .object(let members) = self else { return self }
    return .object(members.map { $0.key == key ? .init(key, value) : $0 })
  }
}
