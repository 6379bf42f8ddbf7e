import ArgumentParser
import Files
import Fixtures
import Foundation
import Models
import Tensors
import Testing
import Training

@testable import Commands

private func sample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/\(name)").path
}

/// LLaMA-7B, and a model with few heads of keys whose two embeddings are one table.
private let sevenBillion = """
  {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
   "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
   "rms_norm_eps": 1e-6, "torch_dtype": "float16"}
  """
private let small = """
  {"model_type": "qwen3", "vocab_size": 5000, "hidden_size": 256, "intermediate_size": 640,
   "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
   "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
   "dtype": "bfloat16"}
  """

private func plan(_ config: String, _ options: [String]) throws -> TrainingPlan {
  let scratch = try Scratch()
  try scratch.write("config.json", config)
  return try PlanCommand.parse([scratch.path, "--threads", "2"] + options).plan()
}

private func plan(_ config: String, _ options: String...) throws -> TrainingPlan {
  try plan(config, ["--no-measure"] + options)
}

extension TrainingPlan {
  fileprivate func run(_ name: String) throws -> PlannedRun {
    try #require(runs.first { $0.method.name == name })
  }
}

@Suite struct TrainingPlanTests {
  @Test(arguments: [sevenBillion, small]) func thePartsMakeUpThePeak(config: String) throws {
    for options in [[], ["--gpu"]] {
      let plan = try CommandsTests.plan(config, ["--no-measure"] + options)
      // Of SHiRA nothing is published of a GPU.
      #expect(plan.runs.count == PlannedMethod.all.count - options.count)
      for run in plan.runs {
        let memory = run.memory
        let parts = [
          memory.weights, memory.activations, memory.gradients, memory.optimizer, memory.rest,
        ]
        #expect(parts.allSatisfy { $0 >= 0 } && parts.reduce(0, +) == memory.total)
      }
    }
  }

  /// More rows, longer texts and larger ranks take more, each part at least as much.
  @Test(
    arguments: [sevenBillion, small],
    [("--batch-size", "3", "5"), ("--max-length", "256", "300"), ("--rank", "8", "9")])
  func moreTakesMore(config: String, option: (name: String, less: String, more: String)) throws {
    for device in [["--flops", "1e11"], ["--gpu"]] {
      let others = option.name == "--max-length" ? [] : ["--max-length", "200"]
      func values(_ value: String) throws -> [PlannedRun] {
        try plan(
          config, device + others + ["--checkpoint-activations", "off", option.name, value]
        ).runs
      }
      for (one, other) in zip(try values(option.less), try values(option.more)) {
        #expect(other.memory.weights >= one.memory.weights)
        #expect(other.memory.activations >= one.memory.activations)
        #expect(other.memory.gradients >= one.memory.gradients)
        #expect(other.memory.optimizer >= one.memory.optimizer)
        let isGrown = option.name != "--rank" || !one.method.trainsModel
        #expect((other.memory.total > one.memory.total) == isGrown, "\(one.method.name)")
        if let step = one.seconds.step, let more = other.seconds.step, isGrown {
          #expect(more > step)
        }
      }
    }
  }

  private static let flags = [
    "LoRA": [], "QLoRA": ["--quantize", "nf4"], "LoRA-FA": ["--method", "lora-fa"],
    "DoRA": ["--dora"], "QDoRA": ["--dora", "--quantize", "nf4"],
    "AdaLoRA": ["--method", "adalora", "--max-steps", "20"], "LongLoRA": ["--long"],
    "LoRA, ranks found": ["--mean-rank", "4"], "SHiRA": ["--method", "shira"],
    "QA-LoRA": ["--method", "qa-lora"],
    "full": ["--method", "full"], "full 8-bit": ["--method", "full", "--optimizer", "adamw_8bit"],
    "GaLore": ["--method", "galore"],
    "GaLore 8-bit": ["--method", "galore", "--optimizer", "adamw_8bit"],
  ]

  private static let models = [
    "generation/tiny-chat", "bases/llama-f32", "training/bases/qwen3-f32", "quantized/llama-int8",
    "int4/llama-awq",
  ]

  /// What `finetune --dry-run` says of a model that has been read.
  @Test(arguments: models, PlannedMethod.all.map(\.name))
  func theMemoryIsThatOfADryRun(model: String, name: String) throws {
    let scratch = try Scratch()
    let tokens = (0..<60).map { Int32($0 % 50) }
    let data = try scratch.write(
      "tokens.safetensors", [TestTensor("input_ids", .i32, tokens, shape: [3, 20])])
    for checkpointing in ["on", "off"] {
      let shared = [
        sample(model), "--threads", "2", "--batch-size", "3", "--rank", "4", "--max-length", "20",
        "--checkpoint-activations", checkpointing,
      ]
      let plan = try PlanCommand.parse(shared + ["--galore-rank", "4", "--no-measure"]).plan()
      guard let run = plan.runs.first(where: { $0.method.name == name }) else {
        // Of codes LoRA is QLoRA.
        #expect(
          plan.leftOut.contains { $0.method.name == name } || plan.base.form != .numbers)
        continue
      }
      // A base in numbers would have to be coded first.
      if name == "QA-LoRA", plan.base.form == .numbers { continue }
      var flags = try #require(Self.flags[name])
      if plan.base.form != .numbers { flags.removeAll { ["--quantize", "nf4"].contains($0) } }
      // There is no rank of `full`.
      var options = shared
      if let place = shared.firstIndex(of: "--rank") {
        switch run.method.settings(plan.settings.ranks) {
        case .full: options.removeSubrange(place...place + 1)
        case .rankSearch: options[place + 1] = "auto"
        default: break
        }
      }
      let command = try FinetuneCommand.parse(
        options + ["--data", data, "-o", scratch.path + "/out"] + flags)
      let dry = try FinetuneJob(command, freeByteCount: nil).plan
      #expect(run.memory.activations == dry.memory.pass)
      #expect(
        run.memory.weights + run.memory.gradients + run.memory.optimizer
          == dry.memory.base + dry.memory.trained)
      #expect(run.parameterCount == dry.parameterCount)
      if run.method.trainsEntries {
        // All linear layers but the head, of which no tensor is trained whole.
        let layers = plan.base.configuration.linearLayers.count - 1
        #expect(dry.modules == layers && dry.trainedWeightCount == 0)
      }
    }
  }

  /// The sums of LLaMA-7B by hand.
  @Test func sevenBillionByHand() throws {
    let plan = try CommandsTests.plan(
      sevenBillion, "--max-length", "512", "--batch-size", "1", "--memory", "1TB")
    let layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    let tables = 2 * 32000 * 4096
    let vectors = 65 * 4096
    let sides = 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    let lora = try plan.run("LoRA")
    #expect(lora.parameterCount == 8 * sides)
    #expect(lora.memory.gradients == 32 * sides && lora.memory.optimizer == 64 * sides)
    // A, B and s·A, and both in panels of 16 of which 8 are used.
    let inputs = 32 * (6 * 4096 + 11008)
    let panels = 16 * sides
    #expect(
      lora.memory.weights == 2 * (layers + tables) + 4 * (8 * sides + 8 * inputs + panels))
    let full = try plan.run("full")
    #expect(full.parameterCount == layers + tables + vectors)
    #expect(full.memory.weights == 4 * full.parameterCount)
    #expect(full.memory.gradients == 4 * full.parameterCount)
    #expect(full.memory.optimizer == 8 * full.parameterCount)
    #expect(full.outputByteCount == 2 * full.parameterCount)
    let galore = try plan.run("GaLore")
    // One layer's gradients, and those of what is not projected.
    #expect(galore.memory.gradients == 4 * (layers / 32 + tables + vectors))
    let (long, short) = (32 * (4 * 4096 + 3 * 11008), 32 * 7 * 4096)
    // The vectors, R and the step, and two moments.
    #expect(
      galore.memory.optimizer
        == 4 * 128 * (short + 2 * long) + 8 * (128 * long + tables + vectors)
        + 2 * 4 * 192 * 256)
    let quantized = try plan.run("QLoRA")
    #expect(
      lora.memory.weights - quantized.memory.weights == 2 * layers - (layers / 2 + layers / 16))
  }

  /// Published: 14 GB of weights, 42 GB of gradients and moments (GaLore, section 1); 8-bit GaLore of
  /// rank 1024 in 24 GB (its abstract); 4.127 bits of NF4 (QLoRA, section 3).
  @Test func sevenBillionOnAGPU() throws {
    let plan = try CommandsTests.plan(
      sevenBillion, "--gpu", "--max-length", "256", "--batch-size", "1", "--galore-rank", "1024",
      "--memory", "24GB", "--checkpoint-activations", "off", "--aim", "model")
    let full = try plan.run("full").memory
    #expect(abs(full.weights - 14_000_000_000) < 700_000_000)
    #expect(abs(full.gradients + full.optimizer - 42_000_000_000) < 2_000_000_000)
    #expect(try plan.run("full").fits == false)
    #expect(try plan.run("GaLore 8-bit").fits == true)
    #expect(try plan.run("GaLore").fits == false)
    #expect(plan.recommended.map { plan.runs[$0].method.name } == "GaLore 8-bit")
    let layers = 32.0 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    let difference = try plan.run("LoRA").memory.weights - plan.run("QLoRA").memory.weights
    #expect(abs(Double(difference) - layers * (16 - 4.127) / 8) < 2)
    // A's input is not kept.
    #expect(
      try plan.run("LoRA-FA").memory.activations < plan.run("LoRA").memory.activations)
    #expect(plan.commands.isEmpty)
  }

  @Test func theFirstThatFitsIsRecommended() throws {
    func name(_ memory: Int, _ options: String...) throws -> String? {
      let plan = try CommandsTests.plan(
        small,
        ["--no-measure", "--max-length", "256", "--memory", "\(Double(memory) / 1000)KB"] + options)
      return plan.recommended.map {
        plan.runs[$0].method.name + (plan.runs[$0].keeping == .inputs ? ", twice" : "")
      }
    }
    let all = try plan(small, "--max-length", "256", "--memory", "1TB")
    let (lora, quantized) = (try all.run("LoRA").memory, try all.run("QLoRA").memory)
    #expect(try name(2 * lora.total) == "LoRA")
    // Of what is free for activations a tenth is left, as `finetune` has it.
    let roomy = lora.total - lora.activations + lora.activations / 9 * 10 + 100_000
    #expect(try name(roomy) == "LoRA")
    #expect(
      try name(quantized.total - quantized.activations + quantized.activations / 9 * 10 + 100_000)
        == "QLoRA")
    #expect(try name(quantized.total - quantized.activations / 2) == "LoRA, twice")
    #expect(try name(25_000_000) == nil)
    #expect(try name(2 * lora.total, "--aim", "quality") == "DoRA")
    #expect(try name(1 << 40, "--aim", "long") == "LongLoRA")
    #expect(try name(1 << 40, "--aim", "ranks") == "AdaLoRA")
    #expect(try name(1 << 40, "--aim", "model") == "full")
    let galore = try plan(sevenBillion, "--max-length", "256", "--memory", "1TB")
      .run("GaLore 8-bit").memory
    let large = try plan(
      sevenBillion, "--max-length", "256", "--aim", "model", "--memory",
      "\(Double(galore.total + galore.activations / 8) / 1000)KB")
    #expect(large.recommended.map { large.runs[$0].method.name } == "GaLore 8-bit")
  }

  /// The largest batch fits, and one more does not.
  @Test func theLargestBatchIsTheLargest() throws {
    func run(_ rows: Int) throws -> PlannedRun {
      try plan(
        small, "--max-length", "300", "--memory", "900MB", "--checkpoint-activations", "on",
        "--batch-size", "\(rows)"
      ).run("DoRA")
    }
    let rows = try #require(try run(1).largestBatch)
    #expect(try run(rows).memory.total <= 900_000_000)
    #expect(try run(rows + 1).memory.total > 900_000_000)
  }

  /// It does not depend on the batch that is asked for: what is too large to be kept is computed twice.
  @Test func theLargestBatchIsThatWhichIsComputedTwice() throws {
    func run(_ rows: Int, _ checkpointing: String) throws -> PlannedRun {
      try plan(
        small, "--max-length", "300", "--memory", "900MB", "--checkpoint-activations",
        checkpointing, "--batch-size", "\(rows)"
      ).run("LoRA")
    }
    let kept = try run(1, "auto")
    #expect(kept.keeping == .everything)
    let rows = try #require(kept.largestBatch)
    #expect(try rows == run(1, "on").largestBatch)
    #expect(try rows > #require(run(1, "off").largestBatch))
    let largest = try run(rows, "auto")
    #expect(largest.keeping == .inputs && largest.fits == true && largest.largestBatch == rows)
    #expect(try run(rows + 1, "auto").fits == false)
  }

  /// On a GPU logits take memory of each row, too.
  @Test(arguments: ["LoRA", "QLoRA", "AdaLoRA", "GaLore 8-bit"])
  func whatFitsOnAGPUIsUpToTheLargestBatch(method: String) throws {
    var found: [(isLarge: Bool, keeping: LossPass.Keeping)] = []
    for rows in 1...24 {
      let run = try plan(
        small, "--gpu", "--max-length", "64", "--memory", "100MB", "--batch-size", "\(rows)"
      ).run(method)
      let largest = try #require(run.largestBatch)
      #expect(run.fits == (rows <= largest))
      found.append((rows > largest, run.keeping))
    }
    #expect(found.contains { $0 == (false, .everything) })
    #expect(found.contains { $0 == (false, .inputs) } && found.contains { $0.isLarge })
  }

  @Test func codesAreTrainedBesideAlone() throws {
    let config = small.replacingOccurrences(
      of: #""dtype": "bfloat16""#,
      with: #""quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}"#)
    let plain = try plan(small, "--memory", "1TB").run("QLoRA")
    let plan = try CommandsTests.plan(config, "--memory", "1TB")
    #expect(
      plan.runs.map(\.method.name) == [
        "QLoRA", "LoRA-FA", "QDoRA", "AdaLoRA", "LoRA, ranks found", "LongLoRA",
      ])
    #expect(try plan.run("QLoRA").memory == plain.memory)
    #expect(plan.commands.count == 2)
    let names = [true, false].map { pooled in
      plan.leftOut.filter { $0.method.isPooled == pooled }.map(\.method.name)
    }
    #expect(names == [["QA-LoRA"], ["SHiRA", "full", "full 8-bit", "GaLore", "GaLore 8-bit"]])
    let text = plan.text(width: 400)
    #expect(text.contains("QA-LoRA: the model is quantized, but not to INT4 by groups"))
    #expect(text.contains("GaLore, GaLore 8-bit: the model is quantized, and codes cannot be"))
    for (aim, reason) in [("int4", "not to INT4 by groups"), ("model", "codes cannot be trained")] {
      let error = #expect(throws: PeftoolError.self) {
        try CommandsTests.plan(config, "--aim", aim)
      }
      #expect(error?.reason.contains(reason) == true)
      #expect(error?.reason.hasSuffix("(--aim \(aim))") == true)
    }
  }

  /// `small` in INT4, as `config.json` has that.
  private func coded(_ settings: String, _ key: String = "quantization_config") -> String {
    small.replacingOccurrences(
      of: #""dtype""#, with: #""\#(key)": {"bits": 4, \#(settings)}, "dtype""#)
  }

  /// Groups that `finetune` refuses are no row.
  @Test(arguments: [
    (#""quant_method": "gptq", "group_size": -1"#, "several sizes"),
    (#""quant_method": "gptq", "group_size": 32, "desc_act": true"#, "desc_act"),
    (#""quant_method": "awq", "group_size": 128"#, nil),
    (#""quant_method": "awq", "group_size": 96"#, "256 inputs, which groups of 96 do not divide"),
    (#""group_size": 32, "model.layers.3.mlp.up_proj": {"bits": 4, "group_size": 64}"#, "several"),
  ]) func qaLoRAIsPlannedWhereItCanBeTrained(settings: String, reason: String?) throws {
    let plan = try CommandsTests.plan(coded(settings), "--memory", "1TB")
    #expect(plan.runs.contains { $0.method.isPooled } == (reason == nil))
    let told = plan.leftOut.first { $0.method.isPooled }?.reason
    #expect(reason.map { told?.contains($0) == true } ?? (told == nil), "\(told ?? "")")
    guard let reason else { return }
    let error = #expect(throws: PeftoolError.self) {
      try CommandsTests.plan(coded(settings), "--aim", "int4")
    }
    #expect(error?.reason.contains(reason) == true)
  }

  @Test func codesOfNumbersHaveToDivideInputs() throws {
    let config = small.replacingOccurrences(of: "640", with: "648")
    let plan = try CommandsTests.plan(config, "--memory", "1TB")
    #expect(plan.leftOut.map(\.method.name) == ["QA-LoRA"])
    #expect(plan.leftOut.first?.reason.contains("648 inputs") == true)
  }

  /// Into zero points `merge` adds nothing before offsets are made of them.
  @Test func whatCannotBeMergedIsNotToldTo() throws {
    let options = ["--no-measure", "--memory", "1TB", "--aim", "int4"]
    for (settings, key, isMerged) in [
      (#""group_size": 32"#, "quantization", true),
      (#""quant_method": "gptq", "group_size": 32"#, "quantization_config", false),
      (#""quant_method": "awq", "group_size": 32"#, "quantization_config", false),
    ] {
      let plan = try CommandsTests.plan(coded(settings, key), options)
      #expect(plan.commands.count == (isMerged ? 2 : 3))
      let usage = try plan.run("QA-LoRA").usage
      #expect(usage.contains("nothing once merged") == isMerged)
      #expect(usage.contains("--layout mlx") != isMerged)
      // LoRA is merged in 16 bits.
      #expect(try plan.run("QLoRA").usage.contains("nothing once merged"))
    }
  }

  /// What is written and used has the ranks that are left, with E of AdaLoRA a number a rank.
  @Test func whatIsWrittenHasTheRanksThatAreLeft() throws {
    let plan = try CommandsTests.plan(small, "--memory", "1TB")
    let plain = try plan.run("LoRA")
    let (found, adaptive) = (try plan.run("LoRA, ranks found"), try plan.run("AdaLoRA"))
    #expect(found.parameterCount == 2 * plain.parameterCount)
    #expect(found.outputByteCount == plain.outputByteCount)
    #expect(adaptive.outputByteCount == plain.outputByteCount + 4 * 8 * 7 * 6)
    #expect(found.addedShare == plain.addedShare && adaptive.addedShare == plain.addedShare)
  }

  /// Of codes the bits that were published count, whatever is trained beside them.
  @Test func codesOnAGPUTakeTheirBits() throws {
    let layers = 6 * (2 * 256 * 512 + 2 * 256 * 128 + 3 * 256 * 640)
    let plain = try plan(small, "--gpu")
    for (config, bits) in [
      (coded(#""load_in_4bit": true, "quant_method": "bitsandbytes""#), 4.127),
      (coded(#""load_in_8bit": true, "quant_method": "bitsandbytes""#), 8),
      (coded(#""quant_method": "awq", "group_size": 64"#), 4.5),
      (coded(#""quant_method": "gptq", "group_size": -1"#), 4),
    ] {
      let plan = try CommandsTests.plan(config, "--gpu")
      for (name, other) in [("QLoRA", "LoRA"), ("AdaLoRA", "AdaLoRA"), ("LongLoRA", "LongLoRA")] {
        let less = try plain.run(other).memory.weights - plan.run(name).memory.weights
        #expect(abs(Double(less) - Double(layers) * (16 - bits) / 8) < 2, "\(name), \(bits)")
      }
    }
    #expect(plain.leftOut.map(\.method.name) == ["SHiRA"])
  }

  /// Half as much again as the rank would be more than k_proj has, 128.
  @Test func adaLoRABeginsWithNoMoreThanLayersHave() throws {
    for (rank, option) in [(80, false), (100, true)] {
      let plan = try CommandsTests.plan(
        small, "--memory", "1TB", "--aim", "ranks", "--rank", "\(rank)")
      #expect(plan.commands.first?.contains(" --init-r 128 ") == option)
    }
  }

  @Test func aSlidingWindowHasNoLongLoRA() throws {
    let config = small.replacingOccurrences(
      of: #""dtype""#, with: #""sliding_window": 128, "dtype""#
    ).replacingOccurrences(of: "qwen3", with: "mistral")
    let plan = try CommandsTests.plan(config, "--memory", "1TB")
    #expect(!plan.runs.contains { $0.method.isLong })
    let error = #expect(throws: PeftoolError.self) {
      try CommandsTests.plan(config, "--aim", "long")
    }
    #expect(error?.reason.contains("sliding window of 128 tokens") == true)
  }
}
