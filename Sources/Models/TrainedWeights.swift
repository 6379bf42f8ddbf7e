import Adapters
package import Files

/// Which of a model's own weights are trained: besides adapters PEFT's `modules_to_save` and
/// `trainable_token_indices`, or all of them.
package struct TrainedWeights: Equatable, Sendable {
  /// The ends of the paths of modules that are trained whole: the embeddings, norms and linear
  /// layers.
  package let modules: [String]
  /// The tokens whose rows of the input embedding are trained, each once.
  package let tokens: [Int]
  /// Whether all is trained, and there are no adapters.
  package let isWholeModel: Bool
  /// Whether the gradients of the layers' matrices have one layer's memory, at which they take turns.
  package let sharesGradients: Bool

  /// Whether a layer's bias is trained with its weight.
  var trainsVectors: Bool { isWholeModel || !sharesGradients }

  /// Nothing.
  package static let none = TrainedWeights(modules: [], tokens: [])

  /// All weights of a model.
  package static func wholeModel(sharingGradients: Bool) -> TrainedWeights {
    TrainedWeights(isWholeModel: true, sharesGradients: sharingGradients)
  }

  /// The weights of some linear layers without their biases, by their paths.
  ///
  /// It is for a method that takes each layer's gradients as soon as they are there.
  package static func layers(_ paths: [String]) -> TrainedWeights {
    TrainedWeights(modules: paths, isWholeModel: false, sharesGradients: true)
  }

  private init(modules: [String] = [], isWholeModel: Bool, sharesGradients: Bool) {
    (self.modules, tokens) = (modules, [])
    self.isWholeModel = isWholeModel
    self.sharesGradients = sharesGradients
  }

  /// Modules by the ends of their paths, and tokens, of which repeated ones count once.
  package init(modules: [String], tokens: [Int]) {
    self.modules = modules
    (isWholeModel, sharesGradients) = (false, false)
    var known: Set<Int> = []
    self.tokens = tokens.filter { known.insert($0).inserted }
  }

  /// The path of the input embedding.
  package static let embedding = "model.embed_tokens"
  /// The path of the output embedding.
  package static let head = "lm_head"

  /// Whether a module is trained whole: a name is the end of its path, as PEFT matches them
  /// (`utils/other.py`, `_set_trainable`), inside of a word too.
  package func contains(_ module: String) -> Bool {
    isWholeModel || modules.contains(where: module.hasSuffix)
  }

  /// Whether a layer that is trained whole gets no adapter for it: PEFT looks for whole words there
  /// (`tuners_utils.py`, `check_target_module_exists`).
  package func takesPlaceOfAdapter(_ module: String) -> Bool {
    isWholeModel || modules.contains { module == $0 || module.hasSuffix("." + $0) }
  }

  /// Whether the table of both ends is trained as one.
  ///
  /// PEFT does so with `ensure_weight_tying`; without it, it trains a copy for one end, and the ends
  /// of a tied model part.
  package func containsTable(isTied: Bool) -> Bool {
    contains(Self.embedding) || (isTied && contains(Self.head))
  }

  /// The name under which a parameter is saved: PEFT's beside an adapter.
  func name(of parameter: String) -> String {
    isWholeModel ? parameter : AdapterKey.prefix + parameter
  }

  /// Refuses names that fit no module of a model, and those of what is made up of modules.
  ///
  /// - Parameter known: the paths of the modules that have a weight.
  /// - Throws: `different` for a name that fits nothing, `unsupported` for one of several modules.
  package func check(against known: [String]) throws(PeftoolError) {
    var groups: Set<String> = []
    for module in known {
      let parts = module.split(separator: ".")
      for count in 1..<max(1, parts.count) {
        groups.insert(parts[..<count].joined(separator: "."))
      }
    }
    for name in modules {
      if let group = groups.filter({ $0.hasSuffix(name) }).min() {
        throw PeftoolError(
          .unsupported,
          "--modules-to-save has '\(name.printable)', which fits '\(group)', a group of modules: "
            + "name modules, such as up_proj")
      }
      if !known.contains(where: { $0.hasSuffix(name) }) {
        throw PeftoolError(
          .different,
          "has no module '\(name.printable)' (--modules-to-save): it could be embed_tokens, "
            + "lm_head, norm, input_layernorm, q_proj or another")
      }
    }
  }
}

/// A weight of the model itself that is trained.
package struct TrainedWeight: Sendable {
  /// The values.
  package let parameter: TrainableParameter
  /// PEFT's names for it: that of the parameter, and the head's where both ends are one table.
  package let names: [String]
  /// The shape as it is saved: (outputs, inputs), or (count) of a norm and a bias.
  package let shape: [Int]

  init(_ parameter: TrainableParameter, shape: [Int], alsoAs other: String? = nil) {
    self.parameter = parameter
    self.shape = shape
    names = [parameter.name] + (other.map { [$0] } ?? [])
  }

  /// Whether it is rows of the input embedding.
  package var isRows: Bool { parameter.name == Self.rowsName }
  /// Whether it is a norm's weight or a bias.
  package var isVector: Bool { shape.count == 1 }

  /// The name of the trained rows of the input embedding.
  static var rowsName: String {
    AdapterKey.prefix + TrainedWeights.embedding + ".token_adapter.trainable_tokens_delta"
  }
}
