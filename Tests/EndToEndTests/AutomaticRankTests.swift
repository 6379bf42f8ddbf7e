import Foundation
import Testing

/// `resize --auto` and `extract --auto` on updates whose ranks are known.
@Suite struct AutomaticRankTests {
  /// A module of a planted rank: its singular values are 1, 0.9 and so on, and 0.
  private struct Planted {
    let path: String
    let outputs: Int
    let inputs: Int
    let rank: Int
  }

  private static let modules = [
    Planted(path: "layers.0.q", outputs: 8, inputs: 6, rank: 1),
    Planted(path: "layers.0.up", outputs: 12, inputs: 6, rank: 4),
    Planted(path: "layers.1.q", outputs: 8, inputs: 6, rank: 3),
    Planted(path: "layers.1.up", outputs: 12, inputs: 6, rank: 2),
  ]
  /// What they take; 13 more are less than a rank.
  private static let budget = modules.reduce(0) { $0 + $1.rank * ($1.outputs + $1.inputs) }
  private static let pattern = modules.map(\.rank)

  /// The value of a module's k-th rank.
  private static func value(_ place: Int, of module: Planted) -> Float {
    place < module.rank ? 1 - Float(place) / 10 : 0
  }

  /// An adapter of rank 5 in every module, with unit vectors for factors and scaling `alpha` over
  /// the rank, or its root.
  private func writeAdapter(in place: borrowing Workplace, alpha: Float, isRoot: Bool) throws {
    let rank = 5
    let scaling = isRoot ? alpha / Float(rank).squareRoot() : alpha / Float(rank)
    try place.write(
      "adapter/adapter_model.safetensors",
      Safetensors.file(
        Self.modules.flatMap { module in
          var a = [Float](repeating: 0, count: rank * module.inputs)
          var b = [Float](repeating: 0, count: module.outputs * rank)
          for k in 0..<rank {
            // The order of the ranks says nothing.
            let place = (k + 2) % rank
            a[k * module.inputs + place] = 1
            b[(module.outputs - 1 - place) * rank + k] = Self.value(place, of: module) / scaling
          }
          let prefix = "base_model.model.\(module.path)"
          return [
            ("\(prefix).lora_A.weight", "F32", [rank, module.inputs], a),
            ("\(prefix).lora_B.weight", "F32", [module.outputs, rank], b),
          ]
        }))
    try place.write(
      "adapter/adapter_config.json",
      """
      {"peft_type": "LORA", "r": \(rank), "lora_alpha": \(alpha), "use_rslora": \(isRoot)}
      """)
  }

  /// Two models, the second with those updates added.
  private func writeModels(in place: borrowing Workplace) throws {
    for isTuned in [false, true] {
      let name = isTuned ? "tuned" : "base"
      try place.write(
        "\(name)/model.safetensors",
        Safetensors.file(
          Self.modules.map { module in
            var weight = (0..<module.outputs * module.inputs).map { Float($0 % 7) }
            for k in 0..<5 where isTuned {
              weight[(module.outputs - 1 - k) * module.inputs + k] += Self.value(k, of: module)
            }
            return ("\(module.path).weight", "F32", [module.outputs, module.inputs], weight)
          }))
      try place.write("\(name)/config.json", #"{"model_type": "llama"}"#)
    }
  }

  private static let criteria: [[String]] = [
    ["energy", "--energy", "0.999"], ["energy"], ["effective-rank"],
    ["budget", "--budget", "\(budget)"], ["budget", "--budget", "\(budget + 13)"],
    ["budget", "--mean-rank", "\(Double(budget) / Double(64))"],
  ]

  private func modules(_ run: Run) throws -> [[String: Any]] {
    #expect(run.status == 0, "\(run.errors)")
    let report = try JSONSerialization.jsonObject(with: run.output) as? [String: Any]
    return try #require(report?["modules"] as? [[String: Any]])
  }

  @Test(arguments: criteria, [true, false])
  func resizeFindsThePlantedRanks(criterion: [String], isRoot: Bool) throws {
    let place = try Workplace()
    try writeAdapter(in: place, alpha: 15, isRoot: isRoot)
    let run = try place.run(
      ["resize", "adapter", "-o", "out", "--json", "--auto"] + criterion)
    let found = try modules(run)
    #expect(found.map { $0["rank"] as? Int } == Self.pattern)
    let config = try #require(
      JSONSerialization.jsonObject(with: Data(place.bytes("out/adapter_config.json")))
        as? [String: Any])
    let ranks = try #require(config["rank_pattern"] as? [String: Int])
    let alphas = try #require(config["alpha_pattern"] as? [String: Double])
    let scaling = isRoot ? 15 / 5.0.squareRoot() : 3
    for (module, rank) in zip(Self.modules, Self.pattern) {
      let key = "^" + module.path.replacing(".", with: "\\.")
      #expect((ranks[key] ?? config["r"] as? Int) == rank)
      let alpha = try #require(alphas[key] ?? config["lora_alpha"] as? Double)
      #expect(abs(alpha / Double(rank) - scaling) < 1e-12)
    }
    #expect(config["use_rslora"] as? Bool == false)
    let diff = try place.run("diff", "adapter", "out", "--rtol", "1e-6")
    #expect(diff.status == 0, "\(diff.text)")
  }

  @Test(arguments: criteria) func extractFindsThePlantedRanks(criterion: [String]) throws {
    let place = try Workplace()
    try writeModels(in: place)
    let run = try place.run(
      ["extract", "base", "tuned", "-o", "out", "--json", "--auto"] + criterion)
    let found = try modules(run)
    #expect(found.map { $0["rank"] as? Int } == Self.pattern)
    #expect(found.map { $0["path"] as? String } == Self.modules.map(\.path))
  }

  @Test func theTableTellsWhy() throws {
    let place = try Workplace()
    try writeAdapter(in: place, alpha: 5, isRoot: false)
    let run = try place.run(
      "resize", "adapter", "-o", "out", "--auto", "budget", "--budget", "\(Self.budget)")
    #expect(run.status == 0)
    #expect(run.text.contains("\nparameters  \(Self.budget) in A and B\n"))
    #expect(
      run.text.hasSuffix(
        """

        module       rank  parameters   kept  one less  one more  effective
        layers.0.q      1          14  100 %    0.00 %     100 %          1
        layers.0.up     4          72  100 %      83 %     100 %      3.965
        layers.1.q      3          42  100 %      74 %     100 %      2.988
        layers.1.up     2          36  100 %      55 %     100 %      1.997

        """), "\(run.text)")
  }

  @Test(arguments: [
    (["--budget", "100"], "--budget and --mean-rank go with --auto budget"),
    (["--auto", "energy", "--mean-rank", "2"], "--budget and --mean-rank go with --auto budget"),
    (["--auto", "budget"], "--auto budget needs one of --budget and --mean-rank"),
    (["--auto", "budget", "--budget", "1", "--mean-rank", "1"], "needs one of"),
    (["--auto", "budget", "--budget", "0"], "--budget is 0, expected 1 or more"),
    (["--auto", "budget", "--mean-rank", "0.5"], "--mean-rank is 0.5, expected 1 or more"),
    (["--auto", "budget", "--mean-rank", "2", "--rank", "2"], "--auto budget finds the rank"),
    (["--auto", "energy", "--rank", "2"], "goes with --energy alone"),
    (["--auto", "effective-rank", "--energy", "0.9"], "--auto effective-rank finds the rank"),
    (["--auto", "magic"], "energy"),
  ]) func wrongUsage(arguments: [String], text: String) throws {
    let place = try Workplace()
    let lora = Repository.sample("adapters/lora")
    let base = Repository.sample("bases/llama-f32")
    for verb in [["resize", lora], ["extract", base, base]] {
      let run = try place.run(verb + arguments + ["-o", "out"])
      #expect(run.status == 64)
      #expect(run.errors.contains(text), "\(run.errors)")
    }
    #expect(try place.names == [])
  }

  @Test func whatDoesNotFit() throws {
    let place = try Workplace()
    try writeAdapter(in: place, alpha: 5, isRoot: false)
    try writeModels(in: place)
    let few = "rank 1 in each of 4 modules takes 64 parameters, the budget is 63"
    for (arguments, text) in [
      (["resize", "adapter", "--auto", "budget", "--budget", "63"], "adapter: \(few)"),
      (["extract", "base", "tuned", "--auto", "budget", "--budget", "63"], "tuned: \(few)"),
      (
        [
          "resize", Repository.sample("adapters/dora"), "--base",
          Repository.sample("bases/llama-bf16"), "--auto", "budget", "--mean-rank", "2",
        ], "is of DoRA, and a budget weighs the singular values of B*A"
      ),
    ] {
      let run = try place.run(arguments + ["-o", "out"])
      #expect(run.status == 2)
      #expect(run.errors.contains(text), "\(run.errors)")
    }
    let run = try place.run(
      "extract", "base", "tuned", "--dora", "--auto", "budget", "--mean-rank", "2", "-o", "out")
    #expect(run.status == 64)
    #expect(run.errors.contains("--dora goes with"))
  }
}
