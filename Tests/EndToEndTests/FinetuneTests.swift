import Foundation
import Testing

private let base = FinetuneSamples.base

@Suite struct FinetuneTests {
  @Test(arguments: [
    [], ["--dora"], ["--rslora", "--quantize", "nf4"], ["--init", "gaussian"],
    ["--dropout", "0.1"], ["--dora", "--dropout", "0.1"], ["--init", "olora", "--rslora"],
    ["--method", "lora-fa"], ["--method", "adalora", "--dropout", "0.1"],
    ["--method", "qa-lora", "--dropout", "0.1"], ["--method", "qa-lora", "--init", "gaussian"],
    ["--long", "--group-size", "4"],
    ["--rank", "auto", "--max-rank", "8", "--mean-rank", "5"], ["--sparsity", "0.6"],
    ["--rank", "auto", "--max-rank", "8", "--dora", "--rslora", "--rank-by", "effective-rank"],
    ["--init", "pissa"], ["--init", "loftq", "--quantize", "nf4"],
    ["--modules-to-save", "embed_tokens, norm,lm_head", "--quantize", "nf4"],
    ["--trainable-tokens", "5,17", "--modules-to-save", "up_proj"],
  ])
  func anAdapterIsTrained(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let run = try place.run(
      ["finetune", FinetuneSamples.model(for: options), "--data", "train.safetensors", "-o", "out"]
        + ["--learning-rate", "0.01", "--epochs", "20", "--json"] + options)
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let first = try #require(report["firstLoss"] as? Double)
    let last = try #require(report["lastLoss"] as? Double)
    #expect(last < 0.8 * first)
    #expect(report["steps"] as? Int == 60)
    let names = try FileManager.default.contentsOfDirectory(atPath: place.path("out")).sorted()
    #expect(
      names == ["README.md", "adapter_config.json", "adapter_model.safetensors", "log.jsonl"])
    let log = try String(decoding: place.bytes("out/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 60)
    let config = try #require(
      JSONSerialization.jsonObject(with: place.bytes("out/adapter_config.json"))
        as? [String: Any])
    #expect(config["use_dora"] as? Bool == options.contains("--dora"))
    #expect(config["use_rslora"] as? Bool == options.contains("--rslora"))
    // What was taken from the weight is saved, too.
    let isDoubled = options.contains("pissa") || options.contains("olora")
    #expect(config["r"] as? Int == (isDoubled ? 16 : 8))
    let scaling = try #require(config["lora_alpha"] as? Double)
    let isRoot = options.contains("--rslora")
    #expect(abs(scaling - 16 * (isDoubled ? isRoot ? 2.0.squareRoot() : 2 : 1)) < 1e-9)
    // What was trained can be merged.
    let merge = try place.run("merge", FinetuneSamples.model(for: options), "out", "-o", "merged")
    #expect(merge.status == 0, "\(merge.errors)")
  }

  /// A model comes of it, in the layout and the type of the base, that can be used like one.
  @Test(arguments: [
    ["--method", "full", "--learning-rate", "0.003"],
    ["--method", "galore", "--rank", "4", "--update-proj-gap", "7", "--learning-rate", "0.01"],
    [
      "--method", "galore", "--proj-type", "reverse-std", "--scale", "1", "--learning-rate",
      "0.003", "--gradient-accumulation", "2", "--weight-decay", "0.1",
    ],
  ])
  func aModelIsTrained(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let run = try place.run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--epochs", "20", "--json"]
        + options)
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let first = try #require(report["firstLoss"] as? Double)
    let last = try #require(report["lastLoss"] as? Double)
    #expect(last < 0.8 * first)
    let names = try FileManager.default.contentsOfDirectory(atPath: place.path("out")).sorted()
    #expect(names == ["README.md", "config.json", "log.jsonl", "model.safetensors"])
    let card = try String(decoding: place.bytes("out/README.md"), as: UTF8.self)
    #expect(card.contains("library_name: transformers"))
    let size = try place.bytes("out/model.safetensors").count
    #expect(try size == Data(contentsOf: URL(fileURLWithPath: base + "/model.safetensors")).count)
    #expect(try place.run("verify", "out").status == 0)
    let extraction = try place.run("extract", base, "out", "-o", "adapter", "--rank", "8")
    #expect(extraction.status == 0, "\(extraction.errors)")
  }

  /// Moments in 8 bits lead to a loss within 2 % of that of moments in f32.
  @Test func momentsInEightBitsLearnAsWell() throws {
    let place = try FinetuneSamples.place()
    var losses: [Double] = []
    for name in ["adamw", "adamw_8bit"] {
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", name, "--epochs", "15", "--json"]
          + ["--learning-rate", "0.003", "--optimizer", name, "--rank", "128"])
      #expect(run.status == 0, "\(run.errors)")
      let report = try #require(
        JSONSerialization.jsonObject(with: run.output) as? [String: Any])
      losses.append(try #require(report["lastLoss"] as? Double))
    }
    #expect(losses[0] != losses[1] && abs(losses[1] - losses[0]) < 0.02 * losses[0])
  }

  /// A model that was trained has a log of its own, which is not that of the next run.
  @Test func aModelThatWasTrainedIsTrainedOn() throws {
    let place = try FinetuneSamples.place()
    for (from, to) in [(base, "one"), ("one", "two")] {
      let run = try place.run(
        ["finetune", from, "--data", "train.safetensors", "-o", to, "--method", "full"]
          + ["--max-steps", to == "one" ? "2" : "3", "--quiet"])
      #expect(run.status == 0, "\(run.errors)")
    }
    let log = try String(decoding: place.bytes("two/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 3)
  }

  /// Only what has the ranks that were asked for counts as best.
  @Test func theBestOfAdaLoRAMeetsItsBudget() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune(
      "--eval-data", "eval.safetensors", "--eval-every", "1", "--method", "adalora",
      "--rank", "4", "--max-steps", "12", "--tfinal", "3", "-o", "out", "--json")
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(try #require(report["bestStep"] as? Int) >= 10)
    let ranks = try #require(report["ranks"] as? [Int])
    #expect(ranks.count == 14 && ranks.reduce(0, +) == 4 * 14)
  }

  /// The budget is met, no layer's scale has changed, and the report says what each has got.
  @Test(arguments: [[], ["--rslora"]])
  func ranksAreFoundWhileTheyAreTrained(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let run = try place.run(
      [
        "finetune", base, "--data", "train.safetensors", "--rank", "auto", "--mean-rank", "3.5",
        "--max-steps", "12", "--eval-data", "eval.safetensors", "--eval-every", "1", "-o", "out",
        "--json", "--report", "page.html",
      ] + options)
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(try #require(report["bestStep"] as? Int) >= 6)
    let ranks = try #require(report["ranks"] as? [Int])
    let found = try #require(report["rankSearch"] as? [[String: Any]])
    #expect(found.compactMap { $0["rank"] as? Int } == ranks)
    let config = try #require(
      JSONSerialization.jsonObject(with: place.bytes("out/adapter_config.json"))
        as? [String: Any])
    let modules = try #require(config["rank_pattern"] as? [String: Int])
    let alphas = try #require(config["alpha_pattern"] as? [String: Double])
    #expect(config["r"] as? Int == 8 && config["lora_alpha"] as? Int == 16)
    let shapes = try Safetensors.shapes(place.bytes("out/adapter_model.safetensors"))
    var (taken, whole) = (0, 0)
    for (finding, rank) in zip(found, ranks) {
      let module = try #require(finding["module"] as? String)
      #expect(modules[module] == rank)
      let scale = options.isEmpty ? Double(rank) : Double(rank).squareRoot()
      let expected = options.isEmpty ? 2 : 16 / 8.0.squareRoot()
      #expect(try abs(#require(alphas[module]) / scale - expected) < 1e-6)
      for (kind, side) in [("A", 1), ("B", 0)] {
        let shape = try #require(shapes["base_model.model.\(module).lora_\(kind).weight"])
        #expect(shape[1 - side] == rank)
        taken += shape[side] * rank
        whole += shape[side]
      }
    }
    #expect(Double(taken) <= 3.5 * Double(whole) && Double(taken) > 3.4 * Double(whole))
    #expect(try place.run("verify", "out").status == 0)
    let page = try String(decoding: place.bytes("page.html"), as: UTF8.self)
    #expect(page.contains("effective rank"))
  }

  @Test func aSparseAdapterIsTrained() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune("--sparsity", "0.75", "--max-steps", "12", "-o", "out", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let zeros = try place.shell(
      """
      python3 - out/adapter_model.safetensors <<'END'
      import array, json, struct, sys
      data = open(sys.argv[1], "rb").read()
      size = struct.unpack("<Q", data[:8])[0]
      for name, entry in json.loads(data[8:8 + size]).items():
          if name != "__metadata__":
              start, end = entry["data_offsets"]
              values = array.array("f", data[8 + size + start:8 + size + end])
              print(values.count(0) / len(values))
      END
      """)
    let shares = zeros.text.split(separator: "\n").compactMap { Double($0) }
    #expect(shares.count == 28 && shares.allSatisfy { $0 == 0.75 })
  }

  /// What it has come to is what the model with the adapter merged computes.
  @Test(arguments: [[], ["--mask", "magnitude"]]) func aSparseChangeIsTrained(
    options: [String]
  ) throws {
    let place = try FinetuneSamples.place()
    let run = try place.run(
      [
        "finetune", base, "--data", "train.safetensors", "--method", "shira", "--rank", "3",
        "--learning-rate", "0.01", "--max-steps", "30", "--eval-data", "eval.safetensors", "-o",
        "out", "--json",
      ] + options)
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let loss = try #require(report["bestLoss"] as? Double)
    let first = try #require(report["firstLoss"] as? Double)
    #expect(loss < 0.8 * first)
    #expect(try place.run("verify", "out").status == 0)
    #expect(try place.run("merge", base, "out", "-o", "merged", "--quiet").status == 0)
    let evaluation = try place.run(
      "finetune", "merged", "--data", "train.safetensors", "--eval-data", "eval.safetensors",
      "--max-steps", "1", "-o", "again", "--json")
    #expect(evaluation.status == 0, "\(evaluation.errors)")
    let again = try #require(
      JSONSerialization.jsonObject(with: evaluation.output) as? [String: Any])
    let evaluations = try #require(again["evaluations"] as? [[String: Any]])
    let merged = try #require(evaluations.first?["loss"] as? Double)
    #expect(abs(merged - loss) < 1e-5)
  }

  @Test func aModelIsWrittenInAnotherType() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune(
      "-o", "out", "--method", "full", "--max-steps", "2", "--dtype", "bf16", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let inspection = try place.run("inspect", "out")
    #expect(inspection.text.contains("BF16") && !inspection.text.contains("F32"))
    let config = try String(decoding: place.bytes("out/config.json"), as: UTF8.self)
    #expect(config.contains("bfloat16"))
  }

  /// What an adapter was trained with is what it is used with: beside the model and folded into it.
  @Test(arguments: [["--long"], ["--dora"]])
  func stretchedPositionsGoWithTheAdapter(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let chat = Repository.sample("generation/tiny-chat")
    try place.write("d.jsonl", "{\"text\": \"A model is a number that has learnt to read.\"}\n")
    func loss(_ arguments: String...) throws -> Double {
      let run = try place.run(["evaluate"] + arguments + ["--data", "d.jsonl", "--json"])
      #expect(run.status == 0, "\(run.errors)")
      let report = try #require(
        JSONSerialization.jsonObject(with: run.output) as? [String: Any])
      return try #require(report["loss"] as? Double)
    }
    let run = try place.run(
      ["finetune", chat, "--data", "d.jsonl", "-o", "out", "--rope-scaling", "linear:4"]
        + ["--max-steps", "3", "--learning-rate", "0.01", "--quiet"] + options)
    #expect(run.status == 0, "\(run.errors)")
    let merge = try place.run("merge", chat, "out", "-o", "merged", "--dtype", "f32")
    #expect(merge.status == 0 && merge.text.contains("positions are stretched as in training"))
    let (beside, merged) = (try loss(chat, "--adapter", "out"), try loss("merged"))
    // Whole modules are rounded to the base's type when they are merged.
    #expect(abs(beside - merged) < (options == ["--long"] ? 2e-3 : 1e-4) * beside)
    // Without its configuration it is another adapter.
    #expect(try place.shell("cp -r out plain && rm plain/config.json").status == 0)
    #expect(try abs(loss(chat, "--adapter", "plain") - beside) > 1e-3 * beside)
    let more = try place.run(
      "finetune", chat, "--data", "d.jsonl", "-o", "more", "--adapter", "out", "--max-steps", "1",
      "--quiet")
    #expect(more.status == 0, "\(more.errors)")
    let configs = try ["more", "out"].map { folder in
      let json = try JSONSerialization.jsonObject(with: place.bytes("\(folder)/config.json"))
      return try #require(json as? NSDictionary)
    }
    #expect(configs[0] == configs[1])
  }

  @Test(arguments: [
    ["--dora", "--modules-to-save", "q_proj"],
    ["--dora", "--modules-to-save", "embed_tokens,lm_head,norm,up_proj"], ["--method", "qa-lora"],
    ["--quantize", "nf4", "--init", "loftq", "--dora"],
    ["--loraplus-ratio", "8", "--schedule", "cosine", "--warmup", "0.3"],
  ])
  func theBytesDoNotDependOnThreads(options: [String]) throws {
    let place = try FinetuneSamples.place()
    for threads in ["1", "3"] {
      let run = try place.run(
        [
          "finetune", FinetuneSamples.model(for: options), "--data", "train.safetensors", "-o",
          threads,
        ]
          + ["--threads", threads, "--dropout", "0.2", "--quiet"] + options)
      #expect(run.status == 0 && run.errors.isEmpty)
    }
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("1/\(adapter)") == place.bytes("3/\(adapter)"))
  }

  @Test func anAdapterIsGoneOnWith() throws {
    let place = try FinetuneSamples.place()
    let first = try place.finetune(
      "-o", "a", "--dora", "--rank", "3", "--rank-pattern", "v_proj=2", "--rslora")
    #expect(first.status == 0, "\(first.errors)")
    let second = try place.finetune("-o", "b", "--adapter", "a", "--json")
    #expect(second.status == 0, "\(second.errors)")
    let configs = try ["a", "b"].map { name in
      try #require(
        JSONSerialization.jsonObject(with: place.bytes("\(name)/adapter_config.json"))
          as? NSDictionary)
    }
    #expect(configs[0] == configs[1])
    let plan = try place.finetune("-o", "c", "--adapter", "b", "--dry-run")
    #expect(plan.text.contains("DoRA of rank 2 to 3"))
    for options in [["--rank", "3"], ["--dora"], ["--init", "pissa"]] {
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", "c", "--adapter", "a"] + options)
      #expect(run.status == 64)
      #expect(run.errors.contains("\(options[0]) goes without --adapter"))
    }
  }

  /// What an adapter has besides its factors is gone on with and applied, as it was saved.
  @Test(arguments: [
    ["--modules-to-save", "embed_tokens,norm"], ["--trainable-tokens", "5,17"], ["--lora-bias"],
  ])
  func whatIsTrainedBesidesIsUsedAgain(options: [String]) throws {
    let place = try Workplace()
    let chat = Repository.sample("generation/tiny-chat")
    let data = Repository.sample("generation/sailor.jsonl")
    func run(_ arguments: [String]) throws -> Run {
      let run = try place.run(arguments)
      #expect(run.status == 0, "\(run.errors)")
      return run
    }
    let finetune = ["finetune", chat, "--data", data, "--quiet"]
    _ = try run(finetune + options + ["-o", "a", "--max-steps", "30", "--learning-rate", "0.01"])
    // The rate of the first step is 0.
    _ = try run(finetune + ["--adapter", "a", "-o", "b", "--max-steps", "1", "--warmup", "5"])
    let name = "adapter_model.safetensors"
    #expect(try place.bytes("a/\(name)") == place.bytes("b/\(name)"))
    let more = finetune + ["--adapter", "a", "-o", "c", "--max-steps", "1", "--json"]
    let first = try #require(try number("firstLoss", run(more)))
    let evaluate = ["evaluate", chat, "--data", data, "--json"]
    let loss = try #require(try number("loss", run(evaluate + ["--adapter", "a"])))
    #expect(abs(loss - first) < 1e-5 * first)
    #expect(loss < (try #require(try number("loss", run(evaluate)))) / 2)
  }

  private func number(_ key: String, _ run: Run) throws -> Double? {
    let object = try JSONSerialization.jsonObject(with: Data(run.text.utf8)) as? [String: Any]
    return object?[key] as? Double
  }

  @Test func aPageShowsTextsOfBeforeAndAfter() throws {
    let place = try Workplace()
    let turn = "<|im_start|>user\\nWhat is a weight?<|im_end|>\\n<|im_start|>assistant\\n"
    try place.write("d.jsonl", "{\"prompt\": \"\(turn)\", \"completion\": \"A model.\"}\n")
    let run = try place.run(
      "finetune", Repository.sample("generation/tiny-chat"), "--data", "d.jsonl", "-o", "out",
      "--report", "r.html", "--learning-rate", "0.01", "--max-steps", "40", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let page = try String(decoding: place.bytes("r.html"), as: UTF8.self)
    let cells = ["A model.", "A number that a model has learnt.", "A model."]
    #expect(page.contains(cells.map { "<td>\($0)</td>" }.joined()))
    #expect(page.contains("user↵What is a weight?"))
  }

  @Test func theStartIsKeptWhereNothingIsBetter() throws {
    let place = try FinetuneSamples.place()
    let options = [
      "--eval-data", "eval.safetensors", "--learning-rate", "10", "--max-steps", "1",
    ]
    let run = try place.run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--json"] + options)
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(report["bestStep"] as? Int == 0)
    let told = try place.run(
      ["finetune", base, "--data", "train.safetensors", "-o", "told"] + options)
    #expect(told.text.contains("no evaluation was better than that before the first step"))
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("out/\(adapter)") == place.bytes("out/checkpoint-0/\(adapter)"))
    #expect(try place.bytes("out/\(adapter)") != place.bytes("out/checkpoint-1/\(adapter)"))
  }

  /// Twice as many batches of half the rows come to the same steps.
  @Test func batchesOfAStepAreAsOne() throws {
    let place = try FinetuneSamples.place()
    var losses: [[Double]] = []
    for (name, options) in [
      ("a", ["--batch-size", "4"]), ("b", ["--batch-size", "2", "--gradient-accumulation", "2"]),
    ] {
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", name, "--epochs", "2"]
          + ["--learning-rate", "0.01", "--quiet"] + options)
      #expect(run.status == 0, "\(run.errors)")
      let log = try String(decoding: place.bytes("\(name)/log.jsonl"), as: UTF8.self)
      losses.append(
        try log.split(separator: "\n").map { line in
          let entry = try #require(
            JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
          return try #require(entry["loss"] as? Double)
        })
    }
    #expect(losses[0].count == 6 && losses[1].count == 6)
    for (one, other) in zip(losses[0], losses[1]) { #expect(abs(one - other) < 1e-4 * one) }
  }

  @Test func theBestEvaluationIsKept() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune(
      "--eval-data", "eval.safetensors", "--eval-every", "2", "--max-steps", "40",
      "--learning-rate", "0.05", "--early-stop", "3", "-o", "out", "--json")
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let evaluations = try #require(report["evaluations"] as? [[String: Any]])
    let losses = evaluations.compactMap { $0["loss"] as? Double }
    #expect(report["ending"] as? String == "early" && losses.count < 21)
    #expect(report["bestLoss"] as? Double == losses.min())
    let best = try #require(report["bestStep"] as? Int)
    #expect(
      try place.bytes("out/adapter_model.safetensors")
        == place.bytes("out/checkpoint-\(best)/adapter_model.safetensors"))
  }

  @Test func aFileHasTheOptionsThatAreNotGiven() throws {
    let place = try FinetuneSamples.place()
    try place.write(
      "c.yaml",
      """
      data: train.safetensors
      max_steps: 3
      rank: 2
      dora: true
      seed: 5
      target-modules: [q_proj, v_proj]
      """)
    let run = try place.run("finetune", base, "--config", "c.yaml", "-o", "a", "--rank", "3")
    #expect(run.status == 0, "\(run.errors)")
    let same = try place.finetune(
      "--max-steps", "3", "--dora", "--seed", "5", "--rank", "3", "-o", "b",
      "--target-modules", "q_proj,v_proj")
    #expect(same.status == 0)
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("a/\(adapter)") == place.bytes("b/\(adapter)"))
    try place.write("bad.yaml", "rank: 2\nranks: 3\n")
    let bad = try place.run("finetune", base, "--config", "bad.yaml", "-o", "c")
    #expect(bad.status == 2)
    #expect(bad.errors.hasPrefix("peftool: bad.yaml: line 2: ranks is no option, expected one of "))
  }

  @Test func aPlanWritesNothing() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune("-o", "out", "--dry-run")
    #expect(run.status == 0 && run.text.contains("10 examples, 120 tokens"))
    #expect(run.text.contains("\ntime     about "))
    #expect(try place.names == ["eval.safetensors", "train.safetensors"])
  }

  @Test func aPageHasTheCurves() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune(
      "--eval-data", "eval.safetensors", "-o", "out", "--report", "out/report.html")
    #expect(run.status == 0, "\(run.errors)")
    let page = try String(decoding: place.bytes("out/report.html"), as: UTF8.self)
    #expect(page.contains("<polyline") && page.contains("learning_rate"))
  }
}
