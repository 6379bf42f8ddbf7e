import Foundation
import Testing

private let chat = Repository.sample("generation/tiny-chat")

/// LLaMA-7B's shape.
private let config = """
  {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
   "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
   "rms_norm_eps": 1e-6}
  """

@Suite struct PlanTests {
  private func plan(_ place: borrowing Workplace, _ arguments: String...) throws -> [String: Any] {
    let run = try place.run(["plan"] + arguments + ["--json"])
    try #require(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    return try #require(JSONSerialization.jsonObject(with: run.output) as? [String: Any])
  }

  @Test func aConfigurationIsEnough() throws {
    let place = try Workplace()
    try place.write("m/config.json", config)
    for path in ["m", "m/config.json"] {
      let run = try place.run("plan", path, "--flops", "2e11", "--memory", "64GB")
      #expect(run.status == 0 && run.errors.isEmpty)
      #expect(run.text.contains("model   m, llama, 6.7B weights in BF16\n"))
      #expect(run.text.contains("\n* LoRA is recommended for --aim adapter:\n"))
      // The same numbers give the same text.
      #expect(try place.run("plan", path, "--flops", "2e11", "--memory", "64GB").text == run.text)
    }
    #expect(try place.names == ["m"])
    let measured = try plan(place, "m", "--examples", "10", "--memory", "64GB")
    #expect(try #require(measured["flops"] as? Double) > 1e8)
    let methods = try #require(measured["methods"] as? [[String: Any]])
    #expect(methods.allSatisfy { ($0["secondsPerEpoch"] as? Double ?? 0) > 0 })
    #expect(measured["stepsPerEpoch"] as? Int == 3)
    let unmeasured = try plan(place, "m", "--no-measure")
    #expect(unmeasured["flops"] is NSNull)
  }

  /// The commands that are printed run as they are, on data of that name.
  @Test(arguments: ["adapter", "quality", "ranks", "long", "model", "int4"])
  func theCommandsRun(aim: String) throws {
    let place = try Workplace()
    try FileManager.default.copyItem(
      atPath: aim == "int4" ? Repository.sample("int4/llama") : chat,
      toPath: place.path("my model"))
    let texts = (0..<40).map { #"{"prompt": "Say \#($0):", "completion": " \#($0)."}"# }
    try place.write("train.jsonl", texts.joined(separator: "\n"))
    let told = try plan(
      place, "my model", "--aim", aim, "--max-length", "64", "--rank", "4", "--no-measure")
    let commands = try #require(told["commands"] as? [String])
    #expect(commands.count == (["model": 1, "int4": 3][aim] ?? 2))
    for command in commands {
      #expect(command.contains("'my model"))
      let run = try place.shell(command)
      #expect(run.status == 0, "\(command): \(run.errors)")
    }
  }

  @Test func aShortMemoryIsMetByCodesAndByComputingTwice() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: chat, toPath: place.path("m"))
    try place.write("train.jsonl", #"{"prompt": "Say:", "completion": " yes."}"#)
    // The program's 24 MB, and some 6 of which most are activations.
    let told = try plan(
      place, "m", "--memory", "27.9MB", "--max-length", "128", "--no-measure", "--threads", "1")
    let commands = try #require(told["commands"] as? [String])
    #expect(commands.contains { $0.contains("--checkpoint-activations on") }, "\(commands)")
    for command in commands {
      #expect(try place.shell(command).status == 0, "\(command)")
    }
  }

  /// Where the codes of the base are what makes it fit.
  @Test func aQuantizedBaseIsMadeFirst() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: chat, toPath: place.path("m"))
    try place.write("train.jsonl", #"{"prompt": "Say:", "completion": " yes."}"#)
    let sizes = ["m", "--max-length", "128", "--no-measure", "--threads", "1"]
    let run = try place.run(["plan"] + sizes + ["--memory", "8GB", "--json"])
    let all = try #require(JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(all["recommended"] as? String == "LoRA")
    let methods = try #require(all["methods"] as? [[String: Any]])
    let coded = try #require(methods.first { $0["method"] as? String == "QLoRA" })
    let peak = try #require(coded["peakBytes"] as? Int)
    let activations = try #require(coded["activationBytes"] as? Int)
    // A tenth of what is free for activations stays free.
    let limit = peak + activations / 9 + 1000
    let told = try place.run(
      ["plan"] + sizes + ["--memory", "\(Double(limit) / 1000)KB", "--json"])
    let plan = try #require(JSONSerialization.jsonObject(with: told.output) as? [String: Any])
    #expect(plan["recommended"] as? String == "QLoRA")
    let commands = try #require(plan["commands"] as? [String])
    #expect(commands.first == "peftool quantize m -o m-nf4")
    for command in commands {
      let run = try place.shell(command)
      #expect(run.status == 0, "\(command): \(run.errors)")
    }
    #expect(try place.names == ["m", "m-nf4", "merged", "train.jsonl", "tuned"])
  }

  @Test(arguments: [
    ("{", "byte 1"), ("{}", "model_type is missing"),
    (#"{"model_type": "gpt2"}"#, "peftool computes"),
    (#"{"model_type": "llama"}"#, "has no vocab_size"),
    (config.replacingOccurrences(of: "4096", with: "-1"), "hidden_size"),
    (config.replacingOccurrences(of: "32000", with: "1e300"), "vocab_size"),
    (config.replacingOccurrences(of: "11008", with: "1073741824"), "numbers, expected"),
  ]) func whatIsNoModelIsRefused(text: String, reason: String) throws {
    let place = try Workplace()
    try place.write("m/config.json", text)
    let run = try place.run("plan", "m", "--no-measure")
    #expect(run.status == 2)
    #expect(run.output.isEmpty)
    #expect(run.errors.contains("m/config.json") && run.errors.contains(reason), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: [
    (["--max-length", "4096"], "the model has 2048 positions, which --rope-scaling of finetune"),
    (["--rank", "5000"], "have 4096 ranks"),
    (["--batch-size", "1000000000"], "a smaller --batch-size"),
  ]) func whatDoesNotFitTheModelIsRefused(options: [String], reason: String) throws {
    let place = try Workplace()
    try place.write("m/config.json", config)
    let run = try place.run(["plan", "m", "--no-measure"] + options)
    #expect(run.status == 2)
    #expect(run.errors.contains(reason), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: [
    ["--rank", "0"], ["--batch-size", "0"], ["--max-length", "1"], ["--memory", "much"],
    ["--flops", "nan"], ["--flops", "1", "--no-measure"], ["--examples", "1", "--tokens", "1"],
    ["--gpu", "--flops", "1"], ["--aim", "best"],
  ]) func whatCannotBeMeantIsUsage(options: [String]) throws {
    let place = try Workplace()
    let run = try place.run(["plan", chat] + options)
    #expect(run.status == 64, "\(run.errors)")
  }

  @Test func whatIsNotThereIsSaid() throws {
    let place = try Workplace()
    for path in ["none", "m.gguf"] {
      try place.write("m.gguf", "GGUF")
      #expect(try place.run("plan", path).status == 2)
    }
  }
}
