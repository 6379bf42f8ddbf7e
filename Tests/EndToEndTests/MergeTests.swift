import Foundation
import Testing

/// The spacing of bf16 numbers relative to them: PEFT sums a product in another order, so that a
/// few results lie on the other side of a rounding.
private let oneBF16Ulp = "0.0078125"

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")

@Suite struct MergeTests {
  @Test(arguments: ["lora", "dora"])
  func aModelBecomesAWholeModel(name: String) throws {
    let place = try Workplace()
    let adapter = Repository.sample("adapters/\(name)")
    let run = try place.run("merge", base, adapter, "-o", "out")
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(run.text.contains("out"))
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: place.path("out")).sorted()
        == FileManager.default.contentsOfDirectory(atPath: base).sorted())
    #expect(try place.run("verify", "out").status == 0)
    let merged = Repository.sample("merged/\(name).safetensors")
    let difference = try place.run("diff", "out", merged, "--rtol", oneBF16Ulp)
    #expect(difference.status == 0, "\(difference.text)")
    #expect(try place.names == ["out"])
  }

  /// The next number of BF16 after 1 is 1 + 2⁻⁷: what is less than half of that goes.
  @Test(
    arguments: [(0x1p-7, 0), (0x1p-9, 1), (0x1.8p-8, 1.0 / 3)] as [(Float, Double)], [false, true])
  func whatRoundingLosesIsTold(_ change: (size: Float, lost: Double), isSaved: Bool) throws {
    let place = try Workplace()
    let (size, lost) = change
    try place.write(
      "base.safetensors", Safetensors.file([("layer.weight", "F32", [2, 2], [1, 1, 1, 1])]))
    try place.write(
      "adapter/adapter_model.safetensors",
      Safetensors.file(
        isSaved
          ? [
            (
              "base_model.model.layer.weight", "F32", [2, 2],
              [Float](repeating: 1 + size, count: 4)
            )
          ]
          : [
            ("base_model.model.layer.lora_A.weight", "F32", [1, 2], [1, 1]),
            ("base_model.model.layer.lora_B.weight", "F32", [2, 1], [size, size]),
          ]))
    let saved = isSaved ? #", "modules_to_save": ["layer"]"# : ""
    try place.write(
      "adapter/adapter_config.json", #"{"peft_type": "LORA", "r": 1, "lora_alpha": 1\#(saved)}"#)
    let run = try place.run(
      "merge", "base.safetensors", "adapter", "-o", "out.safetensors", "--dtype", "BF16", "--json")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(try abs(#require(report["roundingLoss"] as? Double) - lost) < 1e-6)
    let wide = try place.run("merge", "base.safetensors", "adapter", "-o", "wide.safetensors")
    #expect(wide.status == 0 && !wide.text.contains("lost"))
    let narrow = try place.run(
      "merge", "base.safetensors", "adapter", "-o", "narrow.safetensors", "--dtype", "BF16")
    #expect(narrow.text.contains("of the change by rounding to BF16"))
  }

  @Test func anAdapterBesideTheBaseIsNotCarriedAlong() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(
      atPath: Repository.sample("bases/llama-f32"), toPath: place.path("base"))
    try FileManager.default.copyItem(
      atPath: "\(lora)/adapter_config.json", toPath: place.path("base/adapter_config.json"))
    let adapter = Repository.sample("adapters/lora-f32base")
    let run = try place.run("merge", "base", adapter, "-o", "out")
    #expect(run.status == 0, "\(run.errors)")
    let names = try FileManager.default.contentsOfDirectory(atPath: place.path("out"))
    #expect(names.contains("config.json"))
    #expect(!names.contains("adapter_config.json"))
  }

  @Test(arguments: ["out", "out.safetensors"])
  func anExistingOutputNeedsForce(output: String) throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", output).status == 0)
    let before = try place.shell("find . -type f -exec sha256sum {} +").text

    let refusal = try place.run("merge", base, dora, "-o", output)
    #expect(refusal.status == 2)
    #expect(refusal.errors.hasPrefix("peftool: \(output): "))
    #expect(refusal.errors.contains("--force"))
    #expect(try place.shell("find . -type f -exec sha256sum {} +").text == before)

    #expect(try place.run("merge", base, dora, "-o", output, "--force").status == 0)
    #expect(try place.shell("find . -type f -exec sha256sum {} +").text != before)
    #expect(try place.run("merge", base, lora, "-o", output, "--force").status == 0)
    #expect(try place.shell("find . -type f -exec sha256sum {} +").text == before)
    #expect(try place.names == [output])
  }

  @Test func aStreamHasTheBytesOfAFile() throws {
    let place = try Workplace()
    let file = try place.run("merge", base, lora, "-o", "out.safetensors")
    let stream = try place.run("merge", base, lora, "-o", "-")
    #expect(stream.status == 0)
    #expect(stream.output == (try place.bytes("out.safetensors")))
    // What a file's run prints goes where the tensors do not.
    #expect(file.errors == "")
    #expect(stream.errors.contains("changed") == file.text.contains("changed"))
    #expect(stream.errors != "")
    #expect(try place.names == ["out.safetensors"])
  }

  @Test func aStreamGoesThroughAPipe() throws {
    let run = try Workplace().shell(
      "peftool merge '\(base)' '\(lora)' -o - --quiet | cat > out.safetensors"
        + " && peftool verify out.safetensors")
    #expect(run.status == 0)
    #expect(run.errors == "")
  }

  @Test func closedStandardOutputTakesNoStream() throws {
    let place = try Workplace()
    let run = try place.shell("peftool merge '\(base)' '\(lora)' -o - >&-")
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: standard output: "))
    #expect(try place.names == [])
  }

  @Test func shardsKeepToTheirSize() throws {
    let place = try Workplace()
    #expect(try place.run("merge", base, lora, "-o", "whole").status == 0)
    let run = try place.run("merge", base, lora, "-o", "out", "--shard-size", "20kB")
    #expect(run.status == 0, "\(run.errors)")
    let shards = try FileManager.default.contentsOfDirectory(atPath: place.path("out"))
      .filter { $0.hasSuffix(".safetensors") }
    #expect(shards.count > 3)
    #expect(try place.run("diff", "out", "whole").status == 0)
    #expect(try place.run("verify", "out").status == 0)
  }

  @Test func jsonTellsWhatWasDone() throws {
    let place = try Workplace()
    let run = try place.run("merge", base, lora, "-o", "out", "--json")
    #expect(run.status == 0)
    let report = try #require(
      try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(
      Set(report.keys).isSuperset(of: [
        "output", "base", "adapters", "rounding", "tensors", "largestRelativeChange", "nonfinite",
        "bytes", "seconds", "notes",
      ]))
    #expect(report["output"] as? String == "out")
    #expect(report["rounding"] as? String == "once")
    #expect(report["nonfinite"] as? Int == 0)
    let tensors = try #require(report["tensors"] as? [String: Int])
    #expect(tensors == ["total": 21, "changed": 14, "copied": 7])
    let adapters = try #require(report["adapters"] as? [[String: Any]])
    #expect(adapters.map { $0["path"] as? String } == [lora])
    #expect(adapters.map { $0["method"] as? String } == ["LoRA"])
    #expect(adapters.map { $0["weight"] as? Double } == [1])
  }

  @Test func quietPrintsNothing() throws {
    let run = try Workplace().run("merge", base, lora, "-o", "out", "--quiet")
    #expect(run.status == 0)
    #expect(run.text == "")
    #expect(run.errors == "")
  }

  @Test func everyNumberOfThreadsGivesTheSameBytes() throws {
    let place = try Workplace()
    let bytes = try ["1", "2", "7"].map { threads in
      let run = try place.run("merge", base, lora, dora, "-o", "-", "--threads", threads)
      #expect(run.status == 0)
      return run.output
    }
    #expect(Set(bytes).count == 1)
  }

  @Test func weightZeroGivesTheBase() throws {
    let place = try Workplace()
    let run = try place.run("merge", base, lora, dora, "-o", "out", "--weights", "0,0")
    #expect(run.status == 0, "\(run.errors)")
    #expect(try place.run("diff", "out", base).status == 0)
  }

  @Test func theDtypeIsThatAskedFor() throws {
    let place = try Workplace()
    let run = try place.run("merge", base, lora, "-o", "out.safetensors", "--dtype", "F32")
    #expect(run.status == 0, "\(run.errors)")
    let report = try place.run("inspect", "out.safetensors").text
    #expect(report.contains("F32"))
    #expect(!report.contains("BF16"))
  }

  @Test func aTiedModelIsUntied() throws {
    let place = try Workplace()
    let run = try place.run(
      "merge", Repository.sample("bases/llama-tied-f32"), Repository.sample("adapters/tied-embed"),
      "-o", "out")
    #expect(run.status == 0, "\(run.errors)")
    let config = try JSONSerialization.jsonObject(with: place.bytes("out/config.json"))
    #expect((config as? [String: Any])?["tie_word_embeddings"] as? Bool == false)
    #expect(try place.run("inspect", "out").text.contains("lm_head.weight"))
  }
}

@Suite struct MergeRefusalTests {
  /// A run that fails with one line which holds the texts, and leaves nothing behind.
  private func refuses(
    _ arguments: [String], status: Int32 = 2, saying texts: String...,
    in place: borrowing Workplace, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let before = try place.names
    let run = try Run.program(Run.peftool, ["merge"] + arguments, in: place.folder, input: Data())
    #expect(run.status == status, sourceLocation: sourceLocation)
    #expect(run.text == "", sourceLocation: sourceLocation)
    #expect(run.errors.hasPrefix("peftool: "), sourceLocation: sourceLocation)
    if status == 2 {
      #expect(run.errors.split(separator: "\n").count == 1, sourceLocation: sourceLocation)
    }
    for text in texts {
      #expect(
        run.errors.contains(text), "\(text) in \(run.errors)", sourceLocation: sourceLocation)
    }
    #expect(try place.names == before, sourceLocation: sourceLocation)
  }

  @Test func oneWeightForEachAdapter() throws {
    try refuses(
      [base, lora, "-o", "out", "--weights", "1,2"], status: 64, saying: "--weights",
      in: try Workplace())
    try refuses(
      [base, lora, "-o", "out", "--weights", "one"], status: 64, saying: "--weights",
      in: try Workplace())
  }

  @Test func anOutputIsNeeded() throws {
    try refuses([base, lora], status: 64, saying: "-o", in: try Workplace())
  }

  @Test func anAdapterThatIsNotThere() throws {
    try refuses(
      [base, "none", "-o", "out"], saying: "none: ", "No such file or directory",
      in: try Workplace())
  }

  @Test func aBaseThatIsNotThere() throws {
    try refuses(
      ["none", lora, "-o", "out"], saying: "none: ", "No such file or directory",
      in: try Workplace())
  }

  @Test func aModelIsNoAdapter() throws {
    try refuses([base, base, "-o", "out"], saying: base, "adapter", in: try Workplace())
  }

  @Test func aKeyThatFindsNoModuleNamesTheNearest() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: lora, toPath: place.path("adapter"))
    let renamed = try place.shell(
      "sed -i 's/layers.1.self_attn.q_proj/layers.1.self_attn.q_prok/g'"
        + " adapter/adapter_model.safetensors")
    #expect(renamed.status == 0)
    try refuses(
      [base, "adapter", "-o", "out"],
      saying: "adapter_model.safetensors: tensor '", "layers.1.self_attn.q_prok",
      "layers.1.self_attn.q_proj", in: place)
  }

  @Test func aFolderThatCannotBeWritten() throws {
    // Not even by root.
    try refuses([base, lora, "-o", "/proc/out"], saying: "/proc", in: try Workplace())
    try refuses(
      [base, lora, "-o", "none/out"], saying: "none", "No such file or directory",
      in: try Workplace())
  }

  @Test func anOutputOntoAnInput() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: base, toPath: place.path("base"))
    try refuses(["base", lora, "-o", "base", "--force"], saying: "base", in: place)
    #expect(try place.run("diff", "base", base).status == 0)
  }

  @Test func aBaseThatWasChangedWhenTheAdapterWasMade() throws {
    let base = Repository.sample("bases/llama-f32")
    let mutated = Repository.sample("adapters/pissa-mutated")
    let place = try Workplace()
    try refuses([base, mutated, "-o", "out"], saying: "--allow-mutated-base", in: place)
    let run = try place.run("merge", base, mutated, "-o", "out", "--allow-mutated-base")
    #expect(run.status == 0, "\(run.errors)")
  }
}
