import Foundation
import Testing

/// The `config.json` of an adapter that was trained with stretched positions, through every verb that
/// makes an adapter of it.
@Suite struct StretchedPositionsTests {
  private static let base = Repository.sample("bases/llama-f32")

  /// A folder's `config.json`.
  private func config(_ place: borrowing Workplace, _ folder: String) throws -> [String: Any] {
    try #require(
      try JSONSerialization.jsonObject(with: place.bytes("\(folder)/config.json"))
        as? [String: Any])
  }

  private func scaling(_ place: borrowing Workplace, _ folder: String) throws -> NSDictionary? {
    try config(place, folder)["rope_scaling"] as? NSDictionary
  }

  private static func settings(_ factor: Double) -> [String: any Sendable] {
    ["rope_type": "linear", "factor": factor]
  }

  /// Copies an adapter, its positions stretched so many times; 1 leaves them.
  private func copy(
    _ place: borrowing Workplace, _ sample: String, _ name: String, factor: Double,
    _ more: [String: Any] = [:]
  ) throws {
    try FileManager.default.copyItem(
      atPath: Repository.sample(sample), toPath: place.path(name))
    guard factor > 1 else { return }
    let model = URL(fileURLWithPath: Self.base + "/config.json")
    var config = try #require(
      try JSONSerialization.jsonObject(with: Data(contentsOf: model)) as? [String: Any])
    config.removeValue(forKey: "rope_parameters")
    config["rope_scaling"] = Self.settings(factor)
    config["max_position_embeddings"] = Int(128 * factor)
    config.merge(more) { $1 }
    try place.write("\(name)/config.json", JSONSerialization.data(withJSONObject: config))
  }

  @Test(arguments: [
    ["scale", "a", "--by", "0.5"], ["resize", "a", "--rank", "2"],
    ["resize", "a", "--auto", "budget", "--budget", "2000"],
    ["prune", "a", "--density", "0.5"], ["prune", "a", "--density", "0.05", "--delta", "--shira"],
    ["prune", "a", "--min-share", "0.01", "--base", base],
    ["combine", "a", "b"], ["combine", "a", "b", "--method", "ties_svd", "--density", "0.5"],
    ["convert", "a", "--to", "mlx"], ["convert", "a", "--to", "dora", "--base", base],
    ["convert", "a", "--dtype", "bf16"], ["convert", "loha", "--to", "lora"],
  ])
  func theResultHasThem(arguments: [String]) throws {
    let place = try Workplace()
    for (name, sample) in [("a", "lora-f32base"), ("b", "lora-f32base"), ("loha", "loha")] {
      try copy(place, "adapters/\(sample)", name, factor: 4)
    }
    let run = try place.run(arguments + ["-o", "out", "--quiet"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(try scaling(place, "out") == Self.settings(4) as NSDictionary)
    #expect(try config(place, "out")["max_position_embeddings"] as? Int == 512)
    guard arguments.contains("mlx") else { return }
    let back = try place.run("convert", "out", "--to", "peft", "-o", "back", "--quiet")
    #expect(back.status == 0, "\(back.errors)")
    #expect(try config(place, "back") as NSDictionary == config(place, "a") as NSDictionary)
  }

  /// A model with positions of its own keeps them, stretched as much.
  @Test(
    arguments: [
      (["rope_type": "default", "rope_theta": 5e5], 2048, 4, 8192),
      (["rope_type": "linear", "factor": 2.0, "rope_theta": 5e5], 2048, 4, 4096),
      (["rope_type": "linear", "factor": 4.0, "rope_theta": 5e5], 2048, 4, 2048),
    ] as [([String: any Sendable], Int, Double, Int)])
  func anotherModelKeepsItsOwn(
    settings: [String: any Sendable], count: Int, factor: Double, expected: Int
  ) throws {
    let place = try Workplace()
    try copy(place, "adapters/lora-f32base", "a", factor: 4)
    try writeModel(place, settings, count)
    let run = try place.run(
      "transfer", "a", "--from", Self.base, "--to", "model", "-o", "out", "--threshold", "0")
    #expect(run.status == 0, "\(run.errors)")
    #expect(
      run.unfoldedText.contains(
        "positions are the new model's, stretched as the adapter was trained: linear, 4 times"),
      "\(run.text)")
    let found = try config(place, "out")
    let right = ["rope_type": "linear", "factor": factor, "rope_theta": 5e5] as NSDictionary
    #expect(found["rope_parameters"] as? NSDictionary == right)
    #expect(found["max_position_embeddings"] as? Int == expected)
    #expect(found["rope_scaling"] == nil)
  }

  @Test(arguments: [
    (
      "yarn", 2.0,
      "rope_parameters.rope_type is \"yarn\" already, which linear:4 cannot be put on top of"
    ),
    ("linear", 8, "positions are stretched already (linear, 8 times)"),
  ])
  func aModelThatIsStretchedInAnotherWayIsRefused(
    kind: String, factor: Double, what: String
  ) throws {
    let place = try Workplace()
    try copy(place, "adapters/lora-f32base", "a", factor: 4)
    try writeModel(place, ["rope_type": kind, "factor": factor, "rope_theta": 5e5], 2048)
    let run = try place.run("transfer", "a", "--from", Self.base, "--to", "model", "-o", "out")
    #expect(run.status == 2)
    #expect(
      run.errors == """
        peftool: model: \(what), and the adapter was trained with positions stretched \
        (linear, 4 times)

        """)
    #expect(try place.names == ["a", "model"])
  }

  /// Copies the model, with other positions.
  private func writeModel(
    _ place: borrowing Workplace, _ settings: [String: any Sendable], _ count: Int
  ) throws {
    try FileManager.default.copyItem(atPath: Self.base, toPath: place.path("model"))
    var config = try config(place, "model")
    config["rope_parameters"] = settings
    config["max_position_embeddings"] = count
    try place.write("model/config.json", JSONSerialization.data(withJSONObject: config))
  }

  /// One of them as the model has them: nothing is written beside the adapter.
  @Test func withoutThemThereIsNoConfiguration() throws {
    let place = try Workplace()
    try copy(place, "adapters/lora", "a", factor: 1)
    #expect(try place.run("scale", "a", "--by", "2", "-o", "out").status == 0)
    #expect(!FileManager.default.fileExists(atPath: place.path("out/config.json")))
  }

  @Test(arguments: [
    (["--to", "kohya", "-o", "out.safetensors"], "a file of kohya's"),
    (["-o", "out.gguf", "--base", base], "a GGUF file"),
  ])
  func aFormatWithoutAPlaceForThemIsRefused(arguments: [String], what: String) throws {
    let place = try Workplace()
    try copy(place, "adapters/lora", "a", factor: 4)
    let run = try place.run(["convert", "a"] + arguments)
    #expect(run.status == 2)
    #expect(
      run.errors == """
        peftool: a: was trained with positions stretched (linear, 4 times), for which \(what) has \
        no place; 'peftool merge' writes a model that has them

        """)
    #expect(try place.names == ["a"])
  }

  /// llama.cpp applies it to the base, whose positions these are.
  @Test func aGGUFFileIsWrittenForABaseThatHasThem() throws {
    let place = try Workplace()
    try copy(place, "adapters/lora", "a", factor: 4)
    try FileManager.default.copyItem(atPath: Self.base, toPath: place.path("model"))
    try place.write("model/config.json", place.bytes("a/config.json"))
    let run = try place.run("convert", "a", "-o", "out.gguf", "--base", "model")
    #expect(run.status == 0, "\(run.errors)")
    #expect(try place.run("verify", "out.gguf").status == 0)
    // Another factor is another model's.
    try copy(place, "adapters/lora", "b", factor: 8)
    let other = try place.run("convert", "b", "-o", "other.gguf", "--base", "model")
    #expect(other.status == 2 && other.errors.contains("stretched (linear, 8 times), for which"))
  }

  @Test(
    arguments: [
      (8.0, [:], "8 times), a with linear, 4 times: factor is 8.0 and 4.0"),
      (4.0, ["rope_theta": 7.0], "4 times), a with linear, 4 times: rope_theta is 7.0 and 10000.0"),
    ] as [(Double, [String: Double], String)])
  func adaptersOfOtherPositionsAreNotCombined(
    factor: Double, more: [String: Double], expected: String
  ) throws {
    let place = try Workplace()
    try copy(place, "adapters/task-a", "a", factor: 4, ["rope_theta": 10000])
    let theta = more["rope_theta"] ?? 10000
    try copy(place, "adapters/task-b", "b", factor: factor, ["rope_theta": theta])
    for verb in [
      ["combine", "-o", "out"], ["combine", "--dry-run"], ["merge", "-o", "out", Self.base],
    ] {
      let run = try place.run(verb + ["a", "b"])
      #expect(run.status == 2)
      #expect(
        run.errors
          == "peftool: b: was trained with positions stretched (linear, \(expected)\n")
    }
  }

  @Test func anAdapterWithoutThemBesideOneIsNoted() throws {
    let place = try Workplace()
    try copy(place, "adapters/task-a", "a", factor: 1)
    try copy(place, "adapters/task-b", "b", factor: 4)
    let note =
      "a was trained with the model's own positions, and gets those of b: linear, 4 times"
    for verb in [["combine"], ["merge", Self.base]] {
      let run = try place.run(verb + ["a", "b", "-o", verb[0]])
      #expect(run.status == 0 && run.unfoldedText.contains(note), "\(run.text)\(run.errors)")
      #expect(try scaling(place, verb[0])?["factor"] as? Double == 4)
    }
  }

  @Test func generateNotesIt() throws {
    let place = try Workplace()
    let sailor = "generation/tiny-sailor"
    try copy(place, sailor, "a", factor: 1)
    try copy(place, sailor, "b", factor: 4)
    let run = try place.run(
      "generate", Repository.sample("generation/tiny-chat"), "Once", "--adapter", "a", "--adapter",
      "b", "--max-tokens", "2")
    #expect(run.status == 0)
    #expect(
      run.errors.hasPrefix("note: a was trained with the model's own positions"), "\(run.errors)")
  }

  /// Neither in the weights nor in the positions.
  @Test func anAdapterOfWeightZeroHasNoPart() throws {
    let place = try Workplace()
    for (name, sample, factor) in [("a", "task-a", 1.0), ("b", "task-b", 4)] {
      try copy(place, "adapters/" + sample, name, factor: factor)
    }
    let run = try place.run("merge", Self.base, "a", "b", "--weights", "1,0", "-o", "out")
    #expect(run.status == 0 && !run.unfoldedText.contains("positions"), "\(run.errors)")
    #expect(try scaling(place, "out") == nil)
    let sailor = "generation/tiny-sailor"
    try copy(place, sailor, "c", factor: 1)
    try copy(place, sailor, "d", factor: 4)
    let text = try place.run(
      "generate", Repository.sample("generation/tiny-chat"), "Once", "--adapter", "c", "--adapter",
      "d", "--weights", "1,0", "--max-tokens", "2")
    #expect(text.status == 0 && !text.errors.contains("positions"), "\(text.errors)")
  }

  /// What a merge with such an adapter has made is extracted with the positions that it has.
  @Test(arguments: [["--rank", "4"], ["--shira", "--rank", "2"]])
  func anExtractedAdapterHasThem(options: [String]) throws {
    let place = try Workplace()
    try copy(place, "adapters/lora-f32base", "a", factor: 4)
    #expect(try place.run("merge", Self.base, "a", "-o", "tuned").status == 0)
    let run = try place.run(["extract", Self.base, "tuned", "-o", "out"] + options)
    #expect(run.status == 0, "\(run.errors)")
    #expect(
      run.unfoldedText.contains("positions of the tuned model are stretched"), "\(run.text)")
    #expect(try config(place, "out") as NSDictionary == config(place, "tuned") as NSDictionary)
    let same = try place.run(["extract", "tuned", "tuned", "-o", "none"] + options)
    #expect(!same.errors.contains("positions"))
  }
}
