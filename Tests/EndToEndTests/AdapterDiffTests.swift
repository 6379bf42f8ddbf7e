import Foundation
import Testing

private let lora = Repository.sample("adapters/lora")
private let dora = Repository.sample("adapters/dora")

/// Two adapters compared by what they change.
@Suite struct AdapterDiffTests {
  /// A copy of an adapter, changed by a line of bash.
  private func copy(
    of adapter: String = lora, _ place: borrowing Workplace, _ edit: String
  ) throws {
    try FileManager.default.copyItem(atPath: adapter, toPath: place.path("b"))
    #expect(try place.shell(edit).status == 0)
  }

  @Test func theSameAdapterIsIdentical() throws {
    let run = try Workplace().run("diff", lora, lora)
    #expect(run.status == 0 && run.errors == "")
    #expect(run.text == "identical: 14 updates\n")
  }

  @Test func formatsDoNotMatter() throws {
    let run = try Workplace().run("diff", Repository.sample("mlx/dora"), dora)
    #expect(run.status == 0)
    #expect(run.text == "identical: 14 updates\n")
  }

  @Test func anotherScalingIsAnotherUpdate() throws {
    let place = try Workplace()
    try copy(place, "sed -i 's/\"lora_alpha\": 8/\"lora_alpha\": 16/' b/adapter_config.json")
    let run = try place.run("diff", lora, "b")
    #expect(run.status == 1)
    let lines = run.text.components(separatedBy: "\n")
    #expect(
      lines[0].split(separator: " ", omittingEmptySubsequences: true)
        == ["module", "cosine", "norm", "A", "/", "B", "relative", "out", "in"])
    #expect(
      lines[1].split(separator: " ", omittingEmptySubsequences: true)
        == ["model.layers.0.mlp.down_proj", "1.000000", "0.5", "0.5", "1.0000", "1.0000"])
    #expect(run.text.contains("\n  lora_alpha: 8 in A, 16 in B\n"))
    #expect(
      run.text.contains("\nall modules:  cosine 1.000000, norm A / B 0.5, relative 0.5\n"))
    #expect(
      run.unfoldedText.contains("different: 14 of 14 updates differ, by 0.5 of the norm at most"))
    // Half of the norm may differ, and the settings are in the updates.
    let tolerant = try place.run("diff", lora, "b", "--rtol", "0.51")
    #expect(tolerant.status == 0)
    #expect(tolerant.text.contains("\nwithin tolerance: 14 of 14 updates differ, by 0.5 of"))
  }

  @Test func otherFactorsOfTheSameUpdateAreNoDifference() throws {
    let place = try Workplace()
    #expect(
      try place.run(
        "combine", lora, lora, "--weights", "0.25,0.75", "-o", "b", "--quiet"
      ).status == 0)
    let run = try place.run("diff", lora, "b")
    #expect(run.status == 0)
    #expect(run.text.contains("\n  r: 4 in A, 8 in B\n"))
    #expect(try place.run("diff", lora, "b", "--factors").status == 1)
    #expect(try place.run("diff", lora, "b", "--rtol", "0").status <= 1)
  }

  @Test func modulesOfOneSideAreListed() throws {
    let run = try Workplace().run("diff", Repository.sample("adapters/task-a"), lora)
    #expect(run.status == 1)
    #expect(
      run.text.contains("\nmodules only in B:\n  model.layers.0.mlp.gate_proj\n"))
    #expect(run.text.contains("8 only in B"))
  }

  @Test func methodsAreToldApart() throws {
    let run = try Workplace().run("diff", lora, dora)
    #expect(run.status == 1)
    #expect(run.text.contains("methods:"))
    #expect(run.unfoldedText.contains("LoRA in A, DoRA in B"))
    #expect(run.unfoldedText.contains("methods differ"))
  }

  private static let base = Repository.sample("bases/llama-bf16")

  @Test func wholeChangesOfDoRAAreCompared() throws {
    let place = try Workplace()
    try #require(
      try place.run("convert", lora, "--to", "dora", "--base", Self.base, "-o", "same").status == 0)
    try #require(
      try place.run("scale", dora, "--by", "0.5", "--base", Self.base, "-o", "half").status == 0)
    let same = try place.run("diff", lora, "same", "--base", Self.base)
    #expect(same.status == 0, "\(same.text)")
    #expect(same.text.contains("within tolerance: 14 of 14 changes differ, by "))
    #expect(try place.run("diff", lora, "same").status == 1)
    #expect(
      try place.run("diff", dora, dora, "--base", Self.base).text == "identical: 14 changes\n")
    let run = try place.run("diff", dora, "half", "--base", Self.base, "--json")
    #expect(run.status == 1)
    let report = try #require(
      try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    #expect(report["comparison"] as? String == "changes")
    for module in try #require(report["modules"] as? [[String: Any]]) {
      #expect((try #require(module["normRatio"] as? Double) - 2).magnitude < 1e-5)
      #expect((try #require(module["relative"] as? Double) - 1).magnitude < 1e-5)
      #expect(module["magnitude"] is NSNull)
    }
  }

  @Test func aBaseThatIsOfNoUseIsRefused() throws {
    let place = try Workplace()
    for (arguments, status, text) in [
      ([Self.base, Self.base, "--base", Self.base], 2, "--base is for two adapters of low-rank"),
      ([dora, dora, "--base", Repository.sample("bases/gpt2-f32")], 2, "has no module"),
      ([dora, dora, "--base", Self.base, "--factors"], 64, "--base is for whole changes"),
    ] as [([String], Int32, String)] {
      let run = try place.run(["diff"] + arguments)
      #expect(run.status == status)
      #expect(run.errors.contains(text), "\(run.errors)")
    }
  }

  @Test func kindsAndShapesAreToldApart() throws {
    let place = try Workplace()
    let edit = try Safetensors.file([
      ("base_model.model.x.lora_A.weight", "F32", [1, 2], [1, 2]),
      ("base_model.model.x.lora_B.weight", "F32", [3, 1], [1, 2, 3]),
    ])
    let other = try Safetensors.file([
      ("base_model.model.x.lora_embedding_A", "F32", [1, 2], [1, 2]),
      ("base_model.model.x.lora_embedding_B", "F32", [3, 1], [1, 2, 3]),
    ])
    for (name, data) in [("a", edit), ("b", other)] {
      try place.write("\(name)/adapter_model.safetensors", data)
      try place.write(
        "\(name)/adapter_config.json",
        "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1}")
    }
    let run = try place.run("diff", "a", "b")
    #expect(run.status == 1)
    #expect(
      run.text == """
        modules of other kinds or shapes:
          x: a linear of [3, 2] in A, an embedding of [3, 2] in B

        different: 1 of other kinds or shapes

        """)
  }

  @Test func whatBelongsToNoPairIsComparedToo() throws {
    let sample = Repository.sample("adapters/save-modules")
    let run = try Workplace().run("diff", sample, sample)
    #expect(run.status == 0)
    #expect(run.text.contains(" other tensor"))
  }

  @Test func adaptersWithoutPairsAreComparedByTensors() throws {
    let ia3 = Repository.sample("adapters/ia3")
    let run = try Workplace().run("diff", lora, ia3)
    #expect(run.status == 1)
    #expect(run.unfoldedText.contains("compared tensor by tensor: "))
    #expect(run.text.contains("only in A:\n"))
    // A model is none at all.
    let model = try Workplace().run("diff", lora, Repository.sample("bases/llama-bf16"))
    #expect(model.status == 1 && !model.text.contains("compared tensor by tensor"))
  }

  @Test func aNaNInAFactorIsAnError() throws {
    let place = try Workplace()
    try copy(
      place,
      "printf '\\xff\\xff\\xff\\xff' | dd of=b/adapter_model.safetensors bs=1 "
        + "seek=$(($(stat -c %s b/adapter_model.safetensors) - 4)) conv=notrunc status=none")
    let run = try place.run("diff", lora, "b")
    #expect(run.status == 2 && run.text == "")
    #expect(run.errors.hasPrefix("peftool: b/adapter_model.safetensors: tensor 'base_model."))
    #expect(run.errors.hasSuffix(": has NaN or infinite values\n"))
    #expect(try place.run("diff", lora, "b", "--factors").status == 1)
  }
}
