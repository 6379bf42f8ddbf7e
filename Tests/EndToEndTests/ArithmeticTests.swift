import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")
private let taskA = Repository.sample("adapters/task-a")
private let taskC = Repository.sample("adapters/task-c")
private let taskDoRA = Repository.sample("adapters/task-dora")

/// Every method of `combine`, with what it needs.
private let methods: [[String]] = [
  ["cat"], ["svd", "--rank", "3"], ["linear"], ["ties", "--density", "0.4"],
  ["dare_linear", "--density", "0.4"], ["dare_ties", "--density", "0.4"],
  ["magnitude_prune", "--density", "0.4"], ["ties_svd", "--density", "0.4"],
  ["dare_linear_svd", "--density", "0.4"], ["dare_ties_svd", "--density", "0.4"],
  ["magnitude_prune_svd", "--density", "0.4"], ["ties_weighted", "--density", "0.4"],
  ["breadcrumbs", "--density", "0.4"], ["della", "--density", "0.4"], ["slerp"],
  ["knots", "--density", "0.4"], ["tsv"],
]

@Suite struct ArithmeticTests {
  /// A run that writes `out`, again with two threads as `again`: both are the same, and sound.
  private func succeeds(
    _ arguments: [String], base: String? = base, in place: borrowing Workplace,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    for (output, threads) in [("out", "1"), ("again", "2")] {
      let run = try place.run(arguments + ["-o", output, "--threads", threads])
      #expect(run.status == 0, "\(run.errors)", sourceLocation: sourceLocation)
      #expect(run.errors == "", sourceLocation: sourceLocation)
      #expect(run.text.contains("written"), sourceLocation: sourceLocation)
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
      #expect(
        try place.bytes("out/\(name)") == place.bytes("again/\(name)"),
        sourceLocation: sourceLocation)
    }
    let check = try place.run(["verify", "out"] + (base.map { ["--base", $0] } ?? []))
    #expect(check.status == 0, "\(check.text)", sourceLocation: sourceLocation)
  }

  @Test func everyMethodIsTested() throws {
    let refusal = try Workplace().run("combine", lora, "-o", "out", "--method", "none").errors
    let names = refusal.components(separatedBy: "\n").compactMap {
      $0.wholeMatch(of: /[ ]{2}- ([a-z_]+)/).map { String($0.1) }
    }
    #expect(names == methods.map { $0[0] })
  }

  @Test(arguments: methods) func everyMethodCombines(method: [String]) throws {
    let place = try Workplace()
    try succeeds(
      ["combine", taskA, taskC, "--weights", "0.7,0.6", "--method"] + method, in: place)
  }

  /// As adapters are when training begins: B is zero.
  @Test(arguments: methods) func everyMethodTakesAdaptersThatChangeNothing(
    method: [String]
  ) throws {
    let place = try Workplace()
    for name in ["a", "b"] {
      try makeAdapter(name, in: place, b: Array(repeating: 0, count: 6))
    }
    try succeeds(["combine", "a", "b", "--method"] + method, base: nil, in: place)
    let run = try place.run("inspect", "out", "--stats", "--json")
    #expect(run.status == 0)
  }

  @Test(
    arguments: [
      ["scale", lora, "--by", "-0.5"], ["scale", dora, "--by", "0.5", "--base", base],
      ["combine", lora, dora, taskDoRA, "--weights", "0.5,-0.3,0.2", "--base", base],
      ["resize", lora, "--rank", "2"], ["resize", lora, "--energy", "0.8"],
      ["resize", lora, "--effective"], ["resize", lora, "--sv-ratio", "2"],
      ["resize", lora, "--sv-fro", "0.9"], ["resize", lora, "--sv-cumulative", "0.8"],
      ["prune", lora, "--density", "0.3"], ["prune", lora, "--density", "0.001"],
      ["prune", lora, "--density", "0.3", "--delta"],
      ["prune", lora, "--density", "0.3", "--delta", "--energy", "0.9", "--exact"],
      ["prune", lora, "--min-norm", "4"], ["prune", lora, "--min-share", "1"],
      ["prune", lora, "--density", "0.5", "--min-share", "0.9"],
      ["prune", dora, "--density", "0.5"], ["prune", dora, "--density", "0.5", "--delta"],
      ["prune", dora, "--density", "0.5", "--base", base],
      ["prune", dora, "--min-share", "0.8", "--base", base],
    ]) func everyVerbWrites(arguments: [String]) throws
  {
    try succeeds(arguments, in: try Workplace())
  }

  @Test func anEmbeddingSavedWholeIsLeftOutWhereItIsTheBases() throws {
    let place = try Workplace()
    let adapter = Repository.sample("adapters/embedding")
    for arguments in [
      ["combine", adapter], ["scale", adapter, "--by", "2"], ["resize", adapter, "--rank", "1"],
      ["prune", adapter, "--density", "0.5"],
    ] {
      let run = try place.run(arguments + ["-o", "out", "--force", "--base", base])
      #expect(run.status == 0, "\(run.errors)")
      #expect(run.unfoldedText.contains("is saved whole, the same as in the base: left out"))
    }
  }

  @Test func jsonTellsWhatBecameOfEachModule() throws {
    let place = try Workplace()
    let run = try place.run("prune", lora, "-o", "out", "--density", "0.1", "--json")
    #expect(run.status == 0)
    let report = try #require(
      try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(report["method"] as? String == "factors")
    let file = try place.bytes("out/adapter_model.safetensors")
    #expect(report["bytes"] as? Int == file.count)
    #expect(
      report["inputBytes"] as? Int
        == (try Data(contentsOf: URL(fileURLWithPath: lora + "/adapter_model.safetensors"))).count)
    let modules = try #require(report["modules"] as? [[String: Any]])
    #expect(modules.count == 14)
    for module in modules {
      let entries = try #require(module["entries"] as? Int)
      #expect(module["keptEntries"] as? Int == entries / 10)
      #expect(try #require(module["rank"] as? Int) <= 4)
      #expect(module["rankBefore"] as? Int == 4)
      let kept = try #require(module["keptEnergy"] as? Double)
      #expect(kept > 0 && kept < 0.5)
    }
  }

  @Test func droppedModulesAreInTheReportAndNotInTheAdapter() throws {
    let place = try Workplace()
    let run = try place.run("prune", lora, "-o", "out", "--min-share", "0.9", "--json")
    let report = try #require(
      try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let modules = try #require(report["modules"] as? [[String: Any]])
    let dropped = modules.filter { $0["rank"] as? Int == 0 }.compactMap { $0["path"] as? String }
    #expect(!dropped.isEmpty && dropped.count < modules.count)
    let names = try place.run("inspect", "out", "--json").text
    for path in dropped { #expect(!names.contains(path)) }
    #expect((report["keptEnergy"] as? Double ?? 1) < 1)
  }

  /// Rounding is left of updates that take each other away, and is not told of as if it were one.
  @Test(
    arguments: [
      [lora, lora, "--weights", "1,-1"],
      [lora, lora, taskA, "--weights", "0.1,-0.1,0", "--method", "svd", "--rank", "2"],
      [lora, lora, lora, "--weights", "0.1,0.2,-0.3", "--method", "svd", "--energy", "0.9"],
      [lora, lora, "--weights", "0.3,-0.3", "--method", "dare_linear_svd", "--density", "1"],
      [lora, lora, "--weights", "0.3,-0.3", "--method", "linear"],
      [dora, dora, "--weights", "0.7,-0.7", "--base", base],
      [dora, dora, "--weights", "0.7,-0.7", "--base", base, "--method", "svd"],
    ]) func aSumThatIsZeroIsTold(arguments: [String]) throws
  {
    let place = try Workplace()
    let run = try place.run(["combine"] + arguments + ["-o", "out"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.text.contains("note"))
    #expect(run.text.contains("the sum is zero\n"))
    #expect(!run.text.contains("kept energy"))
    let json = try place.run(["combine"] + arguments + ["-o", "again", "--json"])
    let report = try #require(
      try JSONSerialization.jsonObject(with: json.output) as? [String: Any])
    #expect(report["keptEnergy"] is NSNull)
    for module in try #require(report["modules"] as? [[String: Any]]) {
      #expect(module["keptEnergy"] is NSNull)
      #expect(module["norm"] as? Double == 0)
      #expect(module["normBefore"] as? Double == 0)
    }
    let merged = try place.run("merge", base, "out", "-o", "merged", "--dtype", "f32")
    #expect(merged.status == 0, "\(merged.errors)")
    let difference = try place.run("diff", "merged", base, "--atol", "1e-6")
    #expect(difference.text.contains("within tolerance") || difference.text.contains("identical"))
  }

  /// A difference of a millionth is no rounding in f64.
  @Test func aSmallSumIsNotZero() throws {
    let place = try Workplace()
    let run = try place.run(
      "combine", lora, lora, "--weights", "1,-0.999999", "-o", "out", "--method", "svd", "--json")
    let report = try #require(
      try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect((try #require(report["keptEnergy"] as? Double) - 1).magnitude < 1e-6)
  }

  @Test func anAdapterOfWeightZeroIsToldOf() throws {
    let place = try Workplace()
    let arguments = ["combine", taskA, lora, taskC, "--weights", "0,0.5,2"]
    let run = try place.run(arguments + ["-o", "out"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.unfoldedText.contains("task-a (weight 0) "))
    #expect(run.unfoldedText.contains("task-a: weight 0: left out "))
    #expect(!run.unfoldedText.contains("lora: weight 0"))
    for flags in [["-o", "again"], ["--dry-run"]] {
      let json = try place.run(arguments + flags + ["--json"])
      let report = try #require(
        try JSONSerialization.jsonObject(with: json.output) as? [String: Any])
      let inputs = try #require(report["inputs"] as? [[String: Any]])
      #expect(inputs.map { $0["path"] as? String } == [taskA, lora, taskC])
      #expect(inputs.map { $0["weight"] as? Double } == [0, 0.5, 2])
      #expect(report["notes"] as? [String] == ["\(taskA): weight 0: left out"])
      guard flags == ["--dry-run"] else { continue }
      for module in try #require(report["modules"] as? [[String: Any]]) {
        for key in ["weights", "densities", "ranks"] {
          let list = try #require(module[key] as? [Any])
          #expect(list.count == 3 && list[0] is NSNull)
        }
      }
    }
    #expect(try place.run("combine", lora, taskC, "--weights", "0.5,2", "-o", "two").status == 0)
    #expect(try place.shell("cmp {out,two}/adapter_model.safetensors").status == 0)
    // It is an input all the same.
    let onto = try place.run(
      ["combine", "two", lora, "--weights", "0,1", "-o", "two", "--force"])
    #expect(onto.errors.hasPrefix("peftool: two: is or holds the input two"))
  }

  /// A dry run ends as the run would.
  @Test(
    arguments: [
      ("old", []), ("model", ["--force"]), ("no/out", []), ("dir/..", []), ("in", ["--force"]),
    ]) func aDryRunChecksTheOutput(output: String, flags: [String]) throws
  {
    let place = try Workplace()
    try place.write("old/adapter_config.json", "{}")
    try place.write("model/config.json", "{}")
    try place.write("dir/x", "")
    try FileManager.default.copyItem(atPath: lora, toPath: place.path("in"))
    let arguments = ["combine", "in", taskC, "-o", output] + flags
    let runs = try [arguments, arguments + ["--dry-run"]].map { try place.run($0) }
    #expect(runs.allSatisfy { $0.status == 2 && $0.text == "" })
    #expect(runs[0].errors == runs[1].errors)
    #expect(try place.names == ["dir", "in", "model", "old"])
    #expect(try place.run("combine", "in", taskC, "-o", "old", "--force", "--dry-run").status == 0)
    #expect(try place.bytes("old/adapter_config.json") == Data("{}".utf8))
  }

  @Test func aDryRunTakesDoRA() throws {
    let place = try Workplace()
    let arguments = [
      "combine", lora, dora, taskDoRA, "--base", base, "--weights", "0.5,-0.3,0.2", "-o", "out",
      "--json",
    ]
    let dry = try place.run(arguments + ["--dry-run"])
    #expect(dry.status == 0, "\(dry.errors)")
    let plan = try #require(
      try JSONSerialization.jsonObject(with: dry.output) as? [String: Any])
    #expect(try place.names == [])
    #expect(try place.run(arguments).status == 0)
    #expect(plan["isKnown"] as? Bool == true)
    let counts = try place.run(["inspect", "out", "--json"]).output
    let inspection = try #require(
      try JSONSerialization.jsonObject(with: counts) as? [String: Any])
    let tensors = try #require(inspection["tensors"] as? [[String: Any]])
    let count = tensors.reduce(0) { $0 + ($1["shape"] as? [Int] ?? []).reduce(4, *) }
    #expect(plan["bytes"] as? Int == count)
  }

  @Test(
    arguments: [
      (["scale", lora, "--by", "-0.5"], "scale", "the whole change times -0.5"),
      (["resize", lora, "--rank", "2"], "resize", "the nearest of rank 2 at most"),
      (
        ["resize", lora, "--energy", "0.9"], "resize",
        "the nearest that keeps 90 % of each module's energy"
      ),
      (["resize", lora, "--effective"], "resize", "the nearest of each module's effective rank"),
    ]) func methodsAreToldByTheirOwnNames(
      arguments: [String], name: String, summary: String
    ) throws
  {
    let place = try Workplace()
    let run = try place.run(arguments + ["-o", "out"])
    #expect(run.unfoldedText.contains("\(name): \(summary) "), "\(run.text)")
    let json = try place.run(arguments + ["-o", "again", "--json"])
    let report = try #require(
      try JSONSerialization.jsonObject(with: json.output) as? [String: Any])
    #expect(report["method"] as? String == name)
  }

  /// 1.00390625 lies between 1 and 1.0078125 of BF16, and is not F32's nearest to what is computed.
  @Test(
    arguments: [
      ["combine", taskA], ["scale", taskA, "--by", "0.3"], ["resize", taskA, "--rank", "2"],
      ["prune", taskA, "--density", "0.5"], ["prune", taskA, "--min-share", "0.1"],
      ["scale", dora, "--by", "0.3", "--base", base],
      ["extract", base, Repository.sample("bases/llama-f32"), "--rank", "2"],
      ["convert", lora, "--to", "dora", "--base", base],
    ], ["bf16", "f16", "f32"])
  func resultsAreOfTheDTypeThatIsAskedFor(arguments: [String], dtype: String) throws {
    let place = try Workplace()
    let run = try place.run(arguments + ["-o", "out", "--dtype", dtype])
    #expect(run.status == 0, "\(run.errors)")
    if arguments[0] != "convert" {
      #expect(run.text.contains("dtype"))
      #expect(run.text.contains(dtype.uppercased()))
    }
    let inspection = try place.run("inspect", "out", "--json")
    let report = try #require(
      try JSONSerialization.jsonObject(with: inspection.output) as? [String: Any])
    let tensors = try #require(report["tensors"] as? [[String: Any]])
    #expect(Set(tensors.compactMap { $0["dtype"] as? String }) == [dtype.uppercased()])
    // As what is computed in F32, but for the rounding.
    try #require(try place.run(arguments + ["-o", "wide", "--dtype", "f32"]).status == 0)
    let tolerance = ["bf16": "0.005", "f16": "0.0006", "f32": "0"][dtype] ?? ""
    let difference = try place.run(
      "diff", "out", "wide", "--factors", "--rtol", tolerance, "--atol", "6e-8")
    #expect(difference.status == 0, "\(difference.text)")
  }

  @Test func aNumberThatF16DoesNotHold() throws {
    let place = try Workplace()
    try makeAdapter("a", in: place, b: Array(repeating: 1e4, count: 6))
    for arguments in [["scale", "a", "--by", "10"], ["prune", "a", "--min-norm", "1"]] {
      let isScaled = arguments[0] == "scale"
      let run = try place.run(arguments + ["-o", "out", "--dtype", "f16"])
      #expect(run.status == (isScaled ? 2 : 0))
      if isScaled { #expect(run.errors.contains("too large for F16")) }
    }
    let usage = try place.run("scale", "a", "--by", "1", "-o", "x", "--dtype", "f64")
    #expect(usage.status == 64)
    #expect(usage.errors.contains("'f64' is none of f32, bf16, f16"))
  }

  /// What BF16 becomes is said once.
  @Test func theReportTellsOfDTypes() throws {
    let place = try Workplace()
    try #require(
      try place.run("scale", lora, "--by", "2", "-o", "half", "--dtype", "bf16").status == 0)
    let wide = try place.run("combine", "half", "half", "-o", "wide").unfoldedText
    #expect(wide.contains("dtype    F32, before BF16; --dtype bf16 writes half the bytes "))
    #expect(wide.components(separatedBy: "BF16").count == 2)
    let same = try place.run("prune", "half", "--min-share", "0.1", "-o", "same").unfoldedText
    #expect(same.contains("dtype    BF16 "))
  }

  @Test func quietPrintsNothing() throws {
    let run = try Workplace().run("resize", lora, "-o", "out", "--rank", "2", "--quiet")
    #expect(run.status == 0)
    #expect(run.text == "")
    #expect(run.errors == "")
  }

  @Test func anExistingOutputNeedsForce() throws {
    let place = try Workplace()
    #expect(try place.run("prune", lora, "-o", "out", "--density", "0.5").status == 0)
    let refusal = try place.run("prune", lora, "-o", "out", "--density", "0.4")
    #expect(refusal.status == 2)
    #expect(refusal.errors == "peftool: out: exists already; --force replaces it\n")
    #expect(try place.run("prune", lora, "-o", "out", "--density", "0.4", "--force").status == 0)
  }
}
