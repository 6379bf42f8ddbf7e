import Files
import JSON
import Models
import Reports
import Training

/// What a method takes, for a model, a length and a batch.
struct PlannedRun {
  let method: PlannedMethod
  let parameterCount: Int
  let memory: Memory
  let keeping: LossPass.Keeping
  /// Whether that is there; nil where no limit is known.
  let fits: Bool?
  /// The rows of the largest batch for which it is there; nil without a limit, 0 for none.
  let largestBatch: Int?
  /// The seconds of a step that finds no new subspace, and of going through the data; nil where
  /// nothing was measured, or the data are not known.
  var seconds: (step: Double?, epoch: Double?) = (nil, nil)
  /// The bytes of the adapter or model that is written.
  let outputByteCount: Int
  /// Whether a merge into the base as it lies keeps what was trained.
  let isMerged: Bool
  /// Whether a merge of it makes numbers of codes.
  let isDecoded: Bool
  /// What an adapter adds to the products of a token while it is beside the weights.
  let addedShare: Double

  /// The bytes by their parts.
  struct Memory: Equatable {
    let weights, activations, gradients, optimizer, rest: Int
    var total: Int { weights + activations + gradients + optimizer + rest }
  }

  /// The names of what activations are.
  var activationsText: String { keeping == .inputs ? "computed twice" : "kept" }

  /// What it costs where the model is used.
  var usage: String {
    if method.trainsModel { return "nothing, it is a model" }
    if method.trainsEntries { return "nothing once merged, as which alone it is used" }
    let beside = "beside the weights \(addedShare.percentText) more products"
    guard isMerged else {
      return
        "\(beside); a merge wants the offsets that convert --layout mlx makes of the base"
    }
    let base = method.coding != nil ? ", of a base in 4 bits" : ""
    let whole = method.isLong ? "; full attention" : ""
    return "nothing once merged\(isDecoded ? " in 16 bits" : ""), \(beside)\(base)\(whole)"
  }

  var json: JSON {
    .object([
      .init("method", .string(method.name)), .init("aim", .string(method.aim.rawValue)),
      .init("parameters", .number(parameterCount)),
      .init("weightBytes", .number(memory.weights)),
      .init("activationBytes", .number(memory.activations)),
      .init("gradientBytes", .number(memory.gradients)),
      .init("optimizerBytes", .number(memory.optimizer)), .init("restBytes", .number(memory.rest)),
      .init("peakBytes", .number(memory.total)),
      .init("checkpointsActivations", .bool(keeping == .inputs)),
      .init("fits", fits.map(JSON.bool) ?? .null),
      .init("largestBatch", largestBatch.map { .number($0) } ?? .null),
      .init("secondsPerStep", seconds.step.map { .number($0) } ?? .null),
      .init("secondsPerEpoch", seconds.epoch.map { .number($0) } ?? .null),
      .init("outputBytes", .number(outputByteCount)), .init("addedShare", .number(addedShare)),
      .init("inUse", .string(usage)), .init("choose", .string(method.reason)),
    ])
  }
}
