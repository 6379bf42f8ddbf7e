import Foundation
import Testing

private let model = Repository.sample("bases/llama-bf16")

/// The cases of `Samples/merged/index.json` whose adapters fit their base.
private let fits: [(base: String, adapter: String)] = {
  let file = Repository.root.appendingPathComponent("Samples/merged/index.json")
  guard let data = try? Data(contentsOf: file),
    let cases = try? JSONSerialization.jsonObject(with: data) as? [[String: Any]]
  else { return [] }
  return cases.filter { $0["error"] == nil }.flatMap { entry -> [(String, String)] in
    let adapters = entry["adapters"] as? [String] ?? []
    return adapters.map { (entry["base"] as? String ?? "", $0) }
  }
}()

@Suite struct VerifyTests {
  @Test func aSoundModelHasNoFaults() throws {
    let run = try Workplace().run("verify", model)
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(
      run.text == "no faults in \(model): 3 shards and their index, 21 tensors of 70.3 kB, "
        + "config.json, every number finite\n")
  }

  @Test func everyAdapterOfTheSamplesFitsItsBase() throws {
    let place = try Workplace()
    #expect(fits.count > 40)
    for (base, adapter) in fits {
      let run = try place.run(
        "verify", Repository.sample("adapters/\(adapter)"), "--base",
        Repository.sample("bases/\(base)"))
      #expect(run.status == 0, "\(adapter): \(run.text)\(run.errors)")
    }
  }

  @Test func everyFaultIsALine() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: model, toPath: place.path("m"))
    _ = try place.shell(
      "rm m/model-00002-of-00003.safetensors; echo more >> m/model-00003-of-00003.safetensors; "
        + "echo '{' > m/config.json")
    let run = try place.run("verify", "m")
    #expect(run.status == 1)
    #expect(run.errors == "")
    let lines = run.text.components(separatedBy: "\n")
    #expect(lines.count == 5)
    #expect(
      lines[0].hasPrefix(
        "m/model-00002-of-00003.safetensors: cannot open: No such file or directory; the index"))
    #expect(lines[1].hasPrefix("m/model-00003-of-00003.safetensors: byte "))
    #expect(lines[2].hasPrefix("m/config.json: byte "))
    #expect(lines[3] == "3 faults in m")
  }

  @Test func aFaultyFileIsStatus1AndAnAbsentOneStatus2() throws {
    let place = try Workplace()
    try place.write("cut.safetensors", "short")
    let cut = try place.run("verify", "cut.safetensors")
    #expect(cut.status == 1)
    #expect(cut.text.hasSuffix("\n1 fault in cut.safetensors\n"))
    let absent = try place.run("verify", "absent")
    #expect(absent.status == 2)
    #expect(absent.text == "")
    #expect(absent.errors == "peftool: absent: cannot open: No such file or directory\n")
    let folder = try place.run("verify", ".")
    #expect(folder.status == 1)
  }

  @Test(
    arguments: [
      (#"t["model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4"][0] = 88"#, "byte 0"),
      (#"t["x.absmin"] = t.pop("model.layers.0.mlp.up_proj.weight.absmax")"#, "absmax' beside it"),
      (#"del c["quantization_config"]"#, "would take the codes for numbers"),
      (#"c["quantization_config"]["bnb_4bit_quant_type"] = "fp4""#, "bnb_4bit_quant_type is"),
      (#"c["quantization_config"]["load_in_4bit"] = False"#, "quantization_config excludes"),
    ])
  func aQuantizedModelHasToFitItself(edit: String, reason: String) throws {
    let place = try Workplace()
    let sample = Repository.sample("quantized/llama-nf4-double")
    let sound = try place.run("verify", sample)
    #expect(sound.status == 0 && sound.text.contains("14 quantized weights"), "\(sound.text)")
    try place.write("edit.py", SafetensorsEdit.program(edit))
    #expect(try place.shell("cp -r '\(sample)' m && python3 edit.py m").status == 0)
    let run = try place.run("verify", "m")
    #expect(run.status == 1 && run.text.contains(reason), "\(run.text)\(run.errors)")
  }

  @Test func adaptersOfOtherFormatsAreReadAsConvertReadsThem() throws {
    let place = try Workplace()
    let kohya = Repository.sample("kohya/lora.safetensors")
    let fits = try place.run("verify", kohya, "--base", model)
    #expect(fits.status == 0 && fits.text.contains("14 modules of"), "\(fits.text)\(fits.errors)")
    try place.write(
      "edit.py", SafetensorsEdit.program(#"t.pop(next(n for n in sorted(t) if "lora_up" in n))"#))
    #expect(
      try place.shell("mkdir k; cp '\(kohya)' k/model.safetensors; python3 edit.py k").status == 0)
    let half = try place.run("verify", "k/model.safetensors")
    #expect(half.status == 1 && half.text.contains("lora_down"), "\(half.text)\(half.errors)")
    let mlx = Repository.sample("mlx/lora")
    #expect(try place.run("verify", mlx, "--base", model).text.contains("14 modules of"))
    #expect(try place.run("verify", mlx, "--base", "nosuch").status == 2)
    let other = try place.run("verify", mlx, "--base", Repository.sample("bases/gpt2-f32"))
    #expect(other.status == 1 && other.text.contains("nor 13 more of 14"), "\(other.text)")
  }

  @Test func anAdapterOfAnotherModelHasAFaultAModule() throws {
    let run = try Workplace().run(
      "verify", Repository.sample("adapters/lora"), "--base", Repository.sample("bases/gpt2-f32"))
    #expect(run.status == 1)
    let lines = run.text.components(separatedBy: "\n").dropLast()
    #expect(lines.dropLast().count == 14)
    #expect(lines.dropLast().allSatisfy { $0.contains("matches no tensor '") })
  }
}
