import Checkpoints
import Fixtures
import Testing

@testable import Adapters

@Suite struct BaseNameTests {
  @Test(
    arguments: [
      ("meta-llama/Llama-3.2-1B", "Llama-3.2-1B"), ("/models/Llama-3.2-1B/", "Llama-3.2-1B"),
      ("gpt2", "gpt2"), (".", nil), ("..", nil), ("", nil), ("/", nil),
      ("/c/models--meta-llama--Llama-3.2-1B/snapshots/4e20de3", "Llama-3.2-1B"),
      ("/c/models--gpt2/snapshots/607a30d", "gpt2"), ("/c/other/snapshots/607a30d", nil),
    ] as [(String, String?)])
  func theLastPartIsTheName(path: String, name: String?) {
    #expect(BaseName(path)?.text == name)
  }

  /// The names that an adapter has for its base, and whether they are plainly others than that of
  /// the folder `base`.
  @Test(
    arguments: [
      (nil, false), ("", false), (".", false), ("owner/base", false), ("/x/Base/", false),
      ("owner/base-2", true), ("/base/x", true),
    ] as [(String?, Bool)]) func anotherBaseIsTold(name: String?, isTold: Bool) throws
  {
    let scratch = try Scratch()
    let base = try BaseModel(
      Checkpoint(opening: scratch.writeModel([Values("q.weight", [2, 3])])))
    let named = name.map { ", \"base_model_name_or_path\": \"\($0)\"" } ?? ""
    let path = try scratch.writeAdapter(
      fields: "\"r\": 1, \"lora_alpha\": 1\(named)",
      [
        Values("base_model.model.q.lora_A.weight", [1, 3]),
        Values("base_model.model.q.lora_B.weight", [2, 1]),
      ])
    let operand = try Operand(opening: path)
    let last = name?.split(separator: "/").last.map { String($0) } ?? ""
    let expected = isTold ? ["\(path): made for \(last), and the base is base"] : []
    #expect(
      try Combination([operand], weights: [1], base: base, .init()).notes == expected)
    #expect(try Combination([operand], weights: [1], .init()).notes == [])
    #expect(
      try Pruning(operand, base: base, .init(entries: .factors(density: 0.5))).notes == expected)
  }
}
