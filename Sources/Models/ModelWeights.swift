import Adapters
import Checkpoints
import Files
import JSON
import Tensors

/// The tensors of a model by name, read one by one, with account of what has been read.
struct ModelWeights {
  let checkpoint: Checkpoint
  /// What is trained.
  let training: TrainedWeights
  /// What is read in the place of the model's own tensors.
  let own: OwnTensors
  /// What other models have read, and this one adds to.
  private let shared: SharedTensors?
  /// The weights that are trained, in the order in which they were read.
  var trainedWeights: [TrainedWeight] = []
  /// By the names of matrices within a layer the memory that their gradients share.
  var sharedGradients: [String: Rows] = [:]
  /// The modules whose weights have been read.
  var modules: [String] = []
  private let quantized: [ExactName: QuantizedWeight]
  private var unused: Set<ExactName>

  /// - Throws: as `QuantizedWeight.all`.
  init(
    _ checkpoint: Checkpoint, _ configuration: LlamaConfiguration, _ training: TrainedWeights,
    _ own: OwnTensors, sharing shared: SharedTensors? = nil
  ) throws(PeftoolError) {
    precondition(shared == nil || training == TrainedWeights.none, "what is shared is not trained")
    self.checkpoint = checkpoint
    self.training = training
    self.own = own
    self.shared = shared
    var quantized: [ExactName: QuantizedWeight] = [:]
    for weight in try QuantizedWeight.all(in: checkpoint) {
      quantized[ExactName(weight.name)] = weight
    }
    self.quantized = quantized
    unused = Set(checkpoint.tensors.map { ExactName($0.name) })
  }

  /// A weight (outputs, inputs).
  ///
  /// - Throws: `different` where it is not there or has another shape, `unsupported` for its dtype,
  ///   `io`, `damaged`.
  mutating func matrix(
    _ name: String, _ outputs: Int, _ inputs: Int
  ) throws(PeftoolError) -> FrozenWeight {
    let tensor = try tensor(name)
    let weight = quantized[ExactName(name)]
    for name in weight?.names ?? [] { unused.remove(ExactName(name)) }
    if let own = try own(name, [outputs, inputs]) { return own }
    try check(tensor, weight?.shape ?? tensor.shape, [outputs, inputs])
    if let known = shared?.matrices[ExactName(name)] { return known }
    let read = try placed(tensor) { () throws(PeftoolError) in
      guard let weight else { return try FrozenWeight(tensor, in: checkpoint.source) }
      return try FrozenWeight(weight, in: checkpoint.source)
    }
    shared?.matrices[ExactName(name)] = read
    return read
  }

  /// A vector in f32.
  ///
  /// - Throws: as `matrix`.
  mutating func vector(_ name: String, _ count: Int) throws(PeftoolError) -> Rows {
    let tensor = try tensor(name)
    if let own = try own(name, [count]) { return Rows(own.values, columns: count) }
    try check(tensor, tensor.shape, [count])
    if let known = shared?.vectors[ExactName(name)] { return known }
    let values = try placed(tensor) { () throws(PeftoolError) in
      try FrozenWeight(tensor, in: checkpoint.source).values
    }
    let read = Rows(values, columns: count)
    shared?.vectors[ExactName(name)] = read
    return read
  }

  /// What an adapter has in the place of a tensor.
  ///
  /// - Throws: as `matrix`.
  private func own(_ name: String, _ shape: [Int]) throws(PeftoolError) -> FrozenWeight? {
    guard let tensor = own.values[ExactName(name)] else { return nil }
    do throws(PeftoolError) {
      guard tensor.shape == shape else {
        throw PeftoolError(
          .different,
          "has shape \(tensor.shape.shapeText), the model's '\(name)' \(shape.shapeText)")
      }
      return try FrozenWeight(tensor.info, in: tensor.source)
    } catch {
      throw tensor.at(error)
    }
  }

  /// Refuses tensors that the model has no use for.
  ///
  /// - Throws: `different` with the first in the order of the file; as `TrainedWeights.check`.
  func checkAllUsed() throws(PeftoolError) {
    do throws(PeftoolError) {
      try training.check(against: modules)
    } catch {
      throw error.at(path: checkpoint.path)
    }
    let rest = checkpoint.tensors.filter { tensor in
      unused.contains(ExactName(tensor.name)) && !Self.isKnownRest(tensor.name)
    }
    guard let first = rest.first else { return }
    let others =
      switch rest.count {
      case 1: ""
      case 2: ", nor is 1 other"
      default: ", nor are \(rest.count - 1) others"
      }
    throw PeftoolError(
      .different,
      "is no part of such a model\(others): config.json is another's",
      tensor: first.name, path: path(of: first))
  }

  /// Buffers of old checkpoints, and the copy that a tied model may carry.
  private static func isKnownRest(_ name: String) -> Bool {
    name.hasSuffix(".rotary_emb.inv_freq") || name == "lm_head.weight"
  }

  private mutating func tensor(_ name: String) throws(PeftoolError) -> TensorInfo {
    guard let tensor = quantized[ExactName(name)]?.codes ?? checkpoint[name] else {
      throw PeftoolError(
        .different, "is not there, which config.json makes part of the model", tensor: name,
        path: checkpoint.path)
    }
    unused.remove(ExactName(tensor.name))
    if let module = name.moduleOfWeight { modules.append(module) }
    return tensor
  }

  private func check(_ tensor: TensorInfo, _ shape: [Int], _ expected: [Int]) throws(PeftoolError) {
    guard shape == expected else {
      throw PeftoolError(
        .different,
        "has shape \(shape.shapeText), config.json makes it \(expected.shapeText)",
        tensor: tensor.name, path: path(of: tensor))
    }
  }

  private func placed<Result>(
    _ tensor: TensorInfo, _ body: () throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> Result {
    do throws(PeftoolError) {
      return try body()
    } catch {
      throw error.at(tensor: tensor.name, path: path(of: tensor))
    }
  }

  private func path(of tensor: TensorInfo) -> String {
    checkpoint.source.files[tensor.fileIndex].path
  }
}
