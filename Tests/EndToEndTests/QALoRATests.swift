import Foundation
import Testing

private let base = Repository.sample("training/bases/llama3-int4")
private let adapter = Repository.sample("training/qa-lora-llama3/end")
private let pairs = Repository.sample("generation/pairs.jsonl")

/// QA-LoRA from its training to its use; the numbers are those of PEFT (`PEFTRunTests`).
@Suite struct QALoRATests {
  /// A model in INT4 with its tokenizer, `codes`, and an adapter that has been trained on it.
  private func place(layout: String = "mlx") throws -> Workplace {
    let place = try Workplace()
    let quantization = try place.run(
      "quantize", Repository.sample("int4/llama"), "-o", "codes", "--type", "int4",
      "--group-size", "32", "--layout", layout)
    #expect(quantization.status == 0, "\(quantization.errors)")
    let training = try place.run(
      "finetune", "codes", "--data", pairs, "-o", "adapter", "--method", "qa-lora", "--epochs", "4",
      "--learning-rate", "0.003", "--quiet")
    #expect(training.status == 0, "\(training.errors)")
    return place
  }

  /// The loss that `evaluate` finds.
  private func loss(_ place: borrowing Workplace, _ arguments: String...) throws -> Double {
    let run = try place.run(
      ["evaluate"] + arguments + ["--data", Repository.sample("generation/story.txt"), "--json"])
    #expect(run.status == 0, "\(run.errors)")
    let report = try #require(JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    return try #require(report["loss"] as? Double)
  }

  @Test(arguments: ["mlx", "gptq_v2"]) func anAdapterIsUsedBesideItsBase(layout: String) throws {
    let place = try place(layout: layout)
    let before = try loss(place, "codes")
    let after = try loss(place, "codes", "--adapter", "adapter")
    #expect(abs(after - before) > 1e-3)
    // In 16 or 32 bits the merge is that of a LoRA whose A has each column for all of its group.
    let merge = try place.run("merge", "codes", "adapter", "-o", "dense", "--dtype", "F32")
    #expect(merge.status == 0, "\(merge.errors)")
    #expect(try abs(loss(place, "dense") - after) < 1e-5 * after)
    // Several are one sum.
    let twice = try loss(
      place, "codes", "--adapter", "adapter", "--adapter", "adapter", "--weights", "0.25,0.75")
    #expect(abs(twice - after) < 1e-5 * after)
    let text = try place.run(
      "generate", "codes", "Two wee", "--adapter", "adapter", "--max-tokens", "8")
    let same = try place.run("generate", "dense", "Two wee", "--max-tokens", "8")
    #expect(text.status == 0 && text.text == same.text)
  }

  /// What a merge says of itself.
  private func merge(
    _ place: borrowing Workplace, _ arguments: String...
  ) throws -> [String: Any] {
    let run = try place.run(["merge", "codes", "adapter", "--json"] + arguments)
    #expect(run.status == 0, "\(run.errors)")
    return try #require(JSONSerialization.jsonObject(with: run.output) as? [String: Any])
  }

  /// The codes stay, and offsets in F32 lose nothing: what the model gives is what the adapter gave.
  @Test func aMergeIntoOffsetsIsExact() throws {
    let place = try place()
    let report = try merge(place, "-o", "merged")
    #expect(report["quantization"] as? String == "offsets")
    #expect(try #require(report["roundingLoss"] as? Double) < 1e-5)
    #expect(report["requantizationLoss"] is NSNull)
    #expect(try place.shell("cmp merged/config.json codes/config.json").status == 0)
    #expect(try place.run("verify", "merged").status == 0)
    let difference = try place.run("diff", "merged", "codes", "--json").text
    #expect(!difference.contains("proj.weight"))
    let after = try loss(place, "codes", "--adapter", "adapter")
    #expect(try abs(loss(place, "merged") - after) < 1e-5 * after)
    // With a weight, by --quantize, and with other threads; a weight of 0 is the base.
    let same = try place.run(
      "merge", "codes", "adapter", "-o", "same", "--quantize", "int4", "--threads", "3")
    #expect(same.status == 0 && same.unfoldedText.contains("added to the offsets of int4, in F32"))
    #expect(try place.shell("cmp merged/model.safetensors same/model.safetensors").status == 0)
    _ = try merge(place, "-o", "none", "--weights", "0")
    #expect(try loss(place, "none") == loss(place, "codes"))
    let half = try place.run(
      "merge", "codes", "adapter", "adapter", "--weights", "0.25,0.75", "-o", "sum")
    #expect(half.status == 0, "\(half.errors)")
    #expect(try abs(loss(place, "sum") - after) < 1e-5 * after)
  }

  /// Offsets in F16 keep what their last place holds, and say what that is.
  @Test func narrowOffsetsSayWhatTheyLose() throws {
    let place = try place()
    let report = try merge(place, "-o", "merged", "--offset-dtype", "F16")
    let lost = try #require(report["roundingLoss"] as? Double)
    #expect(lost > 1e-5 && lost < 0.2)
    let size = try place.shell("stat -c %s codes/model.safetensors merged/model.safetensors").text
    let sizes = size.split(separator: "\n").compactMap { Int($0) }
    #expect(abs(sizes[0] - sizes[1]) < 100)
    let wider = try place.run("merge", "codes", "adapter", "-o", "x", "--offset-dtype", "BF16")
    #expect(wider.status == 2 && wider.errors.contains("is F16, which BF16 does not hold"))
  }

  /// Integer zero points would lose all of it, which is told; and a way there is with a loss.
  @Test(arguments: ["gptq", "awq"]) func zeroPointsRefuseAMerge(layout: String) throws {
    let place = try place(layout: layout)
    let refused = try place.run("merge", "codes", "adapter", "-o", "merged")
    let share = try #require(
      refused.errors.firstMatch(of: #/would lose ([0-9.]+) % of the adapter/#)
    ).1
    #expect(refused.status == 2 && Double(share) ?? 0 > 50)
    #expect(!FileManager.default.fileExists(atPath: place.path("merged")))
    let report = try merge(place, "-o", "merged", "--requantize")
    #expect(report["quantization"] as? String == "requantized")
    let lost = try #require(report["requantizationLoss"] as? Double)
    #expect(lost > 0.1 && lost < 100)
    #expect(try place.run("verify", "merged").status == 0)
    // Real offsets of the same codes take it exactly, and HQQ's zero points are made of them.
    #expect(try place.run("convert", "codes", "-o", "offsets", "--layout", "mlx").status == 0)
    let after = try loss(place, "codes", "--adapter", "adapter")
    let exact = try place.run("merge", "offsets", "adapter", "-o", "exact")
    #expect(exact.status == 0, "\(exact.errors)")
    #expect(try place.run("convert", "exact", "-o", "hqq", "--layout", "hqq").status == 0)
    for model in ["exact", "hqq"] { #expect(try abs(loss(place, model) - after) < 1e-5 * after) }
    let none = try place.run("merge", "hqq", "adapter", "-o", "x")
    #expect(none.status == 2 && none.errors.contains("is in int4 as hqq, whose zero points"))
  }

  /// So an ordinary LoRA is merged, too.
  @Test func requantizingTellsItsLoss() throws {
    let place = try Workplace()
    let model = Repository.sample("int4/llama-mlx")
    let lora = Repository.sample("int4/lora")
    let run = try place.run("merge", model, lora, "-o", "merged", "--requantize")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.unfoldedText.contains(#/lost +[0-9.e-]+ % of the change, by quantizing it again/#))
    let same = try place.run("merge", model, lora, "-o", "same", "--quantize", "int4")
    #expect(same.status == 0)
    #expect(try place.shell("cmp merged/model.safetensors same/model.safetensors").status == 0)
  }

  @Test(arguments: [
    (["int4/llama-mlx", "int4/lora", "--offset-dtype", "F16"], "is for adapters of QA-LoRA"),
    (["int4/llama", "int4/lora", "--offset-dtype", "F16"], "is not quantized, and --offset"),
    (["int4/llama", "int4/lora", "--requantize"], "is not quantized, and --requantize is for"),
    (
      ["training/bases/llama3-int4", "training/qa-lora-llama3/end", "--rounding", "peft"],
      "--rounding peft is for sums in the base's dtype"
    ),
  ])
  func aMergeOfAnotherKindIsRefused(arguments: [String], message: String) throws {
    let place = try Workplace()
    let run = try place.run(
      ["merge", "-o", "out"] + arguments.map { $0.contains("/") ? Repository.sample($0) : $0 })
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
  }

  @Test func itsFactsAreTold() throws {
    let place = try Workplace()
    let text = try place.run("inspect", adapter).text
    #expect(text.contains("QA-LoRA") && text.contains("of 8 inputs"))
    // alpha / rank is 2, and of 32 inputs there are 4 groups, of 72 there are 9.
    #expect(text.contains("8 (12 modules), 18 (2 modules) (alpha / rank · groups)"))
    #expect(try place.run("verify", adapter).status == 0)
    #expect(try place.run("verify", adapter, "--base", base).status == 0)
    let other = try place.run(
      "verify", adapter, "--base", Repository.sample("training/bases/qwen3-f32"))
    #expect(other.status == 1 && other.text.contains("expected one for groups of 8 inputs"))
  }

  /// What is trained goes on from what there is, and is saved as it came.
  @Test func trainingGoesOnFromAnAdapter() throws {
    let place = try place()
    let run = try place.run(
      "finetune", "codes", "--data", pairs, "-o", "out", "--adapter", "adapter", "--max-steps", "3",
      "--learning-rate", "0.001")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.text.contains("QA-LoRA of rank 8 on 7 layers"))
    let config = try place.shell("grep -h qalora out/adapter_config.json").text
    #expect(config.contains("\"use_qalora\": true") && config.contains("group_size\": 32"))
    #expect(try place.run("verify", "out", "--base", "codes").status == 0)
    let (old, new) = try (
      loss(place, "codes", "--adapter", "adapter"), loss(place, "codes", "--adapter", "out")
    )
    #expect(old != new)
  }

  @Test(arguments: ["awq", "gptq"]) func zeroPointsAreToldOf(layout: String) throws {
    let run = try place(layout: layout).run(
      "finetune", "codes", "--data", pairs, "-o", "out", "--method", "qa-lora", "--dry-run")
    #expect(
      run.unfoldedText.contains("of zero points, of which convert --layout mlx makes offsets"))
  }

  @Test func whatHasNoGroupsIsRefused() throws {
    let place = try Workplace()
    try place.write(
      "text.safetensors",
      Safetensors.file([
        ("input_ids", "I32", [4, 24], (0..<96).map { Float(bitPattern: UInt32($0 * 37 % 150)) })
      ]))
    func refusal(_ model: String) throws -> String {
      let run = try place.run(
        "finetune", model, "--data", "text.safetensors", "-o", "out", "--method", "qa-lora")
      #expect(run.status == 2 && !FileManager.default.fileExists(atPath: place.path("out")))
      return run.errors
    }
    #expect(
      try refusal(Repository.sample("training/bases/llama3-f32")).contains(
        "'model.layers.0.self_attn.q_proj.weight': is not in INT4 by groups, whose means"))
    // One layer in groups of 16, the first scale and offset of each two.
    let edit = """
      name = "model.layers.1.mlp.up_proj"
      c["quantization"][name] = dict(bits=4, group_size=16)
      for part in [".scales", ".biases"]:
          old = t[name + part]
          entry = facts[id(old)]
          t[name + part] = bytearray(b"".join(old[k:k + 4] for k in range(0, len(old), 8)))
          facts[id(t[name + part])] = {**entry, "shape": [72, 2]}
      """
    try place.write(
      "edit.py", SafetensorsEdit.program(edit))
    #expect(try place.shell("cp -r '\(base)' mixed && python3 edit.py mixed").status == 0)
    #expect(
      try refusal("mixed").contains(
        "'model.layers.1.mlp.up_proj.weight': is in groups of 16 inputs"))
  }

  /// Verbs that rewrite factors have no form for it.
  @Test(arguments: [
    ["scale", adapter, "--by", "2", "-o", "out"], ["convert", adapter, "-o", "out", "--to", "mlx"],
    ["combine", adapter, adapter, "-o", "out"], ["resize", adapter, "-o", "out", "--rank", "2"],
    ["convert", adapter, "-o", "out.gguf", "--base", base],
  ])
  func whatHasNoFormForItRefuses(arguments: [String]) throws {
    let run = try Workplace().run(arguments)
    #expect(run.status == 2, "\(run.errors)")
    #expect(
      run.errors.contains("QA-LoRA") || run.errors.contains("use_qalora is true"), "\(run.errors)")
  }
}
