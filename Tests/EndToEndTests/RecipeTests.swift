import Foundation
import Testing

private let adapters =
  "adapters: [{path: \(Repository.sample("adapters/task-a"))}, "
  + "{path: \(Repository.sample("adapters/task-b"))}]\n"

@Suite struct RecipeTests {
  @Test(arguments: [
    ("adapters: [\n", "merge.yaml: line 2: YAML: did not find expected node content"),
    ("x: 1", "merge.yaml: line 1: x is no key of a recipe, expected adapters, method, base, "),
    ("", "merge.yaml: an empty file, expected YAML"),
    (adapters + "weight: high", "merge.yaml: line 2: weight is high, expected a number"),
    (
      adapters + "weight:\n  - filter: '*.q_prj'\n    value: 1",
      "merge.yaml: line 3: weight[0].filter '*.q_prj' matches none of the "
    ),
    (adapters + "density: 0.5", "merge.yaml: density does not go with method cat"),
    (adapters + "method: ties", "merge.yaml: method ties needs density, the share that is kept"),
    (adapters + "seed: 1", "merge.yaml: seed does not go with method cat"),
    (
      adapters + "method: della\ndensity: 0.9",
      "merge.yaml: density 0.9 and epsilon 0.15 give probabilities outside 0 to 1"
    ),
    (
      adapters + "method: ties_svd\ndensity: [{filter: '*.layers.0.*', value: 0.5}]",
      "task-a: no density is given for model.layers.1."
    ),
    (
      adapters + "method: della\ndensity: [{filter: '*.layers.0.*', value: 0.5}, {value: 0.1}]",
      "task-a: model.layers.1."
    ),
    (adapters + "layers: 1", "merge.yaml: layers is 1, and model.layers.1."),
    (adapters + "weight: 0", "every weight is 0: no adapter is left"),
    ("adapters: [{path: none}]", "peftool: none: cannot open: No such file or directory"),
  ])
  func badRecipesEndInOneLine(yaml: String, start: String) throws {
    let place = try Workplace()
    try place.write("merge.yaml", yaml)
    let run = try place.run("combine", "--recipe", "merge.yaml", "-o", "out")
    #expect(run.status == 2)
    #expect(run.errors.contains(start), "\(run.errors)")
    #expect(run.errors.hasPrefix("peftool: "))
    #expect(run.errors.split(separator: "\n").count == 1)
    #expect(try place.names == ["merge.yaml"])
  }

  @Test(arguments: [
    (["--recipe", "merge.yaml", "x", "-o", "o"], "adapters beside --recipe, which names its own"),
    (["--recipe", "merge.yaml"], "Missing expected argument '--output <out>'"),
    (["-o", "out"], "Missing expected argument '<adapter> ...', or --recipe"),
    (
      ["--recipe", "merge.yaml", "-o", "out", "--weights", "1"],
      "--weights has 1 number for 2 adapters"
    ),
    (["--recipe", "merge.yaml", "-o", "out", "--gamma", "2"], "--gamma is 2.0, expected 0 to 1"),
  ])
  func wrongUsageIsTold(flags: [String], reason: String) throws {
    let place = try Workplace()
    try place.write("merge.yaml", adapters)
    let run = try place.run(["combine"] + flags)
    #expect(run.status == 64)
    #expect(run.errors.hasPrefix("peftool: \(reason)\n"))
    #expect(try place.names == ["merge.yaml"])
  }

  @Test func aRecipeOfConstantsIsTheCommandLine() throws {
    let place = try Workplace()
    try place.write(
      "merge.yaml",
      adapters.replacing("task-a}", with: "task-a, weight: 0.7}")
        + "method: svd\nrank: 4\nweight: -0.5")
    #expect(try place.run("combine", "--recipe", "merge.yaml", "-o", "a").status == 0)
    let run = try place.run(
      "combine", Repository.sample("adapters/task-a"), Repository.sample("adapters/task-b"), "-o",
      "b", "--method", "svd", "--rank", "4", "--weights", "0.7,-0.5")
    #expect(run.status == 0)
    #expect(try place.shell("diff -r a b").status == 0)
  }

  @Test func aDryRunWritesNothingAndTellsWhatWouldBe() throws {
    let place = try Workplace()
    try place.write(
      "merge.yaml", adapters + "weight: [{filter: '*.layers.0.*', value: 0.5}, {value: [0, 2]}]")
    let run = try place.run("combine", "--recipe", "merge.yaml", "-o", "out", "--dry-run")
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(try place.names == ["merge.yaml"])
    #expect(run.text.contains("(weight by module)\n"))
    #expect(run.text.contains("\nto write  out: "))
    #expect(
      run.unfoldedText.contains(
        " modules  model.layers.0.self_attn.{q_proj,v_proj} weights  0.5, 0.5 ranks    4, 3 "
          + "rank     7 "))
    #expect(run.text.contains("weights  2, 2\n"))
  }
}
