import Foundation
import Testing

private let base = Repository.sample("int4/llama")
private let layouts = ["mlx", "gptq", "gptq_v2", "awq"]

/// Group-wise INT4 through the verbs.
@Suite struct Int4Tests {
  /// numpy has packed the samples (`Samples/make_int4_samples.py`).
  @Test(arguments: ["gptq", "gptq_v2", "awq"])
  func tensorsAreThoseOfIndependentCode(layout: String) throws {
    let place = try Workplace()
    let quantize = [
      "quantize", base, "-o", "out", "--type", "int4", "--group-size", "32", "--layout", layout,
    ]
    #expect(try place.run(quantize + ["--threads", "3"]).status == 0)
    let sample = Repository.sample("int4/llama-\(layout)")
    let count = layout == "awq" ? 25 : 32
    #expect(try place.run("diff", "out", sample).text == "identical: \(count) tensors\n")
    #expect(try place.run("verify", "out").status == 0)
    #expect(try place.run("verify", sample).status == 0)
  }

  /// The same codes in every layout: no row of the sample is all of one sign.
  @Test func everyLayoutStandsForTheSameModel() throws {
    let place = try Workplace()
    for layout in layouts {
      let made = try place.run(
        "quantize", base, "-o", layout, "--type", "int4", "--group-size", "32", "--layout", layout,
        "--report", "--json")
      #expect(made.status == 0)
      #expect(made.text.contains("\"layout\": \"\(layout)\""))
      #expect(made.text.contains("\"groupSize\": 32"))
      #expect(try place.run("dequantize", layout, "-o", "plain-\(layout)").status == 0)
      #expect(try place.shell("grep -c quantization plain-\(layout)/config.json").text == "0\n")
      #expect(try place.run("verify", "plain-\(layout)").status == 0)
    }
    for other in ["gptq_v2", "awq"] {
      let compare = "cmp plain-gptq/model.safetensors plain-\(other)/model.safetensors"
      #expect(try place.shell(compare).status == 0)
    }
    let difference = try place.run("diff", "plain-gptq", "plain-mlx", "--atol", "0.0003")
    #expect(difference.status == 0, "\(difference.text)")
    #expect(try place.run("inspect", "mlx").unfoldedText.contains("quantized: mlx"))
    #expect(try place.run("inspect", "awq").text.contains("parameters  53.4K"))
  }

  @Test func symmetricGroupsAreSaidAndKept() throws {
    let place = try Workplace()
    let options = ["--type", "int4", "--layout", "gptq", "--symmetric", "--group-size", "32"]
    let run = try place.run(["quantize", base, "-o", "once"] + options)
    #expect(run.status == 0)
    #expect(!run.unfoldedText.contains("GPTQModel"))
    #expect(try place.shell("cat once/config.json").text.contains("\"sym\": true"))
    // A merge that quantizes again asks for no other options.
    let merge = try place.run(
      "merge", "once", Repository.sample("int4/lora"), "-o", "again", "--quantize", "int4")
    #expect(merge.status == 0, "\(merge.errors)")
    // Every zero point is still 8: in gptq 7, whatever the order of nibbles.
    for model in ["once", "again"] {
      let tensors = try place.run("inspect", model, "--tensors", "*.qzeros", "--stats", "--json")
      #expect(tensors.status == 0)
      #expect(tensors.text.contains("\"minimum\": 2004318071.0"), "\(tensors.text)")
      #expect(tensors.text.contains("\"maximum\": 2004318071.0"))
    }
    let other = try place.run(
      "quantize", base, "-o", "other", "--type", "int4", "--layout", "gptq", "--group-size", "32")
    #expect(other.unfoldedText.contains("GPTQModel reads gptq files"))
  }

  @Test func whatIsLeftOutIsSaidInEveryLayout() throws {
    let place = try Workplace()
    for (layout, words) in [
      ("gptq", #"-:^model\\.layers\\.0\\.mlp\\.up_proj$"#), ("awq", "modules_to_not_convert"),
      ("mlx", "affine"),
    ] {
      #expect(
        try place.run(
          "quantize", base, "-o", layout, "--type", "int4", "--group-size", "32", "--layout",
          layout, "--exclude", "*.up_proj"
        ).status == 0)
      #expect(try place.shell("cat \(layout)/config.json").text.contains(words), "\(layout)")
      #expect(try place.run("inspect", layout).text.contains("up_proj.weight"))
      #expect(try place.run("verify", layout).status == 0)
    }
  }

  /// A sum with an ordinary LoRA is no INT4: said, and written otherwise or with a loss.
  @Test(arguments: layouts) func aMergeSaysThatItIsNotExact(layout: String) throws {
    let place = try Workplace()
    let model = Repository.sample("int4/llama-\(layout)")
    let adapter = Repository.sample("int4/lora")
    let exact = try place.run("merge", model, adapter, "-o", "exact")
    #expect(exact.status == 0)
    #expect(exact.unfoldedText.contains("an exact result is no longer int4"))
    #expect(try place.shell("grep -c quantization exact/config.json").text == "0\n")
    #expect(try place.run("dequantize", model, "-o", "plain").status == 0)
    #expect(try place.run("merge", "plain", adapter, "-o", "other").status == 0)
    #expect(try place.shell("cmp exact/model.safetensors other/model.safetensors").status == 0)

    let again = try place.run(
      "merge", model, adapter, "-o", "again", "--quantize", "int4", "--threads", "2")
    #expect(again.status == 0, "\(again.errors)")
    #expect(again.unfoldedText.contains("not exact"))
    #expect(try place.shell("diff again/config.json '\(model)/config.json'").status == 0)
    #expect(try place.run("verify", "again").status == 0)
    // Modules that the adapter leaves alone keep their codes.
    let difference = try place.run("diff", "again", model, "--json").text
    #expect(difference.contains("q_proj") && !difference.contains("mlp.up_proj"))
  }

  /// Codes are computed with in f32: what they stand for in F32 has the same loss, to the digit.
  @Test(arguments: layouts) func codesComputeAsWhatTheyStandFor(layout: String) throws {
    let place = try Workplace()
    let quantize = ["quantize", base, "-o", "codes", "--type", "int4", "--group-size", "32"]
    #expect(try place.run(quantize + ["--layout", layout]).status == 0)
    #expect(try place.shell("sed -i s/float16/float32/ codes/config.json").status == 0)
    #expect(try place.run("dequantize", "codes", "-o", "plain").status == 0)
    let adapter = Repository.sample("int4/lora")
    var found: [[String]] = []
    for model in ["codes", "plain"] {
      let loss = try place.run(
        "evaluate", model, "--data", Repository.sample("generation/story.txt"), "--adapter",
        adapter, "--json")
      let text = try place.run("generate", model, "Two wee", "--max-tokens", "8", "--quiet")
      let training = try place.run(
        "finetune", model, "--data", Repository.sample("generation/pairs.jsonl"), "-o",
        "adapter-\(model)", "--epochs", "2", "--quiet")
      #expect(loss.status == 0 && text.status == 0 && training.status == 0, "\(training.errors)")
      let value = try #require(loss.text.firstMatch(of: #/"loss": [0-9.]+/#)).0
      found.append([String(value), text.text])
    }
    #expect(found[0] == found[1])
    let weights = "adapter_model.safetensors"
    #expect(
      try place.shell("cmp adapter-codes/\(weights) adapter-plain/\(weights)").status == 0)
  }

  @Test func whatCannotBeCutIsRefused() throws {
    let place = try Workplace()
    let narrow = Repository.sample("bases/llama-f32")
    for (model, words) in [
      (narrow, "inputs, which groups of 64 do not divide"),
      (Repository.sample("bases/gpt2-f32"), "is a Conv1D's"),
      (Repository.sample("int4/llama-mlx"), "is quantized (by MLX)"),
      (Repository.sample("int4/llama-awq"), "is quantized (quant_method \"awq\")"),
    ] {
      let run = try place.run("quantize", model, "-o", "out", "--type", "int4")
      #expect(run.status == 2)
      #expect(run.errors.contains(words), "\(run.errors)")
    }
    #expect(try place.names == [])
  }

  @Test func wrongUsageIsSaid() throws {
    let place = try Workplace()
    for arguments in [
      ["--type", "int4", "--group-size", "16"], ["--type", "int4", "--layout", "hqq"],
      ["--type", "int4", "--layout", "awq", "--scale-dtype", "float32"],
      ["--type", "int4", "--block-size", "64"], ["--type", "int4", "--compute-dtype", "float16"],
      ["--group-size", "64"], ["--type", "int8", "--symmetric"], ["--layout", "mlx"],
    ] {
      let run = try place.run(["quantize", base, "-o", "out"] + arguments)
      #expect(run.status == 64, "\(arguments)")
    }
    #expect(try place.names == [])
  }

  /// The codes stay, and so do the numbers but for a rounding in f32; there and back is the same.
  @Test func aModelIsLaidOutAnew() throws {
    let place = try Workplace()
    for layout in layouts {
      #expect(
        try place.run(
          "quantize", base, "-o", layout, "--type", "int4", "--group-size", "32", "--layout", layout
        ).status == 0)
      var from = layout
      for to in ["mlx", "hqq", "mlx"] {
        let out = "\(from)-\(to)"
        let run = try place.run("convert", from, "-o", out, "--layout", to, "--threads", "3")
        #expect(run.status == 0, "\(run.errors)")
        #expect(
          run.unfoldedText.contains("7 weights kept their codes and scales, in F32, as \(to)"))
        #expect(try place.run("verify", out).status == 0)
        from = out
      }
      for model in [layout, "\(layout)-mlx-hqq"] {
        // What codes stand for is written in the type that is named there.
        let edit = "sed -i 's/\"float16\"/\"float32\"/' \(model)/config.json"
        #expect(try place.shell(edit).status == 0)
        #expect(try place.run("dequantize", model, "-o", "plain-\(model)").status == 0)
      }
      let difference = try place.run(
        "diff", "plain-\(layout)", "plain-\(layout)-mlx-hqq", "--atol", "1e-6")
      #expect(difference.status == 0, "\(difference.text)")
      #expect(try place.run("diff", "\(layout)-mlx", from, "--atol", "1e-7").status == 0)
    }
    for (verb, reason) in [
      (
        ["quantize", base, "-o", "x", "--type", "int4", "--layout", "hqq"], "is made of a model in"
      ),
      (["convert", "mlx", "-o", "x", "--layout", "awq"], "'awq' is none of mlx, hqq"),
      (["convert", "mlx", "-o", "x.gguf", "--layout", "hqq"], "--layout goes with a directory of"),
      (["convert", "mlx", "-o", "x.safetensors", "--layout", "hqq"], "its config.json"),
      (["convert", base, "-o", "x", "--layout", "hqq"], "has no weights in int4"),
      (
        ["merge", "mlx-mlx-hqq", Repository.sample("int4/lora"), "-o", "x", "--requantize"],
        "is in int4 as hqq, which is not quantized again"
      ),
    ] {
      let run = try place.run(verb)
      #expect(run.status != 0 && run.errors.contains(reason), "\(verb): \(run.errors)")
    }
  }

  /// What stays in 16 bits is said, so that HQQ's readers look for no codes.
  @Test func skippedModulesAreSaid() throws {
    let place = try Workplace()
    let quantized = try place.run(
      "quantize", base, "-o", "part", "--type", "int4", "--group-size", "32", "--exclude",
      "*.up_proj")
    #expect(quantized.status == 0, "\(quantized.errors)")
    #expect(try place.run("convert", "part", "-o", "hqq", "--layout", "hqq").status == 0)
    let config = try #require(
      JSONSerialization.jsonObject(with: place.bytes("hqq/config.json")) as? [String: Any])
    let settings = try #require(config["quantization_config"] as? [String: Any])
    let skipped = try #require(settings["skip_modules"] as? [String])
    #expect(skipped.contains("model.layers.0.mlp.up_proj"))
    let plan = try place.run("plan", "hqq", "--no-measure", "--max-length", "64", "--json")
    #expect(plan.status == 0 && !plan.text.contains("of several sizes"), "\(plan.errors)")
  }

  /// The codes go into GGUF's blocks as they are, and every other matrix keeps its type.
  @Test func codesBecomeBlocksOfQ4v1() throws {
    let place = try Workplace()
    for layout in layouts {
      #expect(
        try place.run(
          "quantize", base, "-o", layout, "--type", "int4", "--layout", layout, "--group-size",
          "32"
        ).status == 0)
      let run = try place.run("convert", layout, "-o", "\(layout).gguf", "--dtype", "q4_1")
      #expect(run.status == 0, "\(run.errors)")
      #expect(run.unfoldedText.contains("7 weights kept their codes"))
      #expect(run.unfoldedText.contains("rounded to F16") == (layout != "mlx"))
      #expect(run.unfoldedText.contains("Q4_1 (7 modules), F32 (3 modules), F16"))
      let refused = try place.run("convert", layout, "-o", "x.gguf")
      #expect(refused.status == 2 && refused.errors.contains("--dtype q4_1 keeps its codes"))
    }
    // What Q4_1 stands for is what the codes stood for.
    #expect(try place.shell("sed -i s/float16/float32/ mlx/config.json").status == 0)
    #expect(try place.run("dequantize", "mlx", "-o", "plain").status == 0)
    #expect(try place.run("convert", "mlx.gguf", "-o", "back", "--dtype", "f32").status == 0)
    let difference = try place.run("diff", "back", "plain", "--atol", "0", "--json")
    #expect(difference.text.contains("\"verdict\": \"identical\""), "\(difference.text)")
    #expect(try place.run("diff", "gptq.gguf", "awq.gguf").status == 0)
  }
}
