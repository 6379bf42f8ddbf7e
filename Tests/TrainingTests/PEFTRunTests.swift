import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import LinearAlgebra
import Tensors
import Testing

@testable import Models
@testable import Training

/// A run of PEFT in `Samples/training`, made anew from its settings.
private struct PEFTRun {
  let peer: PeerRun
  let configuration: JSON
  let trainer: Trainer
  let adapter: any TrainedFiles
  var folder: String { peer.folder }

  init(_ name: String, ratio: Double = 1) throws {
    peer = try PeerRun(name)
    let (folder, expected) = (peer.folder, peer.expected)
    let known = try JSON(opening: folder + "/start/adapter_config.json")
    configuration = known
    var design = AdapterDesign()
    if name.hasPrefix("lora-fa") { design.method = .loraFA }
    if known["use_qalora"] == .bool(true) { design.method = .qaLoRA }
    if known["peft_type"] == .string("ADALORA") {
      design.method = .adaLoRA(try AdaLoRA.Settings(known))
    }
    let isSparse = known["peft_type"] == .string("SHIRA")
    design.rank = try known.int(at: "r")
    if isSparse {
      design.method = .shira(.init(rank: design.rank, mask: .magnitude, seed: 0))
    } else {
      design.alpha = try known.double(at: "lora_alpha")
      design.alphaPatterns = try AdapterConfiguration(known).alphaPatterns
    }
    design.usesDoRA = known["use_dora"] == .bool(true)
    design.usesRSLoRA = known["use_rslora"] == .bool(true)
    design.targets = .names(
      try known.array(at: "target_modules").map { try $0.string(named: "target_modules") })
    var (modules, tokens): ([String], [Int]) = ([], [])
    if let value = known["modules_to_save"], value != .null {
      modules = try value.array(named: "").map { try $0.string(named: "") }
    }
    if let value = known["trainable_token_indices"], value != .null {
      tokens = try value.array(named: "").map { try $0.int(named: "") }
    }
    var weights = TrainedWeights(modules: modules, tokens: tokens)
    if isSparse {
      let layers = try LlamaConfiguration(of: peer.base).linearLayers
      weights = .layers(layers.filter { !$0.hasSuffix(TrainedWeights.head) })
    }
    let base = try expected.string(at: "base")
    let model = try Llama(
      peer.base,
      quantizing: expected["quant"] == .string("nf4"), training: weights
    ) { [design] (module, weight, original) throws(PeftoolError) in
      isSparse ? nil : try design.adapter(of: module, weight, original: original)
    }
    let json = design.json(
      modules: model.adapters.map(\.module), base: base,
      groupSize: design.method == .qaLoRA ? model.adapters.first?.adapter.groupSize : nil,
      others: weights.json(isTied: model.configuration.isTied))
    // LoRA-FA looks at what it begins with.
    let start = TrainedAdapter(model, configuration: json)
    if !isSparse { try start.read(from: folder + "/start") }
    var settings = Trainer.Settings(
      schedule: Schedule(kind: .constant, warmupSteps: 0, stepCount: 12), method: design.method)
    settings.rateRatio = ratio
    settings.maximumGradientNorm = try expected.double(at: "max_grad_norm")
    settings.learningRate = try expected.double(at: "lr")
    settings.adamW.weightDecay = try expected.double(at: "weight_decay")
    trainer = try Trainer(model, settings, team: ThreadTeam(count: 2))
    guard isSparse else {
      adapter = start
      return
    }
    adapter = TrainedSparseAdapter(trainer, configuration: json)
    try adapter.read(from: folder + "/start")
  }

  /// What the optimizer moves.
  var moved: [TrainableParameter] { trainer.optimizer.parameters }

  /// The singular values that AdaLoRA has left after a step are PEFT's.
  func checkRanks(after step: Int) throws {
    guard let ranks = peer.expected["ranks"] else { return }
    let known = try ranks.array(named: "ranks")[step]
    for (module, adapter) in trainer.model.adapters {
      let e = try #require(adapter.e)
      let count = e.values.values.count { $0 != 0 }
      #expect(try known.int(at: e.name) == count, "\(module), step \(step)")
    }
  }

  /// Takes what PEFT has come to; the rows that AdaLoRA has pruned are not there.
  func readEnd() throws {
    guard peer.expected["ranks"] != nil else { return try adapter.read(from: folder + "/end") }
    let end = try Checkpoint(opening: folder + "/end/adapter_model.safetensors")
    let pattern = try JSON(opening: folder + "/end/adapter_config.json")["rank_pattern"]
    for (module, adapter) in trainer.model.adapters {
      let kept = try #require(pattern?[module + ".lora_E"]).array(named: module)
      let places = kept.indices.filter { kept[$0] == .bool(true) }
      let e = try #require(adapter.e)
      for (parameter, isTransposed) in [(adapter.a, false), (adapter.b, true), (e, false)] {
        let values = try end.floats(parameter.name)
        let columns = parameter.values.columns
        for (row, place) in places.enumerated() {
          for column in 0..<columns {
            parameter.values[place, column] =
              isTransposed ? values[column * places.count + row] : values[row * columns + column]
          }
        }
      }
      #expect(e.values.values.enumerated().allSatisfy { places.contains($0) || $1 == 0 })
    }
  }

  func makePass(team: ThreadTeam) -> LossPass {
    LossPass(
      trainer.model, team: team, tokens: 64, longest: 32, keeping: .everything,
      groupSize: folder.contains("/long") ? 8 : nil)
  }
}

/// A matrix the other way round: (rows, columns) to (columns, rows).
private func transposed(_ values: [Float], columns: Int) -> [Float] {
  let rows = values.count / max(1, columns)
  return (0..<columns).flatMap { column in (0..<rows).map { values[$0 * columns + column] } }
}

extension AdaLoRA.Settings {
  fileprivate init(_ json: JSON) throws {
    self.init()
    (initialRank, targetRank) = (try json.int(at: "init_r"), try json.int(at: "target_r"))
    (initialSteps, finalSteps) = (try json.int(at: "tinit"), try json.int(at: "tfinal"))
    (interval, stepCount) = (try json.int(at: "deltaT"), try json.int(at: "total_step"))
    (beta1, beta2) = (try json.double(at: "beta1"), try json.double(at: "beta2"))
    orthogonality = try json.double(at: "orth_reg_weight")
  }
}

private let runs = [
  "lora-llama3", "dora-llama3", "lora-qwen2", "dora-qwen2", "lora-qwen3", "lora-mistral",
  "qlora-llama3", "qdora-llama3", "ends-qwen3", "tied-llama3", "norms-qwen3", "linear-qwen2",
  "tokens-llama3", "tokens-qwen3", "lora-fa-llama3", "adalora-llama3", "long-qwen3",
  "shira-llama3", "qa-lora-llama3",
]

@Suite struct PEFTRunTests {
  @Test(arguments: runs) func twelveStepsAreThoseOfPEFT(name: String) throws {
    let run = try PEFTRun(name)
    let pass = run.makePass(team: ThreadTeam(count: 2))
    try run.peer.makeSteps(run.trainer, pass) { try run.checkRanks(after: $0) }
    let found = run.moved.map(\.values.values)
    try run.readEnd()
    for (parameter, values) in zip(run.moved, found) {
      let (worst, largest) = distance(values, parameter.values.values)
      #expect(
        Double(worst) <= PeerRun.endTolerance * Double(largest), "\(parameter.name)")
    }
  }

  @Test(arguments: runs) func gradientsAreThoseOfPEFT(name: String) throws {
    let run = try PEFTRun(name)
    let team = ThreadTeam(count: 2)
    let pass = run.makePass(team: team)
    let batch = try run.peer.batch(0)
    _ = pass.addGradients(batch, scale: 1 / Float(batch.labelCount)) {
      run.trainer.method.take($0, step: 0, team)
    }
    _ = try run.trainer.method.completeGradients(step: 0, team)
    let known = try run.peer.gradients
    #expect(known.tensors.count == run.moved.count)
    for parameter in run.moved {
      let name = known[parameter.name] == nil ? parameter.name + ".weight" : parameter.name
      let expected = try known.floats(name)
      let isTransposed = parameter.name.contains("lora_B") && !parameter.name.hasSuffix("bias")
      let own = parameter.gradient.values
      let found = isTransposed ? transposed(own, columns: parameter.gradient.columns) : own
      let (worst, largest) = distance(found, expected)
      #expect(worst <= PeerRun.gradientTolerance * largest, "\(parameter.name)")
    }
  }

  /// The first step moves each number by its rate, whatever its gradient: PEFT's
  /// `create_loraplus_optimizer` has the ratio for B and for what has one dimension.
  @Test(arguments: ["norms-qwen3", "tied-llama3", "linear-qwen2", "tokens-qwen3"])
  func ratesAreThoseOfLoRAPlus(name: String) throws {
    let run = try PEFTRun(name, ratio: 16)
    let own = run.trainer.model.trainedWeights.filter { !$0.isVector }.map(\.parameter.name)
    let starts = run.trainer.parameters.map(\.values.values)
    let pass = run.makePass(team: ThreadTeam(count: 2))
    let rate = try run.trainer.step([run.peer.batch(0)], pass: pass).learningRate
    for (parameter, start) in zip(run.trainer.parameters, starts) {
      let moved = zip(parameter.values.values, start).map { Double(abs($0 - $1)) }.max() ?? 0
      let isMatrix = parameter.name.hasSuffix("lora_A.weight") || own.contains(parameter.name)
      let factor = isMatrix ? 1.0 : 16
      #expect(abs(moved / rate - factor) < 1e-2 * factor, "\(parameter.name)")
    }
  }

  /// What `get_peft_model` makes of `modules_to_save` with `ensure_weight_tying` on a tied model.
  @Test(arguments: [
    (["embed_tokens"], ["embed_tokens", "model.embed_tokens"]),
    (["lm_head"], ["model.embed_tokens"]),
    (["embed_tokens", "lm_head"], ["embed_tokens", "model.embed_tokens"]),
    (["model.embed_tokens", "norm"], ["model.embed_tokens", "norm"]),
  ])
  func aTiedTableIsNamedAsPEFTNamesIt(given: [String], saved: [String]) {
    let weights = TrainedWeights(modules: given, tokens: [])
    let names = JSON.array(saved.map(JSON.string))
    #expect(
      weights.json(isTied: true)
        == ["ensure_weight_tying": .bool(true), "modules_to_save": names])
    #expect(
      weights.json(isTied: false) == ["modules_to_save": .array(given.map(JSON.string))])
  }

  @Test func withoutATableNothingIsTied() {
    let weights = TrainedWeights(modules: ["norm"], tokens: [7, 3])
    #expect(
      weights.json(isTied: true) == [
        "modules_to_save": .array([.string("norm")]),
        "trainable_token_indices": .array([.number(7), .number(3)]),
      ])
  }

  /// As transformers' `Trainer` has it.
  @Test func normsAndBiasesDoNotDecay() throws {
    for (name, isDecayed) in [("norms-qwen3", false), ("linear-qwen2", nil), ("ends-qwen3", true)] {
      for weight in try PEFTRun(name).trainer.model.trainedWeights {
        #expect(weight.parameter.isDecayed == isDecayed ?? !weight.isVector)
      }
    }
    let parameters = [true, false].map {
      TrainableParameter("p", Rows([1, 2, 3, 4], columns: 2), isDecayed: $0)
    }
    var settings = AdamW.Settings()
    settings.weightDecay = 0.5
    AdamW(parameters, settings).step(rates: [0.5, 0.5], ThreadTeam(count: 2))
    #expect(parameters.map(\.values.values) == [[0.75, 1.5, 2.25, 3], [1, 2, 3, 4]])
  }

  /// More numbers than a piece of work has: each moves as it would alone.
  @Test func aLargeTableMovesAsItsRows() throws {
    let (rows, columns) = (700, 512)
    let large = TrainableParameter("l", Rows(rows, columns))
    let small = TrainableParameter("s", Rows(1, columns))
    for row in 0..<rows {
      for column in 0..<columns { large.gradient[row, column] = Float(column % 7) - 2 }
    }
    small.gradient.copy(from: large.gradient.rows(0..<1))
    AdamW([large, small], .init()).step(rates: [0.1, 0.1], ThreadTeam(count: 2))
    let expected = small.values.values
    #expect(expected.contains { $0 != 0 })
    #expect((0..<rows).allSatisfy { large.values.rows($0..<$0 + 1).values == expected })
  }

  @Test(arguments: runs) func filesAreThoseOfPEFT(name: String) throws {
    let run = try PEFTRun(name)
    let scratch = try Scratch()
    let path = scratch.path("out")
    var output = try StagedOutput(.adapterFolder, at: path, force: false)
    try run.adapter.write(into: &output)
    try output.commit()
    let own = try Checkpoint(opening: path + "/adapter_model.safetensors")
    let known = try Checkpoint(opening: run.folder + "/start/adapter_model.safetensors")
    #expect(own.tensors.map(\.name).sorted() == known.tensors.map(\.name).sorted())
    for tensor in known.tensors {
      let found = try #require(own[tensor.name])
      #expect(found.shape == tensor.shape && found.dtype == tensor.dtype)
      // All of it was read from there.
      #expect(try own.source.bytes(of: found) == known.source.bytes(of: tensor))
    }
    let configuration = try JSON(opening: path + "/adapter_config.json")
    for member in try run.configuration.object(named: "configuration") {
      #expect(configuration[member.key] == member.value, "\(member.key)")
    }
  }
}
