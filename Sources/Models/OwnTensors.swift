import JSON
import Adapters
import Checkpoints
import Files
import Tensors

/// What an adapter has in the place of a model's own tensors: PEFT's `modules_to_save`, biases, and
/// `trainable_token_indices`.
package struct OwnTensors: Sendable {
  /// Whole tensors by the model's names for them.
  private(set) var values: [ExactName: StoredTensor] = [:]
  /// Rows of the input embedding, and their tokens.
  private(set) var rows: (tensor: StoredTensor, tokens: [Int])?

  /// Nothing.
  package static let none = OwnTensors()

  /// The names of the whole tensors.
  package var names: [String] { values.keys.map(\.string).sorted { $0.precedesByBytes($1) } }
  /// The tokens that have rows of their own.
  package var tokens: [Int] { rows?.tokens ?? [] }

  /// Takes what a change has for a tensor besides a low-rank update.
  ///
  /// - Throws: `unsupported` where it unties the ends of tied embeddings.
  mutating func add(
    _ resolved: ChangeResolver.Resolved, of base: BaseModel
  ) throws(PeftoolError) {
    let (target, change) = (resolved.target, resolved.change)
    let isTable = target.name == base.inputEmbedding?.name
    let isShared = base.isTied && (isTable || target.isOutputEmbedding)
    // PEFT saves embeddings along whether they were trained or not.
    if let own = change.own, !(try own.isSame(as: target.stored)) {
      if isShared, !(isTable && change.isOwnShared) { throw Self.untied(own, target) }
      values[ExactName(target.name)] = own
    }
    guard case .replaceRows(let tensor, let tokens) = change.update else { return }
    guard isTable, !isShared || change.isUpdateShared else { throw Self.untied(tensor, target) }
    rows = (tensor, tokens)
  }

  private static func untied(_ tensor: StoredTensor, _ target: BaseModel.Tensor) -> PeftoolError {
    tensor.at(
      PeftoolError(
        .unsupported,
        "changes '\(target.name.printable)' at one end of the model alone, which is not applied "
          + "beside the weights; \(ModelAdapters.wayOut)"))
  }
}

extension BaseModel.Tensor {
  /// Whether it is the output embedding's weight.
  fileprivate var isOutputEmbedding: Bool {
    name.moduleOfWeight.map(BaseModel.isOutputEmbedding) ?? false
  }
}
