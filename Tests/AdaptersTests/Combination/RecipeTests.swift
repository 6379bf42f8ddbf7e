import Files
import Fixtures
import Foundation
import Testing

@testable import Adapters

private func read(_ text: String) throws(PeftoolError) -> Recipe {
  try Recipe(parsing: Array(text.utf8))
}

@Suite struct RecipeTests {
  /// The example of `Formats/recipe.md`, which says every key that goes with its method.
  @Test func theExampleIsReadAsThePageSaysIt() throws {
    let page = try String(
      contentsOf: URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../Formats/recipe.md"), encoding: .utf8)
    let example = try #require(page.components(separatedBy: "```yaml\n").dropFirst().first)
    let recipe = try read(try #require(example.components(separatedBy: "```").first))
    #expect(recipe.method == .tiesSVD)
    #expect(recipe.base == "../Llama-3.2-1B")
    #expect(recipe.rank == .fixed(16))
    #expect(recipe.majority == .frequency)
    #expect(recipe.layerCount == 16)
    #expect(recipe.adapters.map(\.path) == ["math", "code"])
    let (q, up) = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")
    let (math, code) = (recipe.weights[0], recipe.weights[1])
    #expect(math.value(of: q, at: 0.5) == 0.5)
    #expect(math.value(of: up, at: 0) == 1)
    #expect(code.value(of: up, at: 0) == 0.5)
    #expect(recipe.densities.map { $0.value(of: q, at: 0.5) } == [0.25, 0.4])
    #expect(recipe.densities.map { $0.value(of: up, at: 0.5) } == [0.4, 0.4])
  }

  @Test func whatAnAdapterSaysComesBeforeWhatAllSay() throws {
    let recipe = try read(
      """
      weight: [{filter: "*.q_proj", value: 3}]
      adapters:
        - path: a
          weight: [{filter: "*.k_proj", value: 2}]
        - path: b
        - path: c
          weight: 5
      """)
    let values = recipe.weights.map { weight in
      ["x.k_proj", "x.q_proj", "x.v_proj"].map { weight.value(of: $0, at: 0) }
    }
    #expect(values == [[2, 3, 1], [1, 3, 1], [5, 5, 5]])
  }

  @Test(arguments: [
    ("rank: 8", RankChoice.fixed(8)), ("energy: 0.9", .energy(0.9)),
    ("effective: true", .effective),
    ("sv_ratio: 4", .ratio(4)), ("sv_fro: 0.5", .energy(0.25)), ("sv_cumulative: 1", .sum(1)),
  ])
  func ranksAreChosenAsByFlags(line: String, choice: RankChoice) throws {
    #expect(try read("adapters: [{path: a}]\n\(line)").rank == choice)
  }

  @Test func otherKeysAreTaken() throws {
    let recipe = try read(
      "adapters: [{path: a}]\nmethod: della\nepsilon: 0.1\ngamma: 0\nseed: 18446744073709551615\n"
        + "exact: true\ndensity: .5")
    let settings = recipe.settings
    #expect(settings.method == .della)
    #expect(settings.epsilon == 0.1)
    #expect(settings.outliers == 0)
    #expect(settings.seed == .max)
    #expect(settings.decomposition.isExact)
    #expect(recipe.densities[0].value(of: "x", at: 0) == 0.5)
  }

  @Test func pathsBeginInTheFoldersOfRecipes() throws {
    let scratch = try Scratch()
    let path = try scratch.write(
      "merge.yaml", Array("adapters: [{path: a}, {path: /b}]\nbase: ../c".utf8))
    let folder = Folder.parent(of: path)
    let recipe = try Recipe(opening: path)
    #expect(recipe.adapters.map(\.path) == ["\(folder)/a", "/b"])
    #expect(recipe.base == "\(folder)/../c")
  }

  private static let most =
    "adapters, method, base, layers, weight, density, rank, energy, effective, sv_ratio, sv_fro, "
    + "sv_cumulative, majority_sign_method, gamma, epsilon, seed, exact"

  @Test(arguments: [
    ("- a", "line 1: a recipe is a list of 1, expected a mapping"),
    ("method: cat", "line 1: adapters is missing"),
    ("adapters: []", "line 1: adapters is a list of 0, expected one at least"),
    ("adapters: math", "line 1: adapters is math, expected a list"),
    ("adapters: [math]", "line 1: adapters[0] is math, expected a mapping"),
    ("adapters:\n  - weight: 1", "line 2: adapters[0].path is missing"),
    ("adapters:\n  - path:", "line 2: adapters[0].path is empty, expected a text"),
    (
      "adapters:\n  - path: a\n    wieght: 1",
      "line 3: adapters[0].wieght is no key of a recipe, expected path, weight, density"
    ),
    ("merge_method: ties", "line 1: merge_method is no key of a recipe, expected \(most)"),
    ("weight: x", "line 1: weight is x, expected a number"),
    ("weight: '1'", "line 1: weight is \"1\", expected a number"),
    ("weight:", "line 1: weight is empty, expected a number"),
    ("weight: []", "line 1: weight is a list of 0, expected a number at least"),
    ("weight: [1,\n x]", "line 2: weight[1] is x, expected a number"),
    ("weight: [1, [2]]", "line 1: weight[1] is a list of 1, expected a number"),
    ("weight: [1, {value: 1}]", "line 1: weight[1] is a mapping of 1, expected a number"),
    ("weight: [{value: 1}, 1]", "line 1: weight[1] is 1, expected a mapping"),
    (
      "weight: {value: 1}",
      "line 1: weight is a mapping of 1, expected a number, or a list of numbers or of filter and "
        + "value"
    ),
    ("weight:\n  - filter: '*'", "line 2: weight[0].value is missing"),
    (
      "weight: [{filter: '[a', value: 1}]",
      "line 1: weight[0].filter: '[' is not closed; \\[ stands for the character"
    ),
    (
      "weight: [{match: '*'}]",
      "line 1: weight[0].match is no key of a recipe, expected filter, value"
    ),
    (
      "weight:\n - value: 1\n - value: 2",
      "line 3: weight[1] never counts, as weight[0] has no filter and is for all modules"
    ),
    ("density: 1.5", "line 1: density is 1.5, expected 0 to 1"),
    ("density: [0, -0.1]", "line 1: density[1] is -0.1, expected 0 to 1"),
    ("gamma: 2", "line 1: gamma is 2, expected 0 to 1"),
    ("rank: 0", "line 1: rank is 0, expected 1 to 65536"),
    ("rank: 1.5", "line 1: rank is 1.5, expected an integer from 0 on"),
    ("rank: 4\nenergy: 0.5", "line 2: energy beside rank, expected one of them"),
    ("energy: 0", "line 1: energy is 0, expected more than 0 and at most 1"),
    ("sv_ratio: 0.5", "line 1: sv_ratio is 0.5, expected 1 or more"),
    ("effective: false", "line 1: effective is false, expected true, or no such key"),
    ("layers: 0", "line 1: layers is 0, expected 1 to 1000000"),
    (
      "majority_sign_method: most",
      "line 1: majority_sign_method is most, expected total, frequency"
    ),
    ("seed: -1", "line 1: seed is -1, expected an integer from 0 on"),
    ("exact: yes", "line 1: exact is yes, expected true or false"),
    ("base: [a]", "line 1: base is a list of 1, expected a text"),
  ])
  func refusals(yaml: String, reason: String) {
    #expect(throws: PeftoolError(.damaged, reason)) { try read(yaml) }
  }

  @Test func unknownMethodsAreToldOfTheKnown() throws {
    let error = try #require(throws: PeftoolError.self) { try read("method: linera") }
    #expect(error.reason.hasPrefix("line 1: method is linera, expected cat, svd, linear, "))
  }
}
