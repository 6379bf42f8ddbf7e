import Foundation
import Testing

private let base = Repository.sample("bases/llama-f32")
private let lora = Repository.sample("adapters/task-a")
private let shira = Repository.sample("adapters/shira")

/// `prune --shira`, `extract --shira`, and what the other verbs make of such adapters.
@Suite struct SparseAdapterTests {
  @Test func theSameBytesForAnyNumberOfThreads() throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", "tuned").status == 0)
    for (name, verb) in [
      ("pruned", ["prune", lora, "--density", "0.05", "--delta"]),
      ("extracted", ["extract", base, "tuned", "--rank", "3"]),
      ("half", ["extract", base, "tuned", "--density", "0.02", "--dtype", "bf16"]),
    ] {
      for threads in ["1", "2"] {
        let run = try place.run(
          verb + ["--shira", "-o", name + threads, "--threads", threads])
        #expect(run.status == 0, "\(run.errors)")
        #expect(run.text.contains(" kept\n"))
        let check = try place.run("verify", name + threads, "--base", base)
        #expect(check.status == 0, "\(check.text)")
      }
      for file in ["adapter_model.safetensors", "adapter_config.json"] {
        #expect(try place.bytes("\(name)1/\(file)") == place.bytes("\(name)2/\(file)"))
      }
    }
  }

  /// Of all entries nothing is lost: the merged model is the tuned one.
  @Test func allEntriesMakeTheModelAgain() throws {
    let place = try Workplace()
    let values: [Float] = [1, -2, 3, 0.5, 8, 1, 4, -1, 2, 9, 1, 1]
    let changed = values.enumerated().map { $0 % 5 == 1 ? $1 + Float($0) : $1 }
    for (name, weight) in [("base", values), ("tuned", changed)] {
      try place.write(
        "\(name)/model.safetensors",
        Safetensors.file([
          ("up.weight", "F32", [3, 4], weight), ("norm.weight", "F32", [3], [1, 1, weight[1]]),
        ]))
      try place.write("\(name)/config.json", #"{"model_type": "llama"}"#)
    }
    let run = try place.run("extract", "base", "tuned", "-o", "out", "--shira", "--rank", "1")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.text.contains("entries  7 of 12 kept\n"))
    #expect(run.text.contains(" of the weights' norm, the most in up: "))
    #expect(run.text.contains("modules saved whole: 1\n"))
    #expect(try place.run("merge", "base", "out", "-o", "merged").status == 0)
    #expect(try place.run("diff", "merged", "tuned").status == 0)
  }

  @Test func inspectTellsTheEntries() throws {
    let run = try Workplace().run("inspect", shira)
    #expect(run.text.contains("adapter     SHiRA\n"))
    #expect(run.text.contains("entries     160 a module (2 modules), 224 a module (2 modules)\n"))
    #expect(run.text.contains("parameters  768 (768)\n") || run.text.contains("parameters  768\n"))
  }

  @Test(arguments: [
    (["extract", base, base, "--shira"], "--shira goes with one of --rank and --density"),
    (["extract", base, base, "--shira", "--rank", "2", "--density", "0.1"], "goes with one of"),
    (["extract", base, base, "--shira", "--energy", "0.9"], "goes with one of"),
    (["extract", base, base, "--shira", "--rank", "2", "--dora"], "without --dora and --exact"),
    (["extract", base, base, "--density", "0.1"], "--density goes with --shira"),
    (["extract", base, base, "--shira", "--density", "1.5"], "--density is 1.5"),
    (["prune", lora, "--density", "0.1", "--shira"], "--shira goes with --delta"),
    (["prune", lora, "--density", "0.1", "--delta", "--shira", "--rank", "2"], "and no rank"),
    (["prune", lora, "--density", "0.1", "--delta", "--shira", "--min-norm", "2"], "and no rank"),
  ]) func wrongUsage(arguments: [String], text: String) throws {
    let place = try Workplace()
    let run = try place.run(arguments + ["-o", "out"])
    #expect(run.status == 64)
    #expect(run.errors.contains(text), "\(run.errors)")
    #expect(try place.names == [])
  }

  @Test(arguments: [
    (["prune", Repository.sample("adapters/dora")], "is of DoRA: SHiRA has sparse changes"),
    (
      [
        "prune", Repository.sample("adapters/embedding"), "--base",
        Repository.sample("bases/llama-bf16"),
      ], "is of kind embedding: SHiRA"
    ),
    (["prune", Repository.sample("adapters/conv-2d")], "is of kind convolution: SHiRA"),
    (["prune", Repository.sample("adapters/lora-bias")], "has a bias of lora_B: SHiRA"),
    (["prune", Repository.sample("adapters/conv1d")], "is a Conv1D: SHiRA"),
    (["prune", shira], "is of SHiRA, which is no low-rank update"),
    (["scale", shira, "--by", "2"], "is of SHiRA, which is no low-rank update"),
  ]) func whatSHiRAHasNoPlaceFor(arguments: [String], text: String) throws {
    let place = try Workplace()
    let flags = arguments[0] == "prune" ? ["--delta", "--density", "0.1", "--shira"] : []
    let run = try place.run(arguments + flags + ["-o", "out"])
    #expect(run.status == 2)
    #expect(run.errors.contains(text), "\(run.errors)")
    #expect(try place.names == [])
  }

  @Test func moreEntriesThanALayerHas() throws {
    let place = try Workplace()
    let run = try place.run("prune", lora, "--delta", "--density", "1", "--shira", "-o", "out")
    #expect(run.status == 2)
    #expect(run.errors.contains("SHiRA has one r for all layers, expected"), "\(run.errors)")
    let same = try place.run("extract", base, base, "--rank", "1", "--shira", "-o", "out")
    #expect(same.status == 2)
    #expect(same.errors.contains("there is no change to extract"), "\(same.errors)")
    #expect(try place.names == [])
  }
}
