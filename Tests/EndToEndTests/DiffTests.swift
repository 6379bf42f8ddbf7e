import Foundation
import Testing

private let model = Repository.sample("bases/llama-bf16")

@Suite struct DiffTests {
  private func write(_ place: borrowing Workplace) throws {
    try place.write(
      "a.safetensors",
      Safetensors.file([
        ("same", "F32", [2], [1, 2]), ("near", "F32", [2], [1, 2]), ("far", "F32", [2], [1, 2]),
        ("mine", "F32", [1], [1]), ("shape", "F32", [2], [1, 2]),
      ]))
    try place.write(
      "b.safetensors",
      Safetensors.file([
        ("same", "F32", [2], [1, 2]), ("near", "F32", [2], [1, 2.25]),
        ("far", "F32", [2], [-1, 2]),
        ("yours", "F32", [1], [1]), ("shape", "F32", [2, 1], [1, 2]),
      ]))
  }

  @Test func differencesAreListedTheWorstFirst() throws {
    let place = try Workplace()
    try write(place)
    let run = try place.run("diff", "a.safetensors", "b.safetensors")
    #expect(run.status == 1)
    #expect(run.errors == "")
    #expect(
      run.text == """
        tensor  max abs  relative    cosine  differ
        far           2    0.8944  0.600000       1
        near       0.25    0.1015  0.998969       1

        only in A:
          mine

        only in B:
          yours

        other shape or dtype:
          shape: [2] in A, [2, 1] in B

        different: 2 of 3 tensors differ, by 2 at most (far), 1 only in A, 1 only in B,
        1 of other shape or dtype

        """)
  }

  @Test func toleranceDecidesTheStatus() throws {
    let place = try Workplace()
    try place.write("a.safetensors", Safetensors.file([("x", "F32", [2], [1, 2])]))
    try place.write("b.safetensors", Safetensors.file([("x", "F32", [2], [1, 2.25])]))
    for (options, status, verdict) in [
      ([], 1, "different: 1 of 1 tensor differ, by 0.25 at most (x)"),
      (["--atol", "0.25"], 0, "within tolerance: 1 of 1 tensor differ, by 0.25 at most (x)"),
      (["--rtol", "0.12"], 0, "within tolerance: 1 of 1 tensor differ, by 0.25 at most (x)"),
      (
        ["--rtol", "0.11"], 1,
        "different: 1 of 1 tensor differ beyond the tolerance, by 0.25 at most (x)"
      ),
    ] as [([String], Int32, String)] {
      let run = try place.run(["diff", "a.safetensors", "b.safetensors"] + options)
      #expect(run.status == status)
      #expect(run.text.hasSuffix("\n\n\(verdict)\n"))
    }
  }

  @Test func shardsAndOneFileArePairedByName() throws {
    let place = try Workplace()
    #expect(
      try place.run("merge", model, Repository.sample("adapters/lora"), "-o", "m").status == 0)
    #expect(
      try place.run(
        "merge", model, Repository.sample("adapters/lora"), "-o", "m.safetensors"
      ).status == 0)
    let run = try place.run("diff", "m", "m.safetensors")
    #expect(run.status == 0)
    #expect(run.text == "identical: 21 tensors\n")
  }

  @Test func settingsOfAdaptersAreCompared() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(
      atPath: Repository.sample("adapters/lora"), toPath: place.path("b"))
    _ = try place.shell("sed -i 's/\"lora_alpha\": 8/\"lora_alpha\": 9/' b/adapter_config.json")
    let run = try place.run("diff", Repository.sample("adapters/lora"), "b", "--factors")
    #expect(run.status == 1)
    #expect(
      run.text == """
        settings in adapter_config.json:
          lora_alpha: 8 in A, 9 in B

        different: 28 tensors equal, settings differ

        """)
  }

  @Test(arguments: [
    ["a"], ["a", "b", "c"], ["a", "b", "--atol", "-1"], ["a", "b", "--rtol", "x"],
    ["a", "b", "--rtol", "inf"], ["a", "b", "--atol", "nan"],
  ])
  func wrongUsageIsStatus64(arguments: [String]) throws {
    let run = try Workplace().run(["diff"] + arguments)
    #expect(run.status == 64)
    #expect(run.text == "")
    #expect(run.errors.hasPrefix("peftool: "))
  }

  @Test func whatIsNotThereIsStatus2() throws {
    let run = try Workplace().run("diff", model, "absent")
    #expect(run.status == 2)
    #expect(run.text == "")
    #expect(run.errors == "peftool: absent: cannot open: No such file or directory\n")
  }
}
