import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let nf4 = Repository.sample("quantized/llama-nf4-double")
private let int8 = Repository.sample("quantized/llama-int8")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")

/// How quantization and merging go together; the numbers are checked against PEFT in
/// `Tests/Interop/test_quantized_merge.py`.
@Suite struct QuantizedMergeTests {
  @Test(arguments: ["llama-nf4-double", "llama-fp4", "llama-int8"], [lora, dora])
  func aQuantizedBaseIsDequantized(sample: String, adapter: String) throws {
    let place = try Workplace()
    let quantized = Repository.sample("quantized/\(sample)")
    let run = try place.run("merge", quantized, adapter, "-o", "merged")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.text.contains("codes stand for; the result is not"))
    #expect(try place.run("dequantize", quantized, "-o", "plain").status == 0)
    #expect(try place.run("merge", "plain", adapter, "-o", "again").status == 0)
    #expect(try place.shell("diff -r merged again").status == 0)
    #expect(!(try place.shell("cat merged/config.json").text.contains("quantization_config")))
  }

  @Test func aQuantizedBaseIsOneForEveryVerb() throws {
    let place = try Workplace()
    let fit = try place.run("verify", lora, "--base", nf4)
    #expect(fit.status == 0 && fit.text.contains("14 modules of"), "\(fit.text)\(fit.errors)")
    let mlx = Repository.sample("mlx/lora")
    #expect(try place.run("convert", mlx, "-o", "peft", "--to", "peft", "--base", nf4).status == 0)
  }

  /// Of settings that a base has nothing else may be asked, not even the default.
  @Test(
    arguments: [
      (["--block-size", "64"], "keeps its settings"),
      (["--rounding", "peft"], "--rounding peft is"),
    ])
  func whatDoesNotGoWithTheBasesSettings(flags: [String], message: String) throws {
    let place = try Workplace()
    let run = try place.run(["merge", nf4, lora, "-o", "out", "--quantize", "nf4"] + flags)
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
    #expect(try place.names == [])
  }

  @Test func whatQuantizationLeavesOutIsTold() throws {
    let place = try Workplace()
    #expect(
      try place.shell(
        "cp -r '\(Repository.sample("bases/mixtral-bf16"))' m && cp m/*.safetensors m/pytorch_model.bin"
      ).status == 0)
    let adapter = Repository.sample("adapters/target-parameters-unfused")
    let run = try place.run("merge", "m", adapter, "-o", "out", "--quantize", "nf4")
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.unfoldedText.contains("bitsandbytes quantizes no fused ones"))
    // Both plans have it.
    #expect(run.unfoldedText.components(separatedBy: "pytorch_model.bin").count == 2)
  }

  @Test func aTurnedWeightIsDequantized() throws {
    let place = try Workplace()
    let quantized = Repository.sample("quantized/gpt2-nf4")
    let adapter = Repository.sample("adapters/conv1d")
    #expect(try place.run("merge", quantized, adapter, "-o", "merged").status == 0)
    #expect(try place.run("dequantize", quantized, "-o", "plain").status == 0)
    #expect(try place.run("merge", "plain", adapter, "-o", "again").status == 0)
    #expect(try place.shell("diff -r merged again").status == 0)
    // And turned back when it is quantized again.
    let again = try place.run("merge", quantized, adapter, "-o", "nf4", "--quantize", "nf4")
    #expect(again.status == 0)
    #expect(try place.run("dequantize", "nf4", "-o", "decoded").status == 0)
    #expect(try place.run("diff", "decoded", "merged", "--rtol", "1", "--atol", "0.4").status == 0)
  }

  @Test(arguments: [[], ["--no-double-quant"], ["--block-size", "128"]])
  func simulationIsTheQuantizedBase(flags: [String]) throws {
    let place = try Workplace()
    #expect(try place.run(["quantize", base, "-o", "quantized"] + flags).status == 0)
    #expect(try place.run("merge", "quantized", dora, "-o", "merged").status == 0)
    let simulated = try place.run(
      ["merge", base, dora, "-o", "simulated", "--simulate", "nf4"] + flags)
    #expect(simulated.status == 0)
    #expect(simulated.text.contains("merged into what nf4 makes of the base"))
    #expect(try place.run("diff", "merged", "simulated").status == 0)
    // The base's own files are kept.
    #expect(try place.shell("ls '\(base)'").text == place.shell("ls simulated").text)
  }

  @Test func aMergeIsQuantizedAtOnce() throws {
    let place = try Workplace()
    for threads in ["1", "5"] {
      let run = try place.run(
        "merge", base, dora, "-o", "once\(threads)", "--quantize", "nf4", "--threads", threads)
      #expect(run.status == 0, "\(run.errors)")
    }
    #expect(try place.run("merge", base, dora, "-o", "merged").status == 0)
    #expect(try place.run("quantize", "merged", "-o", "twice").status == 0)
    #expect(try place.shell("diff -r once1 twice").status == 0)
    #expect(try place.shell("diff -r once1 once5").status == 0)
  }

  @Test func whatNoAdapterChangesKeepsItsCodes() throws {
    let place = try Workplace()
    let adapter = Repository.sample("adapters/task-a")
    let run = try place.run("merge", nf4, adapter, "-o", "out", "--quantize", "nf4", "--json")
    #expect(run.status == 0)
    #expect(run.text.contains("\"quantization\": \"requantized\""))
    #expect(
      try place.shell("diff out/config.json '\(nf4)/config.json'").status == 0)
    let difference = try place.run("diff", "out", nf4, "--json")
    let value = try #require(
      JSONSerialization.jsonObject(with: difference.output) as? [String: Any])
    let differing = try #require(value["differing"] as? [[String: Any]])
    let names = differing.compactMap { $0["tensor"] as? String }
    // The codes of the weights that task-a has, their scales and the like.
    #expect(names.contains("model.layers.0.self_attn.q_proj.weight"))
    #expect(
      names.allSatisfy {
        $0.contains("q_proj") || $0.contains("v_proj") || $0.contains("down_proj")
      })
  }

  @Test func aWeightOfZeroLeavesTheCodes() throws {
    let place = try Workplace()
    for (quantized, type) in [(nf4, "nf4"), (int8, "int8")] {
      let run = try place.run(
        "merge", quantized, lora, "--weights=0", "-o", "out", "--force", "--quantize", type)
      #expect(run.status == 0)
      #expect(try place.shell("diff -r out '\(quantized)'").status == 0)
    }
  }

  @Test func oneFileHasNoConfiguration() throws {
    let place = try Workplace()
    let run = try place.run("merge", nf4, lora, "-o", "one.safetensors")
    #expect(run.status == 0)
    #expect(run.text.replacing(#/\s+/#, with: " ").contains("remove quantization_config"))
    #expect(try place.run("merge", nf4, lora, "-o", "dir").status == 0)
    #expect(try place.run("diff", "one.safetensors", "dir").status == 0)
  }

  @Test(
    arguments: [
      ([int8, lora, "--quantize", "nf4"], "is quantized (int8); --quantize int8 keeps"),
      (
        [nf4, lora, "--quantize", "nf4", "--block-size", "128"],
        "is quantized (nf4); --quantize nf4 keeps its settings"
      ),
      ([nf4, lora, "--simulate", "nf4"], "is quantized (nf4); --simulate is for a base"),
    ])
  func whatDoesNotFitIsRefused(arguments: [String], message: String) throws {
    let place = try Workplace()
    let run = try place.run(["merge"] + arguments + ["-o", "out"])
    #expect(run.status == 2)
    #expect(run.errors.contains(message), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
    #expect(try place.names.isEmpty)
  }

  @Test(
    arguments: [
      ["--quantize", "nf4", "--simulate", "nf4"], ["--quantize", "nf4", "--dtype", "F32"],
      ["--quantize", "int8", "--block-size", "128"], ["--no-double-quant"],
      ["--quantize", "q4"], ["--quantize", "nf4", "-o", "out.safetensors"],
    ])
  func flagsThatDoNotGoTogether(flags: [String]) throws {
    let place = try Workplace()
    let output = flags.contains("-o") ? [] : ["-o", "out"]
    let run = try place.run(["merge", base, lora] + flags + output)
    #expect(run.status == 64)
    #expect(try place.names.isEmpty)
  }
}
