import Foundation
import Testing

private let base = Repository.sample("bases/llama-f32")

/// The model that some options are for.
private func model(for options: [String]) -> String {
  options.contains("qa-lora") ? Repository.sample("training/bases/llama3-int4") : base
}

/// Rows of tokens that repeat themselves, which is soon learnt.
private func writeTokens(
  _ place: borrowing Workplace, _ name: String, rows: Int, shift: Int
) throws {
  let length = 12
  let tokens = (0..<rows).flatMap { row in
    (0..<length).map { UInt32(3 + ((row + shift) * 7 + $0 % 4) % 90) }
  }
  try place.write(
    name,
    Safetensors.file([
      ("input_ids", "I32", [rows, length], tokens.map { Float(bitPattern: $0) })
    ]))
}

@Suite struct FinetuneTests {
  private func place() throws -> Workplace {
    let place = try Workplace()
    try writeTokens(place, "train.safetensors", rows: 10, shift: 0)
    try writeTokens(place, "eval.safetensors", rows: 3, shift: 1)
    return place
  }

  private func finetune(_ place: borrowing Workplace, _ arguments: String...) throws -> Run {
    try place.run(["finetune", base, "--data", "train.safetensors"] + arguments)
  }

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
    let place = try place()
    let run = try place.run(
      ["finetune", model(for: options), "--data", "train.safetensors", "-o", "out"]
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
    let merge = try place.run("merge", model(for: options), "out", "-o", "merged")
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
    let place = try place()
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
    let place = try place()
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
    let place = try place()
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
    let place = try place()
    let run = try finetune(
      place, "--eval-data", "eval.safetensors", "--eval-every", "1", "--method", "adalora",
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
    let place = try place()
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
    let place = try place()
    let run = try finetune(
      place, "--sparsity", "0.75", "--max-steps", "12", "-o", "out", "--quiet")
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
    let place = try place()
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

  @Test(arguments: [
    (["--max-rank", "30", "--mean-rank", "29"], "ranks, and --max-rank asks for 30"),
    (["--budget", "2"], "rank 1 in each of 14 modules takes"),
    (["--budget", "100000000"], "leaves nothing to cut of"),
  ])
  func aSearchThatCannotBeIsTold(options: [String], message: String) throws {
    let run = try place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--rank", "auto"] + options)
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
  }

  @Test(arguments: ["llama3-f32", "qwen3-f32"]) func theHeadGetsNoSparseChange(
    model: String
  ) throws {
    let place = try place()
    let run = try place.run(
      "finetune", Repository.sample("training/bases/" + model), "--data", "train.safetensors",
      "--method", "shira", "--rank", "2", "--target-modules", "q_proj,lm_head", "-o", "out")
    #expect(run.status == 2 && run.errors.contains("'lm_head.weight': gets no sparse change"))
  }

  @Test func aSparseChangeThatIsTooLargeIsTold() throws {
    let place = try place()
    let run = try finetune(place, "--method", "shira", "--rank", "500", "-o", "out")
    #expect(run.status == 2 && run.errors.contains("entries, and --rank 500 asks for 500·"))
  }

  /// What could not be written in one type is not lost, and is written in another.
  @Test func whatCannotBeWrittenIsSaved() throws {
    let place = try place()
    #expect(try place.shell("cp -r '\(base)' big").status == 0)
    try place.write(
      "edit.py",
      Data(
        SafetensorsEdit.program(
          "t['model.norm.weight'][:4] = struct.pack('<f', 1e6)"
        ).utf8))
    #expect(try place.shell("python3 edit.py big").status == 0)
    let all = [
      "finetune", "big", "--data", "train.safetensors", "-o", "out", "--method", "full",
      "--max-steps", "2", "--quiet",
    ]
    let run = try place.run(all + ["--dtype", "f16"])
    #expect(run.status == 2 && run.errors.contains("the last step is saved, and --resume writes"))
    let names = try FileManager.default.contentsOfDirectory(atPath: place.path("out")).sorted()
    #expect(names == ["checkpoint-2", "log.jsonl"])
    let other = try place.run(all + ["--resume", "--dtype", "f32"])
    #expect(other.status == 0, "\(other.errors)")
    #expect(try place.run(all.map { $0 == "out" ? "whole" : $0 } + ["--dtype", "f32"]).status == 0)
    #expect(try place.bytes("out/model.safetensors") == place.bytes("whole/model.safetensors"))
  }

  @Test func aModelIsWrittenInAnotherType() throws {
    let place = try place()
    let run = try finetune(
      place, "-o", "out", "--method", "full", "--max-steps", "2", "--dtype", "bf16", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let inspection = try place.run("inspect", "out")
    #expect(inspection.text.contains("BF16") && !inspection.text.contains("F32"))
    let config = try String(decoding: place.bytes("out/config.json"), as: UTF8.self)
    #expect(config.contains("bfloat16"))
  }

  @Test(arguments: [
    ["--method", "full"], ["--method", "galore", "--update-proj-gap", "4"],
    ["--method", "galore", "--rank", "64", "--optimizer", "adamw_8bit"],
  ])
  func aRunOfAModelGoesOn(options: [String]) throws {
    let place = try place()
    let all =
      ["finetune", base, "--data", "train.safetensors", "--save-every", "5", "--max-steps", "9"]
      + options
    #expect(try place.run(all + ["-o", "whole", "--threads", "1"]).status == 0)
    #expect(
      try place.shell("cp -r whole out && rm out/config.json out/model.safetensors").status == 0)
    let run = try place.run(all + ["-o", "out", "--resume", "--quiet", "--threads", "3"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(try place.bytes("out/model.safetensors") == place.bytes("whole/model.safetensors"))
    let done = try place.run(all + ["-o", "out", "--resume"])
    #expect(done.status == 2 && done.errors.contains("out: has its model already: training is"))
  }

  /// What an adapter was trained with is what it is used with: beside the model and folded into it.
  @Test(arguments: [["--long"], ["--dora"]])
  func stretchedPositionsGoWithTheAdapter(options: [String]) throws {
    let place = try place()
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

  @Test func longTextsAreNotForAModelWithAWindow() throws {
    let place = try place()
    let mistral = Repository.sample("training/bases/mistral-f32")
    let run = try place.run(
      "finetune", mistral, "--data", "train.safetensors", "-o", "out", "--long")
    #expect(run.status == 2 && run.errors.contains("has layers with a sliding window of 8 tokens"))
  }

  @Test func aQuantizedModelIsNotTrainedWhole() throws {
    let place = try place()
    #expect(try place.run("quantize", base, "-o", "q", "--quiet").status == 0)
    let run = try place.run(
      "finetune", "q", "--data", "train.safetensors", "-o", "out", "--method", "galore")
    #expect(
      run.status == 2 && run.errors.contains("is quantized, and codes cannot be trained whole"))
  }

  @Test(arguments: [
    ["--dora", "--modules-to-save", "q_proj"],
    ["--dora", "--modules-to-save", "embed_tokens,lm_head,norm,up_proj"], ["--method", "qa-lora"],
  ])
  func theBytesDoNotDependOnThreads(options: [String]) throws {
    let place = try place()
    for threads in ["1", "3"] {
      let run = try place.run(
        ["finetune", model(for: options), "--data", "train.safetensors", "-o", threads]
          + ["--threads", threads, "--dropout", "0.2", "--quiet"] + options)
      #expect(run.status == 0 && run.errors.isEmpty)
    }
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("1/\(adapter)") == place.bytes("3/\(adapter)"))
  }

  /// What is trained besides the adapter goes on, too.
  @Test(arguments: [
    ["--modules-to-save", "embed_tokens,norm"], ["--trainable-tokens", "5,17"],
    ["--method", "adalora", "--tinit", "2"], ["--method", "lora-fa"],
    ["--method", "shira", "--rank", "2", "--gradient-accumulation", "2"],
    ["--method", "shira", "--rank", "4", "--mask", "magnitude"],
    ["--rank", "auto"], ["--rank", "auto", "--rank-by", "energy", "--dora"],
    ["--sparsity", "0.6", "--dora"],
    ["--method", "qa-lora", "--dropout", "0.1"],
  ])
  func aRunOfAnotherKindGoesOn(options: [String]) throws {
    let place = try place()
    let all =
      ["finetune", model(for: options), "--data", "train.safetensors", "--save-every", "5"]
      + ["--max-steps", "9"] + options
    #expect(try place.run(all + ["-o", "whole"]).status == 0)
    // What a run leaves that is cut off after step 5.
    #expect(try place.shell("cp -r whole out && rm out/adapter_*").status == 0)
    let run = try place.run(all + ["-o", "out", "--resume", "--json"])
    #expect(run.status == 0, "\(run.errors)")
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("out/\(adapter)") == place.bytes("whole/\(adapter)"))
    let log = try String(decoding: place.bytes("out/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 9)
    let done = try place.run(all + ["-o", "out", "--resume"])
    #expect(done.status == 2 && done.errors.contains("out: has its adapter already: training is"))
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let changed = try place.run(
      [
        "finetune", model(for: options), "--data", "train.safetensors", "-o", "out", "--resume",
        "--max-steps", "9",
      ]
    )
    #expect(changed.status == 2 && changed.errors.contains("was made with"))
  }

  /// Whatever step a signal meets, the run goes on as if there had been none.
  @Test(
    arguments: ["INT", "KILL"],
    [
      (40, ["--save-every", "25", "--packing", "--max-length", "24", "--dropout", "0.1"]),
      (61, ["--save-every", "25", "--packing", "--max-length", "24", "--dropout", "0.1"]),
      (
        130,
        [
          "--dora", "--eval-data", "eval.safetensors", "--eval-every", "40", "--early-stop", "90",
          "--group-by-length", "--schedule", "cosine", "--warmup", "0.1", "--weight-decay", "0.1",
          "--loraplus-ratio", "4",
        ]
      ),
    ])
  func anInterruptedRunGoesOn(signal: String, run: (line: Int, options: [String])) throws {
    let place = try place()
    let options = ["--max-steps", "400"] + run.options
    let whole = try place.run(
      ["finetune", base, "--data", "train.safetensors", "-o", "whole", "--quiet"] + options)
    #expect(whole.status == 0, "\(whole.errors)")
    let command =
      "peftool finetune '\(base)' --data train.safetensors -o out --quiet "
      + options.joined(separator: " ")
    let broken = try place.shell(
      """
      exec 2> errors
      '\(Run.peftool)' \(command.dropFirst("peftool ".count)) & p=$!
      for _ in $(seq 3000); do
        [ "$(cat out/log.jsonl 2> /dev/null | wc -l)" -ge \(run.line) ] && break; sleep 0.005
      done
      kill -\(signal) $p; wait $p; echo $?
      """)
    let status = broken.text.trimmingCharacters(in: .whitespacesAndNewlines)
    // It may have been done before the signal came.
    #expect(["0", signal == "INT" ? "130" : "137"].contains(status), "\(broken.text)")
    if status != "0" {
      let run = try place.shell(command + " --resume")
      #expect(run.status == 0, "\(run.errors)")
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
      #expect(try place.bytes("out/\(name)") == place.bytes("whole/\(name)"))
    }
    func lineCount(_ folder: String) throws -> Int {
      try place.bytes("\(folder)/log.jsonl").count { $0 == UInt8(ascii: "\n") }
    }
    #expect(try lineCount("out") == lineCount("whole"))
  }

  /// Frozen rows of the factors are found again, and stay.
  @Test func aStartFromTheWeightGoesOn() throws {
    let place = try place()
    let options = ["--init", "pissa", "--save-every", "3", "--quiet"]
    for (name, steps, more) in [
      ("whole", "9", []), ("out", "9", ["--resume"]),
    ] {
      if name == "out" {
        try FileManager.default.createDirectory(
          atPath: place.path("out"), withIntermediateDirectories: false)
        try FileManager.default.copyItem(
          atPath: place.path("whole/checkpoint-6"), toPath: place.path("out/checkpoint-6"))
      }
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", name, "--max-steps", steps]
          + options + more)
      #expect(run.status == 0, "\(run.errors)")
    }
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("out/\(adapter)") == place.bytes("whole/\(adapter)"))
  }

  @Test func anAdapterIsGoneOnWith() throws {
    let place = try place()
    let first = try finetune(
      place, "-o", "a", "--dora", "--rank", "3", "--rank-pattern", "v_proj=2", "--rslora")
    #expect(first.status == 0, "\(first.errors)")
    let second = try finetune(place, "-o", "b", "--adapter", "a", "--json")
    #expect(second.status == 0, "\(second.errors)")
    let configs = try ["a", "b"].map { name in
      try #require(
        JSONSerialization.jsonObject(with: place.bytes("\(name)/adapter_config.json"))
          as? NSDictionary)
    }
    #expect(configs[0] == configs[1])
    let plan = try finetune(place, "-o", "c", "--adapter", "b", "--dry-run")
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

  /// Llama 3.2's system message has the day in it, which is another one 26 hours to the west.
  @Test func aRunGoesOnWithTheDayOnWhichItBegan() throws {
    let place = try Workplace()
    let messages = [("user", "Hi"), ("assistant", "Ho")].map { role, text in
      "{\"role\": \"\(role)\", \"content\": \"\(text)\"}"
    }
    try place.write("d.jsonl", "{\"messages\": [\(messages.joined(separator: ", "))]}\n")
    let command =
      "peftool finetune \(Repository.sample("generation/tiny-chat")) --data d.jsonl --quiet "
      + "--chat-template llama3.2 --max-steps 2 --save-every 1 -o"
    let whole = try place.shell("TZ=AAA-14 \(command) whole")
    #expect(whole.status == 0, "\(whole.errors)")
    let rest = try place.shell(
      "cp -r whole out && rm out/adapter_* && TZ=AAA12 \(command) out --resume")
    #expect(rest.status == 0, "\(rest.errors)")
    let name = "adapter_model.safetensors"
    #expect(try place.bytes("whole/\(name)") == place.bytes("out/\(name)"))
    #expect(try place.shell("TZ=AAA12 \(command) other").status == 0)
    #expect(try place.bytes("whole/\(name)") != place.bytes("other/\(name)"))
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

  @Test(arguments: [
    (["--lora-bias", "--dora"], "--lora-bias goes without --dora, as in PEFT"),
    (["--init", "loftq"], "it goes with --quantize nf4"),
    (["--dropout", "1"], "--dropout is 1.0, expected 0 to 0.99"),
    (["--rank-pattern", "q_proj"], "--rank-pattern is 'q_proj', expected an expression, = and a"),
    (["--rank-pattern", "q_proj=0"], "--rank-pattern q_proj is 0, expected 1 to 65536"),
    (["--rank", "0"], "--rank is 0, expected 1 to 65536"),
    (["--epochs", "1e300"], "--epochs is 1e+300, expected at most 1000000"),
    (["--warmup", "1e300"], "--warmup is 1e+300, expected at most 1000000"),
    (["--eval-every", "2"], "--eval-every goes with --eval-data"),
    (["--early-stop", "2"], "--early-stop goes with --eval-data"),
    (["--tinit", "2"], "--tinit goes with --method adalora"),
    (["--method", "adalora", "--tfinal", "0"], "--tfinal is 0, expected 1 to 1000000000"),
    (["--method", "adalora", "--dora"], "--dora goes without --method adalora, as in PEFT"),
    (["--method", "adalora", "--rslora"], "--rslora goes without --method adalora, whose"),
    (["--method", "adalora", "--lora-bias"], "--lora-bias goes without --method adalora, as in"),
    (["--method", "adalora", "--init", "pissa"], "--init goes without --method adalora, which"),
    (
      ["--method", "adalora", "--rank-pattern", "q_proj=4"],
      "--rank-pattern goes without --method adalora"
    ),
    (["--rank", "all"], "The value 'all' is invalid for '--rank"),
    (["--sparsity", "1"], "--sparsity is 1.0, expected more than 0 and less than 1"),
    (["--sparsity", "0.5", "--method", "galore"], "--sparsity is for adapters, and --method"),
    (["--sparsity", "0.5", "--method", "adalora"], "--sparsity goes without --method adalora"),
    (["--sparsity", "0.5", "--rank", "auto"], "--sparsity goes without --rank auto, which turns"),
    (["--sparsity", "0.5", "--init", "olora"], "--sparsity goes without --init olora: its frozen"),
    (
      ["--rank", "auto", "--max-rank", "4", "--mean-rank", "8"],
      "--mean-rank is 8.0, expected less than --max-rank, 4"
    ),
    (["--mask", "random"], "--mask goes with --method shira"),
    (["--method", "shira", "--dora"], "--dora goes without --method shira, which has no A and B"),
    (["--method", "shira", "--alpha", "4"], "--alpha goes without --method shira, which has no"),
    (["--method", "shira", "--quantize", "nf4"], "--quantize goes without --method shira"),
    (["--method", "shira", "--rank", "auto"], "--method shira goes without --rank auto"),
    (["--method", "shira", "--long"], "--long goes without --method shira, which trains linear"),
    (["--method", "shira", "--dtype", "f16"], "--dtype goes without --method shira, which trains"),
    (["--method", "shira", "--modules-to-save", "norm"], "--modules-to-save goes beside an"),
    (["--mean-rank", "4"], "--mean-rank goes with --rank auto"),
    (["--rank", "auto", "--energy", "0.5"], "--energy goes with --rank-by energy"),
    (["--rank", "auto", "--budget", "9", "--mean-rank", "2"], "say the same: give one"),
    (["--rank", "auto", "--max-rank", "0"], "--max-rank is 0, expected 1 to 65536"),
    (["--rank", "auto", "--init", "pissa"], "--init pissa goes without --rank auto: its frozen"),
    (["--rank", "auto", "--method", "adalora"], "--method adalora goes without --rank auto"),
    (["--rank", "auto", "--rank-pattern", "q_proj=4"], "--rank-pattern goes without --rank auto"),
    (["--rank", "auto", "--optimizer", "adamw_8bit"], "--optimizer adamw_8bit goes without"),
    (["--method", "full", "--rank", "4"], "--rank is for adapters, and --method full trains the"),
    (["--method", "galore", "--dora"], "--dora is for adapters, and --method galore trains the"),
    (["--method", "galore", "--quantize", "nf4"], "--quantize is for adapters, and --method"),
    (["--method", "galore", "--target-modules", "x"], "--target-modules is for adapters, and"),
    (["--method", "galore", "--modules-to-save", "x"], "--modules-to-save goes beside an adapter"),
    (["--method", "full", "--loraplus-ratio", "2"], "--loraplus-ratio goes beside an adapter"),
    (["--method", "full", "--scale", "2"], "--scale goes with --method galore"),
    (["--update-proj-gap", "2"], "--update-proj-gap goes with --method galore"),
    (["--method", "galore", "--proj-type", "up"], "--proj-type is 'up', expected one of std,"),
    (["--method", "galore", "--scale", "0"], "--scale is 0.0, expected a number above 0"),
    (["--rope-scaling", "linear"], "--rope-scaling is 'linear', expected linear:F, yarn:F or"),
    (["--group-size", "4"], "--group-size goes with --long"),
    (["--long", "--group-size", "1"], "--group-size is 1, expected 2 to 16777216"),
    (["--dtype", "f16"], "--dtype is for a model: of adapters all is F32"),
    (["--method", "qa-lora", "--dora"], "--dora goes without --method qa-lora, as in PEFT"),
    (["--method", "qa-lora", "--lora-bias"], "--lora-bias goes without --method qa-lora, as in"),
    (["--method", "qa-lora", "--init", "pissa"], "--init goes without --method qa-lora, whose A"),
    (["--method", "qa-lora", "--quantize", "nf4"], "--quantize goes without --method qa-lora"),
    (["--method", "qa-lora", "--adapter", "a"], "--adapter goes without --method qa-lora, which"),
    (["--method", "lora-fa", "--lora-bias"], "--lora-bias goes without --method lora-fa, as in"),
    (["--method", "lora-fa", "--dora"], "--dora goes without --method lora-fa, as in PEFT"),
    (["--method", "lora-fa", "--adapter", "a"], "--adapter goes without --method lora-fa, which"),
    (
      ["--method", "lora-fa", "--loraplus-ratio", "16"],
      "--loraplus-ratio goes without --method lora-fa, which has"
    ),
  ])
  func wrongUsageIsTold(options: [String], message: String) throws {
    let run = try place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out"] + options)
    #expect(run.status == 64 && run.errors.contains(message), "\(run.errors)")
  }

  @Test(arguments: [
    (["--init-r", "4"], "--init-r is 4, expected --rank at least, 8"),
    (["--init-r", "60000"], "ranks, and --init-r asks for 60000"),
    (["--max-steps", "1"], "no step of 1 is left to prune in"),
    (["--tinit", "2", "--tfinal", "2", "--max-steps", "4"], "--tinit is 2 and --tfinal 2, exp"),
  ])
  func aBudgetThatCannotBeMetIsTold(options: [String], message: String) throws {
    let run = try place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--method", "adalora"]
        + options)
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
  }

  @Test func theStartIsKeptWhereNothingIsBetter() throws {
    let place = try place()
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
    let place = try place()
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

  @Test func aRunThatHasStoppedEarlyStaysSo() throws {
    let place = try place()
    let options = [
      "--eval-data", "eval.safetensors", "--eval-every", "1", "--max-steps", "40",
      "--learning-rate", "1", "--early-stop", "2", "-o", "out", "--json",
    ]
    let first = try place.run(["finetune", base, "--data", "train.safetensors"] + options)
    #expect(first.status == 0, "\(first.errors)")
    let log = try place.bytes("out/log.jsonl")
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let again = try place.run(
      ["finetune", base, "--data", "train.safetensors", "--resume"] + options)
    #expect(again.status == 0, "\(again.errors)")
    #expect(try place.bytes("out/log.jsonl") == log)
  }

  @Test func whatHasNoCheckpointIsBegunAgain() throws {
    let place = try place()
    try place.write("out/log.jsonl", "{\"step\": 1, \"loss\": 2}\n")
    let run = try finetune(place, "-o", "out", "--max-steps", "2", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let log = try String(decoding: place.bytes("out/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 2)
  }

  @Test func aCheckpointOfAnotherBaseIsRefused() throws {
    let place = try place()
    let options = ["--data", "train.safetensors", "-o", "out", "--max-steps", "4"]
    #expect(
      try place.run(["finetune", base, "--save-every", "2", "--quiet"] + options).status == 0)
    let other = try place.run("merge", base, Repository.sample("adapters/lora"), "-o", "other")
    #expect(other.status == 0, "\(other.errors)")
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let run = try place.run(["finetune", "other", "--resume"] + options)
    #expect(run.status == 2 && run.errors.contains("was made with model "), "\(run.errors)")
  }

  @Test func aCheckpointOfOtherSettingsIsRefused() throws {
    let place = try place()
    #expect(try finetune(place, "-o", "out", "--max-steps", "4", "--save-every", "2").status == 0)
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let run = try finetune(
      place, "-o", "out", "--max-steps", "4", "--resume", "--learning-rate", "1")
    #expect(run.status == 2)
    #expect(
      run.errors.contains("out/checkpoint-2: was made with learning_rate 0.0002, and now it is 1"))
    for (option, message) in [
      (["--rank", "3"], "was made with rank 8, and now it is 3"),
      (["--eval-data", "eval.safetensors"], "was made with eval_data null, and now it is \""),
    ] {
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", "out", "--max-steps", "4"]
          + ["--resume"] + option)
      #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
    }
    let again = try finetune(place, "-o", "out")
    #expect(again.status == 2)
    #expect(again.errors.contains("has the checkpoint of step 2: --resume goes on from there"))
  }

  @Test func theBestEvaluationIsKept() throws {
    let place = try place()
    let run = try finetune(
      place, "--eval-data", "eval.safetensors", "--eval-every", "2", "--max-steps", "40",
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
    let place = try place()
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
    let same = try finetune(
      place, "--max-steps", "3", "--dora", "--seed", "5", "--rank", "3", "-o", "b",
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
    let place = try place()
    let run = try finetune(place, "-o", "out", "--dry-run")
    #expect(run.status == 0 && run.text.contains("10 examples, 120 tokens"))
    #expect(run.text.contains("\ntime     about "))
    #expect(try place.names == ["eval.safetensors", "train.safetensors"])
  }

  @Test func aPageHasTheCurves() throws {
    let place = try place()
    let run = try finetune(
      place, "--eval-data", "eval.safetensors", "-o", "out", "--report", "out/report.html")
    #expect(run.status == 0, "\(run.errors)")
    let page = try String(decoding: place.bytes("out/report.html"), as: UTF8.self)
    #expect(page.contains("<polyline") && page.contains("learning_rate"))
  }

  @Test(arguments: [
    (["--data", "none.safetensors"], "none.safetensors: cannot open: No such file"),
    (["--data", "text.jsonl"], "llama-f32/tokenizer.json: is not there: text needs the model's"),
    (["--target-modules", "q_prj"], "has no linear layer 'q_prj' (--target-modules)"),
    (["--rank-pattern", "q_prj=3"], "the pattern 'q_prj' matches none of the layers with"),
    (["--adapter", "none"], "none: "),
    (["--init", "pissa", "--rank", "41"], "has 40 ranks, of which --init pissa takes 41"),
    (["--target-modules", "(x"], "peftool: --target-modules: '(x' is no regular expression"),
    (["--modules-to-save", "embed"], "llama-f32: has no module 'embed' (--modules-to-save)"),
    (["--trainable-tokens", "5,9999"], "llama-f32: has no token 9999 (--trainable-tokens)"),
    (["--trainable-tokens", "<a>"], "llama-f32/tokenizer.json: "),
    (
      ["--modules-to-save", "q_proj", "--quantize", "nf4"],
      "q_proj.weight': is quantized, and codes cannot be trained whole"
    ),
    (
      ["--init", "loftq", "--quantize", "nf4", "--target-modules", "lm_head"],
      "tensor 'lm_head.weight': is not quantized here, which --init loftq makes up for"
    ),
    (["--max-steps", "1", "--learning-rate", "1e38"], "after step 1; a lower --learning-rate"),
    (["--max-length", "5"], "has 12 tokens, expected at most 5 (--max-length)"),
    (["--max-length", "65"], "--max-length is 65, the model has 64 positions"),
    (["--learning-rate", "1e30", "--epochs", "5"], "a lower --learning-rate may help"),
    (["--resume"], "out: has no checkpoint to go on from"),
    (["-o", "no/out"], "no: is no folder, in which -o is to make one"),
    (["-o", "both", "--report", "both"], "both: is the output itself: --report names a page"),
    (["--report", "train.safetensors"], "train.safetensors: exists already; name another file"),
    (["--adapter", "checkpoints"], "checkpoints: has a checkpoint of training and no adapter"),
  ])
  func whatCannotBeDoneIsOneLine(options: [String], message: String) throws {
    let place = try place()
    try place.write("text.jsonl", "{\"text\": \"a\"}\n")
    let checkpoint = "cp -r '\(Repository.sample("adapters/lora"))' checkpoints/checkpoint-3"
    #expect(try place.shell("mkdir checkpoints && \(checkpoint)").status == 0)
    var arguments = ["finetune", base, "-o", "out", "--quiet"] + options
    if !options.contains("--data") { arguments += ["--data", "train.safetensors"] }
    let run = try place.run(arguments)
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: ") && run.errors.contains(message), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
    #expect(!FileManager.default.fileExists(atPath: place.path("out/adapter_config.json")))
  }
}
