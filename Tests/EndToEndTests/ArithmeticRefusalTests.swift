import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")
private let taskC = Repository.sample("adapters/task-c")

/// What the arithmetic on adapters refuses, in one line and with nothing left behind.
@Suite struct ArithmeticRefusalTests {
  /// A run that fails with one line which holds the texts, and leaves nothing behind.
  private func refuses(
    _ arguments: [String], saying texts: String..., in place: borrowing Workplace,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try place.names
    let run = try place.run(arguments)
    #expect(run.status == 2, sourceLocation: sourceLocation)
    #expect(run.text == "", sourceLocation: sourceLocation)
    #expect(run.errors.hasPrefix("peftool: "), sourceLocation: sourceLocation)
    #expect(run.errors.split(separator: "\n").count == 1, sourceLocation: sourceLocation)
    for text in texts {
      #expect(
        run.errors.contains(text), "\(text) in \(run.errors)", sourceLocation: sourceLocation)
    }
    #expect(try place.names == before, sourceLocation: sourceLocation)
  }

  @Test(
    arguments: [
      (["combine"], "Missing expected argument '<adapter> ...'"),
      (["combine", lora], "--output"),
      (["combine", lora, "--weights", "1,2"], "--weights has 2 numbers for 1 adapter"),
      (["combine", lora, "--weights", "one"], "--weights"),
      (["combine", lora, "--weights", "nan"], "--weights"),
      (["combine", lora, "--weights", "1,"], "--weights"),
      (["combine", lora, "--method", "none"], "'none' is invalid for '--method <method>'"),
      (["combine", lora, "--method", "ties"], "--method ties needs --density"),
      (["combine", lora, "--method", "ties", "--density", "1.5"], "--density is 1.5"),
      (["combine", lora, "--method", "ties", "--density=-0.1"], "--density is -0.1"),
      (["combine", lora, "--method", "ties", "--density", "nan"], "--density is nan"),
      (["combine", lora, "--density", "0.5"], "--density does not go with --method cat"),
      (["combine", lora, "--majority-sign", "total"], "--majority-sign does not go with"),
      (["combine", lora, "--gamma", "0.1"], "--gamma does not go with --method cat"),
      (["combine", lora, "--epsilon", "0.1"], "--epsilon does not go with --method cat"),
      (["combine", lora, "--seed", "1"], "--seed does not go with --method cat"),
      (["combine", lora, "--method", "linear", "--rank", "2"], "keeps the rank"),
      (
        ["combine", lora, "--method", "della", "--density", "0.9", "--epsilon", "0.2"],
        "probabilities outside 0 to 1"
      ),
      (
        ["combine", lora, "--method", "breadcrumbs", "--density", "0.9", "--gamma", "0.2"],
        "more than all"
      ),
      (["combine", lora, "--method", "svd", "--rank", "0"], "--rank is 0, expected 1 to 65536"),
      (["scale", lora], "--by"), (["scale", lora, "--by", "0"], "other than 0"),
      (["scale", lora, "--by", "nan"], "--by is nan"),
      (["scale", lora, "--by", "inf"], "--by is inf"),
      (["resize", lora], "--rank, --energy, --effective"),
      (["resize", lora, "--rank", "65537"], "--rank is 65537, expected 1 to 65536"),
      (["resize", lora, "--rank", "2", "--energy", "0.9"], "at most"),
      (["resize", lora, "--energy", "0"], "--energy is 0.0"),
      (["resize", lora, "--sv-ratio", "0.5"], "--sv-ratio is 0.5, expected 1 or more"),
      (["prune", lora], "one of --density, --min-norm and --min-share is needed"),
      (["prune", lora, "--density", "0"], "--density is 0.0, expected more than 0"),
      (["prune", lora, "--density", "1.1"], "--density is 1.1, expected more than 0"),
      (["prune", lora, "--density", "nan"], "--density is nan"),
      (["prune", lora, "--min-share", "2"], "--min-share is 2.0"),
      (["prune", lora, "--min-norm", "0"], "--min-norm is 0.0, expected more than 0"),
      (["prune", lora, "--min-norm", "inf"], "--min-norm is inf"),
      (["prune", lora, "--min-norm", "1", "--min-share", "0.1"], "at most"),
      (["prune", lora, "--min-norm", "1", "--delta"], "--delta needs --density"),
      (["prune", lora, "--density", "0.5", "--rank", "2"], "a rank goes with --delta"),
      (["prune", lora, "--density", "0.5", "--exact"], "--exact goes with --delta"),
      (["prune", lora, "--density", "0.5", "--threads", "0"], "--threads is 0"),
    ]) func wrongUsage(arguments: [String], text: String) throws
  {
    let place = try Workplace()
    let output = text == "--output" ? [] : ["-o", "out"]
    let run = try place.run(arguments + output)
    #expect(run.status == 64)
    #expect(run.text == "")
    #expect(run.errors.hasPrefix("peftool: "))
    #expect(run.errors.contains(text), "\(text) in \(run.errors)")
    #expect(try place.names == [])
  }

  /// The verbs, each with what it needs to run.
  private static let verbs = [
    ["combine"], ["scale", "--by", "2"], ["resize", "--rank", "1"], ["prune", "--density", "0.5"],
    ["prune", "--min-share", "0.1"],
  ]

  @Test(arguments: verbs) func whatIsNoAdapterOfPEFT(verb: [String]) throws {
    let place = try Workplace()
    for (path, text) in [
      ("none", "none: cannot open: No such file or directory"),
      (base, "no adapter"), (Repository.sample("adapters/ia3"), "is of (IA)³"),
      (Repository.sample("adapters/bias-all"), "has bias \"all\""),
      (Repository.sample("kohya/dora.safetensors"), "is an adapter of kohya, expected one of PEFT"),
      (Repository.sample("mlx/dora"), "is an adapter of mlx-lm, expected one of PEFT"),
      (Repository.sample("adapters/target-parameters"), "has target_parameters"),
      (Repository.sample("adapters/layer-replication"), "has layer_replication"),
      (Repository.sample("adapters/embedding"), "--base MODEL"),
    ] {
      try refuses(verb + [path, "-o", "out"], saying: path, text, in: place)
    }
  }

  @Test(arguments: verbs) func valuesThatAreNotFinite(verb: [String]) throws {
    let place = try Workplace()
    try makeAdapter("bad", in: place, b: [1, 2, 3, .nan, 5, 6])
    try refuses(
      verb + ["bad", "-o", "out"],
      saying: "bad/adapter_model.safetensors: tensor 'base_model.model.m.lora_B.weight': "
        + "has NaN or infinite values", in: place)
  }

  @Test(arguments: verbs) func anOutputOntoAnInput(verb: [String]) throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: lora, toPath: place.path("a"))
    try refuses(verb + ["a", "-o", "a", "--force"], saying: "peftool: a", in: place)
    let run = try place.run(verb + ["a", "-o", "a/adapter_model.safetensors", "--force"])
    #expect(run.status == 64)
    #expect(run.errors.contains("an adapter is written as a folder"))
    #expect(try place.run("diff", "a", lora).status == 0)
  }

  @Test func anOutputOntoTheRecipe() throws {
    let place = try Workplace()
    try place.write("out/recipe.yaml", "adapters:\n  - path: \(lora)\n")
    try place.write("out/adapter_config.json", "{}")
    try refuses(
      ["combine", "--recipe", "out/recipe.yaml", "-o", "out", "--force"],
      saying: "out: is or holds the input out/recipe.yaml", in: place)
  }

  @Test func anOutputOntoTheBase() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: base, toPath: place.path("model"))
    for verb in [["combine"], ["scale", "--by", "2"], ["prune", "--density", "0.5"]] {
      try refuses(
        verb + [dora, "--base", "model", "-o", "model", "--force"], saying: "model", in: place)
    }
    #expect(try place.run("diff", "model", base).status == 0)
  }

  @Test func adaptersOfOtherShapes() throws {
    let place = try Workplace()
    try makeAdapter("a", in: place)
    try makeAdapter("wide", in: place, inputs: 5)
    try makeAdapter("high", in: place, outputs: 4)
    try makeAdapter("low", in: place, rank: 1)
    try refuses(
      ["combine", "a", "wide", "-o", "out"],
      saying: "wide: m is a linear of [3, 5], in a a linear of [3, 2]", in: place)
    try refuses(
      ["combine", "a", "high", "-o", "out"],
      saying: "high: m is a linear of [4, 2], in a a linear of [3, 2]", in: place)
    try refuses(
      ["combine", "a", "low", "-o", "out", "--method", "linear"],
      saying: "low: m has rank 1, in a 2: linear needs equal ones; cat and svd do not", in: place)
    #expect(try place.run("combine", "a", "low", "-o", "out").status == 0)
  }

  @Test func weightsThatLeaveNothing() throws {
    try refuses(
      ["combine", lora, taskC, "-o", "out", "--weights", "0,0"],
      saying: "every weight is 0", in: try Workplace())
    try refuses(
      ["combine", lora, taskC, "-o", "out", "--weights", "1,0", "--method", "slerp"],
      saying: "slerp is between two adapters", in: try Workplace())
    try refuses(
      ["prune", lora, "-o", "out", "--min-norm", "1000"],
      saying: "no module would be left: the largest norm is ", "expected 1000.0 and more",
      in: try Workplace())
  }

  @Test func aProductThatF32DoesNotHold() throws {
    let place = try Workplace()
    try makeAdapter("a", in: place, b: Array(repeating: 1e38, count: 6))
    try refuses(["scale", "a", "--by", "1e4", "-o", "out"], saying: "too large", "F32", in: place)
  }

  @Test func ofDoRAMuchTakesTheBase() throws {
    let place = try Workplace()
    for arguments in [
      ["combine", lora, dora], ["scale", dora, "--by", "2"], ["prune", dora, "--min-norm", "1"],
      ["prune", dora, "--min-share", "0.1"],
    ] {
      try refuses(arguments + ["-o", "out"], saying: "is of DoRA", "--base MODEL", in: place)
    }
    try refuses(
      ["combine", dora, "--base", base, "--method", "ties", "--density", "0.5", "-o", "out"],
      saying: "is of DoRA", "--method cat or svd", in: place)
    // Without a base the low-rank part alone is cut, and that is said.
    let run = try place.run("resize", dora, "--rank", "2", "-o", "cut")
    #expect(run.status == 0)
    #expect(run.unfoldedText.contains("DoRA without its base"))
  }

  @Test func aBaseThatIsAnother() throws {
    let place = try Workplace()
    for verb in [["combine"], ["scale", "--by", "2"], ["prune", "--density", "0.5"]] {
      try refuses(
        verb + [dora, "-o", "out", "--base", Repository.sample("bases/gpt2-f32")],
        saying: "has no module model.layers.0.", "nearest: ", in: place)
      try refuses(
        verb + [dora, "-o", "out", "--base", "none"], saying: "none: cannot open", in: place)
    }
  }
}
