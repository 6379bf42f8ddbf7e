import Foundation
import Testing

/// `Formats/json-output.md` against what peftool prints.
@Suite struct JSONOutputTests {
  /// The page's section on a verb: what is in code marks there.
  private func documented(_ verb: String) throws -> Set<String> {
    let page = try Repository.text("Formats/json-output.md")
    let section = page.components(separatedBy: "\n## ").first {
      $0.prefix { $0 != "\n" }.contains("`\(verb)`")
    }
    return Set((section ?? "").matches(of: /`([A-Za-z]+)`/).map { String($0.1) })
  }

  /// All keys of a value but those that come out of files: below `metadata`, `config`, `dtypes`.
  private func keys(_ value: Any) -> Set<String> {
    if let array = value as? [Any] { return array.reduce(into: []) { $0.formUnion(keys($1)) } }
    guard let object = value as? [String: Any] else { return [] }
    return object.reduce(into: Set(object.keys)) { found, member in
      switch member.key {
      case "metadata", "config": break
      case "dtypes":
        guard let dtypes = member.value as? [String: Any] else { return }
        for dtype in dtypes.values { found.formUnion(keys(dtype)) }
      default: found.formUnion(keys(member.value))
      }
    }
  }

  private static let model = Repository.sample("bases/llama-bf16")
  private static let lora = Repository.sample("adapters/lora")
  private static let chat = Repository.sample("generation/tiny-chat")
  private static let pairs = Repository.sample("generation/pairs.jsonl")

  @Test(arguments: [
    ["inspect", model, "--stats"], ["inspect", lora, "--base", model], ["verify", model],
    ["verify", lora, "--base", Repository.sample("bases/gpt2-f32")], ["diff", model, model],
    ["diff", model, Repository.sample("bases/llama-f16")],
    ["diff", lora, Repository.sample("adapters/task-a")],
    ["diff", lora, Repository.sample("adapters/task-a"), "--factors"],
    ["diff", lora, Repository.sample("adapters/lora-bias")],
    ["inspect", Repository.sample("adapters/dora"), "--stats", "--base", model],
    ["merge", model, lora, "-o", "out"], ["convert", model, "-o", "out", "--dtype", "f32"],
    ["convert", model, "-o", "out.zst"],
    ["combine", lora, Repository.sample("adapters/task-a"), "-o", "out"],
    ["scale", lora, "-o", "out", "--by", "2"], ["resize", lora, "-o", "out", "--rank", "2"],
    ["prune", lora, "-o", "out", "--density", "0.5"],
    ["prune", lora, "-o", "out", "--density", "0.05", "--delta", "--shira"],
    ["inspect", Repository.sample("adapters/shira")],
    [
      "transfer", lora, "--from", model, "--to", Repository.sample("bases/llama-f32"), "-o", "out",
      "--method", "cross-lora", "--threshold", "0",
    ],
    ["extract", model, Repository.sample("bases/llama-f32"), "-o", "out", "--rank", "2"],
    ["convert", lora, "--to", "dora", "--base", model, "-o", "out"],
    ["quantize", model, "-o", "out", "--report"],
    ["combine", lora, "-o", "out"], ["combine", lora, "--dry-run"],
    ["dequantize", Repository.sample("quantized/llama-int8"), "-o", "out"],
    ["finetune", chat, "--data", pairs, "--eval-data", pairs, "-o", "out"],
    ["finetune", chat, "--data", pairs, "-o", "out", "--dry-run"],
    ["plan", chat, "--examples", "3"], ["plan", chat, "--gpu"],
    ["tokenize", Repository.sample("tokenizers/gpt2.json"), "a text"],
    ["generate", chat, "Once"],
    ["evaluate", chat, "--data", Repository.sample("generation/story.txt")],
  ])
  func thePageNamesEveryKey(arguments: [String]) throws {
    let place = try Workplace()
    let run = try place.run(arguments + ["--json"])
    #expect(arguments[0] == "finetune" || run.errors == "")
    let value = try JSONSerialization.jsonObject(with: run.output)
    #expect(value is [String: Any])
    #expect(keys(value).subtracting(try documented(arguments[0])) == [])
  }

  @Test func thePageNamesTheKeysOfAnswers() throws {
    let lines = Data("{\"prompt\": \"Once\"}\nx\n".utf8)
    let run = try Workplace().run(["generate", Self.chat, "--swap"], input: lines)
    let found = try run.text.split(separator: "\n").map {
      keys(try JSONSerialization.jsonObject(with: Data($0.utf8)))
    }
    #expect(found.count == 2 && found[0].contains("adapter") && found[1] == ["line", "error"])
    let all = Set(found.joined())
    #expect(all.subtracting(try documented("generate")) == [])
  }

  @Test func figuresAreThoseOfTheTensors() throws {
    let place = try Workplace()
    try place.write(
      "x.safetensors", Safetensors.file([("a\u{1}é", "F32", [2, 2], [3, 4, .nan, 0])]))
    let run = try place.run("inspect", "x.safetensors", "--stats", "--json")
    let value = try #require(
      JSONSerialization.jsonObject(with: run.output) as? [String: Any])
    let tensor = try #require((value["tensors"] as? [[String: Any]])?.first)
    #expect(tensor["name"] as? String == "a\u{1}é")
    #expect(tensor["shape"] as? [Int] == [2, 2])
    let statistics = try #require(tensor["statistics"] as? [String: Double])
    #expect(statistics["maximum"] == 4)
    #expect(statistics["norm"] == 5)
    #expect(statistics["nans"] == 1)
    #expect(statistics["zeros"] == 1)
  }
}
