import Files
import JSON
import Testing

@testable import Training

@Suite struct TargetModulesTests {
  private let modules = [
    "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj",
    "model.layers.10.self_attn.q_proj", "lm_head",
  ]

  private func chosen(_ text: String) throws -> [Int] {
    let targets = try TargetModules(text)
    return try modules.indices.filter { try targets.contains(modules[$0]) }
  }

  @Test(arguments: [
    ("all-linear", [0, 1, 2]), ("q_proj", [0, 2]), ("q_proj, up_proj", [0, 1, 2]),
    ("proj", []), ("lm_head", [3]), ("model.layers.0.self_attn.q_proj", [0]),
    (#".*\.0\..*"#, [0, 1]), (#".*\.\d+\.self_attn\.(q|v)_proj"#, [0, 2]),
    // As PEFT, an expression is for the whole path.
    (#"layers\.0.*"#, []), (#".*q_pro?"#, []),
  ])
  func layersAreChosenAsPEFTDoes(text: String, expected: [Int]) throws {
    #expect(try chosen(text) == expected)
  }

  @Test func namesThatFitNothingAreTold() throws {
    let targets = try TargetModules("q_proj,v_prj")
    #expect(targets.unmatched(in: modules) == ["v_prj"])
    #expect(try TargetModules(".*x").unmatched(in: modules) == [])
  }

  @Test func aBrokenExpressionIsRefused() {
    #expect(throws: PeftoolError.self) { try TargetModules("(q_proj") }
  }

  @Test func theConfigurationHasWhatWasGiven() throws {
    #expect(
      try TargetModules("all-linear").json(of: Array(modules.prefix(3)))
        == .array([.string("q_proj"), .string("up_proj")]))
    #expect(try TargetModules("q_proj").json(of: modules) == .array([.string("q_proj")]))
    #expect(try TargetModules(".*q_proj").json(of: modules) == .string(".*q_proj"))
  }
}
