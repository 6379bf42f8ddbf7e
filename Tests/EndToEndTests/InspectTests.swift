import Foundation
import Testing

private let model = Repository.sample("bases/llama-bf16")
private let dora = Repository.sample("adapters/dora")

@Suite struct InspectTests {
  @Test func aModelIsToldInWordsAndATable() throws {
    let run = try Workplace().run("inspect", model)
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(
      run.text.replacingOccurrences(of: model, with: "MODEL").hasPrefix(
        """
        path        MODEL
        format      safetensors, 3 shards with an index
        model       llama (LlamaForCausalLM), 2 layers, hidden size 40, inner size 72, 4
                    heads (2 for keys and values), vocabulary of 101, embeddings not
                    tied
        parameters  35.2K (35,160)
        tensors     21, BF16
        size        70.3 kB (70,320 bytes)
        metadata    format=pt

        tensor                                              count  shape           size
        lm_head.weight                                             [101, 40]     8.1 kB
        model.embed_tokens.weight                                  [101, 40]     8.1 kB
        model.layers.{0-1}.input_layernorm.weight              ×2  [40]       160 bytes
        model.layers.{0-1}.mlp.down_proj.weight                ×2  [40, 72]     11.5 kB

        """))
  }

  @Test func anAdapterIsToldInWords() throws {
    let run = try Workplace().run("inspect", dora, "--base", model)
    #expect(run.status == 0)
    #expect(
      run.text.replacingOccurrences(of: dora, with: "ADAPTER").hasPrefix(
        """
        path        ADAPTER
        format      safetensors, one file
        adapter     DoRA
        made for    llama-bf16
        rank        4
        alpha       8
        scaling     2 (alpha / rank)
        targets     down_proj ×2, gate_proj ×2, up_proj ×2, k_proj ×2, o_proj ×2, q_proj
                    ×2, v_proj ×2; layers 0-1
        PEFT        0.21.2
        parameters  5.5K (5,536), 16 % of the base's 35.2K

        """))
  }

  @Test(arguments: [
    ("lora", "LoRA"), ("dora-rslora", "DoRA with rank-stabilized scaling (rsLoRA)"),
    ("ia3", "(IA)³"), ("shira", "SHiRA"), ("adalora", "AdaLoRA"), ("loha", "LoHa"),
    ("lokr", "LoKr"), ("vera", "VeRA"),
    ("oft", "OFT"), ("hira", "HiRA"), ("pissa-mutated", "LoRA, initialized by pissa"),
  ])
  func everyMethodHasItsName(adapter: String, name: String) throws {
    let run = try Workplace().run("inspect", Repository.sample("adapters/\(adapter)"))
    #expect(run.status == 0)
    #expect(
      run.text.components(separatedBy: "\n").contains {
        $0.hasPrefix("adapter ") && $0.hasSuffix("  \(name)")
      }, "\(run.text)")
  }

  @Test func theRanksThatAdaLoRAKeepsAreCounted() throws {
    let run = try Workplace().run("inspect", Repository.sample("training/adalora-llama3/end"))
    #expect(run.unfoldedText.contains("self_attn.q_proj.lora_E: 2 of 6"), "\(run.text)")
  }

  @Test func aPatternListsEachTensorThatItMatches() throws {
    let place = try Workplace()
    let all = try place.run("inspect", model, "--tensors", "*")
    #expect(all.text.components(separatedBy: "\n\n")[1].components(separatedBy: "\n").count == 23)
    // The name of a line of the grouped table.
    let two = try place.run("inspect", model, "--tensors", "model.layers.{0-1}.mlp.up_proj.weight")
    #expect(
      two.text.hasSuffix(
        """
        tensor                             shape       size
        model.layers.0.mlp.up_proj.weight  [72, 40]  5.8 kB
        model.layers.1.mlp.up_proj.weight  [72, 40]  5.8 kB

        """))
    let none = try place.run("inspect", model, "--tensors", "nothing*")
    #expect(none.status == 2)
    #expect(none.errors == "peftool: \(model): no tensor's name matches 'nothing*'\n")
  }

  @Test(arguments: [["--tensors", "[a"], ["--tensors", ""], ["--sta"], ["two", "paths"], []])
  func wrongUsageIsStatus64(arguments: [String]) throws {
    let place = try Workplace()
    let path = arguments.isEmpty ? [] : [model]
    let run = try place.run(["inspect"] + path + arguments)
    #expect(run.status == 64)
    #expect(run.text == "")
    #expect(run.errors.hasPrefix("peftool: "))
  }

  @Test func statisticsAreOfTheNumbers() throws {
    let place = try Workplace()
    try place.write(
      "x.safetensors",
      Safetensors.file([
        ("a\u{1B}[31m", "F32", [4], [3, -4, .nan, .infinity]), ("b", "F32", [2], [0, 5]),
      ]))
    let run = try place.run("inspect", "x.safetensors", "--stats")
    #expect(run.status == 0)
    #expect(
      run.text.hasSuffix(
        """
        tensor       min  max  mean  norm  zeros  NaN  inf
        a\\u{1b}[31m   -4    3  -0.5     5      0    1    1
        b              0    5   2.5     5      1    0    0

        """))
  }

  @Test(.timeLimit(.minutes(5))) func twentyThousandTensorsAreShownAtOnce() throws {
    let place = try Workplace()
    try place.write(
      "many.safetensors",
      Safetensors.file((0..<20_000).map { ("layers.\($0 / 8).e.\($0 % 8).w", "F32", [1], [0]) }))
    let run = try place.run("inspect", "many.safetensors")
    #expect(run.text.contains("layers.{0-2499}.e.{0-7}.w  ×20000  [1]    80.0 kB\n"))
  }

  @Test func aReaderThatHasGoneEndsItQuietly() throws {
    let place = try Workplace()
    try place.write(
      "many.safetensors",
      Safetensors.file((0..<20_000).map { ("layers.\($0).w", "F32", [1], [0]) }))
    let run = try place.shell("peftool inspect many.safetensors --tensors '*' | head -1")
    #expect(run.status == 0)
    #expect(run.text == "path        many.safetensors\n")
    #expect(run.errors == "")
  }
}
