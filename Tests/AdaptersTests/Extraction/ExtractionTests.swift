import Checkpoints
import Files
import Fixtures
import Patterns
import Tensors
import Testing

@testable import Adapters

@Suite struct ExtractionTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func model(_ name: String, _ tensors: [Values]) throws -> BaseModel {
    try scratch.write("\(name)/model.safetensors", tensors)
    try scratch.write("\(name)/config.json", #"{"model_type": "llama"}"#)
    return try BaseModel(Checkpoint(opening: scratch.path(name)))
  }

  private func extraction(
    _ base: [Values], _ tuned: [Values], _ options: Extraction.Options = .init()
  ) throws -> Extraction {
    try Extraction(base: model("base", base), tuned: model("tuned", tuned), options)
  }

  /// A change of 2 beside a weight of norm 5, and one of 1 beside one of 10.
  @Test(arguments: [false, true]) func sharesAreThoseOfTheBase(isDoRA: Bool) throws {
    var options = Extraction.Options()
    options.isDoRA = isDoRA
    let extraction = try extraction(
      [
        Values("q.weight", [2, 2], [3, 0, 0, 4]), Values("up.weight", [1, 2], [0, 10]),
        Values("same.weight", [1, 2], [1, 1]),
      ],
      [
        Values("q.weight", [2, 2], [3, 2, 0, 4]), Values("up.weight", [1, 2], [1, 10]),
        Values("same.weight", [1, 2], [1, 1]),
      ], options)
    let results = try extraction.run(as: .f32, threads: 1) { _ in }.results
    #expect(results.map(\.path) == ["q", "up"])
    #expect(results.map(\.weightNorm) == [5, 10])
    #expect(results.map(\.share) == [0.4, 0.1])
    let whole = try #require(ModuleResult.share(of: results))
    #expect((whole - (5.0 / 125).squareRoot()).magnitude < 1e-15)
  }

  /// Of changes beyond LAPACK's size first only twice the mean rank is looked for, and here one takes
  /// more.
  @Test func aBudgetGoesWhereTheEnergyIs() throws {
    let (rows, columns) = (300, 264)
    let base = ["a", "b", "c", "d"].map { Values("\($0).weight", [rows, columns]) }
    let tuned = zip(base, [9, 2, 1, 2]).map { values, rank in
      var elements = values.values
      // Each direction is a row of its own, all of one length, and the first module's are longer.
      for row in 0..<rank {
        for column in 0..<columns where column % 9 == row {
          elements[row * columns + column] += rank > 2 ? 2 : 0.5
        }
      }
      return Values(values.name, values.shape, elements)
    }
    var options = Extraction.Options()
    options.budget = .meanRank(3)
    let results = try extraction(base, tuned, options).run(as: .f32, threads: 2) { _ in }.results
    #expect(results.map(\.rank) == [9, 1, 1, 1])
    options.budget = .parameters(13 * (rows + columns))
    let more = try extraction(base, tuned, options).run(as: .f32, threads: 2) { _ in }.results
    #expect(more.map(\.rank).reduce(0, +) == 13)
    #expect(more[0].rank == 9 && more[2].rank == 1)
  }

  @Test func aModuleOfBothChoicesIsToldOf() throws {
    var options = Extraction.Options()
    options.saved = [try Glob("up"), try Glob("q")]
    options.excluded = [try Glob("*p"), try Glob("down")]
    let names = ["q", "up", "down", "v"]
    let extraction = try extraction(
      names.map { Values("\($0).weight", [2, 2], [1, 2, 3, 4]) },
      names.map { Values("\($0).weight", [2, 2], [1, 2, 3, 5]) }, options)
    #expect(
      extraction.notes == [
        "left out by --exclude: up and 1 more",
        "of --save and --exclude both, and so not saved: up",
      ])
    let adapter = try extraction.run(as: .f32, threads: 1) { _ in }.adapter
    #expect(adapter.modules.map(\.path) == ["v"])
    #expect(adapter.saved.map(\.path) == ["q"])
  }

  @Test func whatIsExcludedMayHaveAnotherShape() throws {
    let base = [Values("q.weight", [2, 2], [1, 2, 3, 4]), Values("head.weight", [3, 2])]
    let tuned = [Values("q.weight", [2, 2], [1, 2, 3, 5]), Values("head.weight", [4, 2])]
    for saved in [[], ["head"]] {
      var options = Extraction.Options()
      options.saved = try saved.map { try Glob($0) }
      #expect {
        try extraction(base, tuned, options)
      } throws: {
        ($0 as? PeftoolError)?.reason.hasSuffix("--exclude leaves its module out") == true
      }
    }
    var options = Extraction.Options()
    options.excluded = [try Glob("head")]
    let adapter = try extraction(base, tuned, options).run(as: .f32, threads: 1) { _ in }.adapter
    #expect(adapter.modules.map(\.path) == ["q"])
  }
}
