import Foundation
import Testing

private let base = Repository.sample("bases/llama-bf16")
private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")

/// `--force` of every verb that writes a folder, onto folders that hold more than it would write.
@Suite struct ForceTests {
  @Test(
    arguments: [
      ["merge", base, lora], ["quantize", base], ["convert", base],
      ["dequantize", Repository.sample("quantized/llama-int8")], ["combine", lora],
      ["scale", lora, "--by", "2"], ["resize", lora, "--rank", "1"],
      ["prune", lora, "--density", "0.5"], ["convert", lora, "--to", "mlx"], ["convert", lora],
      ["convert", lora, "--to", "dora", "--base", base],
      ["extract", base, Repository.sample("bases/llama-f32"), "--rank", "1"],
    ]) func keepsWhatItWouldNotWrite(arguments: [String]) throws
  {
    let place = try Workplace()
    func write() throws -> Run { try place.run(arguments + ["-o", "out", "--force"]) }
    try #require(try write().status == 0)
    #expect(try write().status == 0)
    let isAdapter = try place.shell("test -e out/adapter_config.json").status == 0
    for (file, reason) in [
      ("checkpoint-500/x", "the folder checkpoint-500"),
      isAdapter
        ? ("model.safetensors", "a model, model.safetensors")
        : ("adapter_config.json", "an adapter, adapter_config.json"),
    ] {
      try place.write("out/\(file)", "dear")
      let run = try write()
      #expect(run.status == 2)
      #expect(
        run.errors == "peftool: out: holds \(reason), which --force would delete: "
          + "choose another output or remove it\n")
      #expect(try place.bytes("out/\(file)") == Data("dear".utf8))
      #expect(try place.shell("rm -r out/\(file.split(separator: "/")[0])").status == 0)
    }
    #expect(try place.names == ["out"])
  }
}
