import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let gguf = Repository.sample("gguf/tiny-llama.gguf")

/// `convert` of checkpoints that are not GGUF.
@Suite struct ConvertTests {
  @Test func withoutFlagsItIsACopy() throws {
    let place = try Workplace()
    let run = try place.run("convert", base, "-o", "out")
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(try place.shell("diff -r out '\(base)'").status == 0)
    // Through a stream and one file to shards again.
    #expect(try place.shell("peftool convert '\(base)' -o - > one.safetensors").status == 0)
    #expect(try place.run("diff", "one.safetensors", base).status == 0)
    #expect(
      try place.run("convert", "one.safetensors", "-o", "shards", "--shard-size", "20KB").status
        == 0)
    #expect(try place.run("diff", "shards", base).status == 0)
    #expect(try place.shell("ls shards | grep -c 'model-.*-of-'").text != "1\n")
  }

  @Test(arguments: ["zip.pt", "stream.pt", "wrapped.pth", "sharded"])
  func pytorchBecomesSafetensors(sample: String) throws {
    let place = try Workplace()
    let path = Repository.sample("torch/\(sample)")
    #expect(try place.run("convert", path, "-o", "out.safetensors").status == 0)
    #expect(try place.run("diff", "out.safetensors", path).status == 0)
    #expect(try place.run("convert", path, "-o", "out").status == 0)
    #expect(try place.run("diff", "out", path).status == 0)
    #expect(try place.shell("ls out").text.contains(".safetensors"))
  }

  @Test func dtypesAreConvertedAndTheConfigurationFollows() throws {
    let place = try Workplace()
    #expect(try place.run("convert", base, "-o", "single", "--dtype", "f32").status == 0)
    #expect(try place.run("diff", "single", base).status == 0)
    #expect(try place.shell("grep dtype single/config.json").text == "  \"dtype\": \"float32\",\n")
    #expect(
      try place.run("convert", "single", "-o", "back", "--dtype", "bfloat16").status == 0)
    #expect(try place.shell("diff -r back '\(base)'").status == 0)
    for threads in ["1", "4"] {
      let run = try place.run(
        "convert", "single", "-o", "f8-\(threads)", "--dtype", "f8_e4m3", "--threads", threads)
      #expect(run.status == 0)
    }
    #expect(try place.shell("diff -r f8-1 f8-4").status == 0)
    #expect(try place.run("verify", "f8-1").status == 0)
  }

  @Test func numbersOutOfRange() throws {
    let place = try Workplace()
    try place.write(
      "x.safetensors",
      Safetensors.file([("big", "F32", [6], [1, 1e6, -1e6, .infinity, .nan, 65504])]))
    let refusal = try place.run("convert", "x.safetensors", "-o", "y.safetensors", "--dtype", "f16")
    #expect(refusal.status == 2)
    #expect(
      refusal.errors
        == "peftool: x.safetensors: tensor 'big': 2 numbers too large for F16, whose largest is "
        + "65504; --saturate takes that instead\n")
    let run = try place.run(
      "convert", "x.safetensors", "-o", "y.safetensors", "--dtype", "f16", "--saturate")
    #expect(run.status == 0)
    let halves = try place.bytes("y.safetensors").suffix(12)
    let values = stride(from: halves.startIndex, to: halves.endIndex, by: 2).map {
      UInt16(halves[$0]) | UInt16(halves[$0 + 1]) << 8
    }
    #expect(values == [0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0x7E00, 0x7BFF])
  }

  @Test func tensorsAreChosenAndRenamed() throws {
    let place = try Workplace()
    let run = try place.run(
      "convert", base, "-o", "part.safetensors", "--include", "model.layers.*", "--exclude",
      "*layernorm*", "--rename", #"^model\.layers\.(\d+)\.=h.\1."#)
    #expect(run.status == 0, "\(run.errors)")
    let list = try place.run("inspect", "part.safetensors", "--json").text
    #expect(list.contains("\"h.0.self_attn.q_proj.weight\""))
    #expect(!list.contains("layernorm") && !list.contains("model."))
    #expect(!list.contains("lm_head"))
  }

  @Test(
    arguments: [
      (["--include", "nothing"], "pattern 1 of --include matches no tensor"),
      (["--exclude", "*", "--exclude", "nope*"], "pattern 2 of --exclude matches no tensor"),
      (["--exclude", "*"], "has no tensor that is selected"),
      (["--rename", "xyz=a"], "pattern 1 of --rename changes no name"),
      (["--rename", #"layers\.\d+=layers.7"#], "as another tensor is"),
      (["--rename", #"model=\2"#], "'model' has no group 2"),
    ])
  func whatDoesNothingIsAnError(flags: [String], message: String) throws {
    let place = try Workplace()
    let run = try place.run(["convert", base, "-o", "out"] + flags)
    #expect(run.status == 2)
    #expect(run.errors.contains(message), "\(run.errors)")
    #expect(try place.names.isEmpty)
  }

  @Test func anAdapterStaysAnAdapter() throws {
    let place = try Workplace()
    let adapter = Repository.sample("torch/adapter")
    #expect(try place.run("convert", adapter, "-o", "out", "--dtype", "bf16").status == 0)
    #expect(try place.shell("ls out").text == "adapter_config.json\nadapter_model.safetensors\n")
    #expect(try place.run("verify", "out").status == 0)
    #expect(try place.run("inspect", "out").text.contains("LoRA"))
  }

  @Test func aQuantizedModelKeepsItsCodes() throws {
    let place = try Workplace()
    let quantized = Repository.sample("quantized/llama-nf4-double")
    #expect(try place.run("convert", quantized, "-o", "out", "--shard-size", "10KB").status == 0)
    #expect(try place.run("diff", "out", quantized).status == 0)
    let refusal = try place.run("convert", quantized, "-o", "f32", "--dtype", "f32")
    #expect(refusal.status == 2)
    #expect(refusal.errors.contains("peftool dequantize first"))
  }

  @Test(
    arguments: [
      ["-o", "x.bin"], ["-o", "out.safetensors", "--shard-size", "1GB"],
      ["-o", "out", "--saturate"],
      ["-o", "out", "--dtype", "int4"], ["-o", ""], ["-o", "x.gguf", "--dtype", "f64"],
      ["-o", "out", "--include", "["], ["-o", "out", "--rename", "=a"],
      ["-o", "out", "--rename", "a(=b"], ["-o", "out", "--rename", #"model=\q"#],
      ["-o", "-", "--to", "kohya"], ["-o", "x.gguf", "--to", "kohya"], ["-o", "-", "--to", "mlx"],
      ["-o", "x.safetensors", "--to", "peft"],
    ])
  func wrongUsage(flags: [String]) throws {
    let place = try Workplace()
    #expect(try place.run(["convert", base] + flags).status == 64)
    #expect(try place.names.isEmpty)
  }

  @Test(
    arguments: [
      (base, ["-o", "x.gguf", "--base", base], "--base goes with an adapter"),
      (lora, ["-o", "out", "--shard-size", "1GB"], "--shard-size is for models"),
      (Repository.sample("gguf/tiny-llama.gguf"), ["-o", "x.gguf"], "is GGUF: convert it to a"),
      (lora, ["-o", "x.gguf", "--base", gguf], "expected a model's folder with config.json"),
      ("\(base)/config.json", ["-o", "out"], "no index of shards"),
    ])
  func whatCannotBeIsToldInOneLine(input: String, flags: [String], message: String) throws {
    let place = try Workplace()
    let run = try place.run(["convert", input] + flags)
    #expect(run.status == 2)
    #expect(run.errors.contains(message), "\(run.errors)")
    #expect(try place.names.isEmpty)
  }

  /// A single file and a stream have no place for a configuration.
  @Test func whatIsLeftToDoIsTold() throws {
    let place = try Workplace()
    let file = try place.run("convert", base, "-o", "x.safetensors", "--dtype", "f16")
    #expect(file.unfoldedText.contains("in the model's, set dtype to \"float16\""))
    let model = try place.run("convert", gguf, "-o", "y.safetensors")
    #expect(model.unfoldedText.contains("tokenizer's files are written with a directory only"))
  }

  @Test func anAdapterOfMLXKeepsItsFileName() throws {
    let place = try Workplace()
    let adapter = Repository.sample("mlx/lora")
    #expect(
      try place.run("convert", adapter, "-o", "out", "--include", "*.0.*").status == 0)
    #expect(try place.shell("ls out").text == "adapter_config.json\nadapters.safetensors\n")
  }
}
