import Adapters
import ArgumentParser
import Files
import JSON
import LinearAlgebra

/// `peftool combine`: several adapters made one.
struct CombineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "combine",
    abstract: "Makes one adapter of several: sums, differences, TIES, DARE and others.",
    discussion: """
      Reads adapters of PEFT and writes OUT, one adapter that PEFT loads, without loading a model. \
      A weight multiplies an adapter's whole change of the model; one of 0 takes it out. A module \
      that an adapter lacks counts as unchanged by it.

        peftool combine math code -o both
        peftool combine math code -o both --weights 0.7,-0.3 --method svd --rank 16
        peftool combine a b c -o all --method ties_svd --density 0.3

      Methods:

        \(table)

      cat is the sum itself and the default; svd is the nearest to it of --rank, the largest rank of \
      the adapters if left out. linear, ties, dare_linear, dare_ties and magnitude_prune give the \
      numbers of PEFT, which works on A and B apart: the products have cross terms, and the ranks of \
      a module have to be equal. slerp, knots and tsv work on the factors. The others form a module's \
      whole update, one module at a time, and cut what comes of it to --rank.

      With a DoRA adapter among them the sum is a DoRA adapter, exactly: of LoRA and DoRA in any \
      mixture, with cat and --base, which is read once.

        peftool combine dora-a dora-b lora -o sum --weights 1,-0.5,0.7 --base Llama-3.2-1B

      A recipe tells all of that in a file of YAML, and more: weights and densities by module and along \
      the layers. Paths in it begin in its own folder; a flag wins over the recipe where both speak. \
      Formats/recipe.md describes it. --dry-run prints what would be done with each module, and the size \
      of the result, and writes nothing; where OUT could not be written it says so.

        peftool combine --recipe merge.yaml -o both
        peftool combine --recipe merge.yaml --dry-run

      Where the add_weighted_adapter of PEFT 0.21.2 is wrong, with its error for two random adapters: \
      the norm of the difference to the sum in double precision, over the norm of that sum. The error \
      of peftool is below 1e-6 for each.

        rsLoRA, any method         1.8           the scaling of the sum is sqrt(rank), not 1
        DoRA                       0.22          trained magnitudes are lost
        LoRA and DoRA              0.08          the same, where the first is of LoRA
        lora_bias                  1             the biases of the sum are 0
        equal rank_pattern, linear not loadable  the ranks are stored, but not written down

      A sum of rsLoRA adapters is sqrt(rank) times too strong: 2.83 times for two of rank 4. With a \
      rank_pattern that one adapter alone has PEFT ends in an error; cat and svd take any ranks here. \
      Entries of equal magnitude, of which a density can keep some only, are kept from the first on; \
      PEFT's choice is open.

      --density is the share of entries that is kept; --seed chooses what is drawn by chance. The \
      adapter is the same, byte for byte, for any number of threads.

      Formats/json-output.md describes what --json prints.
      """)

  private static let table = CombinationMethod.allCases
    .map { $0.rawValue.padded(to: 20) + $0.summary }.joined(separator: "\n  ")

  @Argument(
    help: ArgumentHelp("The adapters' directories, without --recipe.", valueName: "adapter"),
    completion: .directory)
  var adapters: [String] = []

  @Option(
    help: ArgumentHelp("Take adapters and settings from a file of YAML.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var recipe: String?

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A factor for each adapter, 1 if left out.", valueName: "w,w"))
  var weights: Weights?

  @Option(help: "How they are combined; cat if left out.")
  var method: CombinationMethod?

  @Option(
    help: """
      The model that the adapters are for: a sum with DoRA adapters in it needs it, and an \
      embedding saved whole.
      """,
    completion: .file())
  var base: String?

  @OptionGroup var rank: RankOptions

  @Option(
    help: ArgumentHelp("The share of entries that is kept, 0 to 1.", valueName: "share"))
  var density: Double?

  @Option(
    name: .customLong("majority-sign"), help: "How TIES elects signs: total or frequency.")
  var majority: Election.Rule?

  @Option(
    help: ArgumentHelp(
      "The share of the largest entries that breadcrumbs drops.", valueName: "share"))
  var gamma: Double?

  @Option(
    help: ArgumentHelp("How far DELLA's probabilities lie from the density.", valueName: "share"))
  var epsilon: Double?

  @Option(help: ArgumentHelp("What random numbers are drawn from.", valueName: "n"))
  var seed: UInt64?

  @Flag(help: "Decompose by LAPACK, however large the modules.")
  var exact = false

  @Flag(help: "Print what would be done, and write nothing.")
  var dryRun = false

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    if let output { try AdapterWritingOptions.validate(output: output) }
    guard recipe == nil || adapters.isEmpty else {
      throw ValidationError("adapters beside --recipe, which names its own")
    }
    guard recipe != nil || !adapters.isEmpty else {
      throw ValidationError("Missing expected argument '<adapter> ...', or --recipe")
    }
    guard output != nil || dryRun else {
      throw ValidationError("Missing expected argument '--output <out>'")
    }
    for (name, value) in [("--density", density), ("--gamma", gamma), ("--epsilon", epsilon)] {
      guard let value else { continue }
      guard (0...1).contains(value) else {
        throw ValidationError("\(name) is \(value), expected 0 to 1")
      }
    }
    guard recipe == nil else { return }
    try weights?.validate(count: adapters.count)
    if let refusal = request(Recipe()).refusal({ "--\($0)" }) { throw ValidationError(refusal) }
  }

  /// A recipe with all that the command line says of it.
  private func request(_ recipe: Recipe) -> Recipe {
    var request = recipe
    if !adapters.isEmpty { request.adapters = adapters.map(Recipe.Adapter.init) }
    for (place, weight) in (weights?.values ?? []).enumerated() {
      request.adapters[place].weight = Parameter(weight)
    }
    if let density {
      request.density = Parameter(density)
      for place in request.adapters.indices { request.adapters[place].density = nil }
    }
    request.method = method ?? recipe.method
    request.base = base ?? recipe.base
    request.rank = rank.choice ?? recipe.rank
    request.majority = majority ?? recipe.majority
    request.gamma = gamma ?? recipe.gamma
    request.epsilon = epsilon ?? recipe.epsilon
    request.seed = seed ?? recipe.seed
    request.isExact = exact ? true : recipe.isExact
    return request
  }

  /// All that is asked for, by the recipe and by flags.
  private func request() throws -> Recipe {
    guard let path = recipe else { return request(Recipe()) }
    let recipe = try Recipe(opening: path)
    try weights?.validate(count: recipe.adapters.count)
    let request = request(recipe)
    if let refusal = request.refusal({ $0 }) {
      throw PeftoolError(.unsupported, refusal, path: path)
    }
    return request
  }

  func run() throws {
    if !dryRun { try OpenBLAS.prepare() }
    let request = try request()
    let settings = request.settings
    let base = try BaseModel(at: request.base)
    let operands = try request.adapters.map { try Operand(opening: $0.path, base: base) }
    let combination: Combination
    do throws(PeftoolError) {
      combination = try Combination(
        operands, weights: request.weights,
        densities: settings.method.hasDensity ? request.densities : nil,
        layerCount: request.layerCount, base: base, settings)
    } catch {
      throw error.at(path: recipe)
    }
    var job = output.map { ArithmeticJob(combination: combination, output: $0) }
    job?.recipe = recipe
    guard !dryRun, let job else {
      try job?.checkOutput(force: writing.force)
      let plan = CombinationPlan(combination, base: request.base, output: output)
      try StandardOutput.print(
        writing.json
          ? plan.json.text(indent: 2) + "\n" : plan.text(width: StandardOutput.width))
      return
    }
    try writing.report(job.run(writing, label: "combining"))
  }
}

extension CombinationMethod: ExpressibleByArgument {}
extension Election.Rule: ExpressibleByArgument {}

extension String {
  /// The text with spaces behind it.
  fileprivate func padded(to width: Int) -> String {
    self + String(repeating: " ", count: max(1, width - count))
  }
}
