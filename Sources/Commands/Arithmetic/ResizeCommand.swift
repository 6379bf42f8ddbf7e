import Adapters
import ArgumentParser
import Files
import LinearAlgebra

/// `peftool resize`: an adapter of another rank.
struct ResizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resize",
    abstract: "Cuts an adapter to a rank, or to a share of its energy.",
    discussion: """
      Writes OUT, by module the nearest update of the rank that is asked for: by singular values, \
      from the factors, without a base model. With a share every module gets the rank that it needs, \
      written as rank_pattern.

        peftool resize my-adapter --rank 8 -o small
        peftool resize my-adapter --energy 0.95 -o small
        peftool resize my-adapter --auto budget --mean-rank 4 -o small

      --auto finds the rank of each module and prints a table that tells why. By energy it is the least \
      that keeps --energy of the squares of the singular values; by effective-rank the exponential of \
      their entropy, rounded up (Roy and Vetterli 2007). By budget all modules share a number of \
      parameters, --budget of them or what --mean-rank takes in every module: of all ranks that fit, \
      1 at least in each module, those that keep the most energy together, exactly.

      Each module keeps its scaling: alpha over the rank stays what it was, and of rsLoRA alpha over \
      its root.

      --sv-ratio, --sv-fro and --sv-cumulative are those of kohya's resize_lora.py, which keeps one \
      singular value more than its rule asks for; peftool does not. A rank above the adapter's \
      changes nothing.

      Of a DoRA adapter the nearest of a rank is found with --base: low-rank part and magnitudes \
      together. Without it the low-rank part alone is cut, which keeps less.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The adapter's directory.", completion: .directory)
  var adapter: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: "The model that a DoRA adapter is for, with which the nearest of a rank is found.",
    completion: .file())
  var base: String?

  @OptionGroup var rank: AutomaticRankOptions

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    try AdapterWritingOptions.validate(output: output)
    guard rank.choice != nil || rank.allBudget != nil else {
      throw ValidationError(
        "one of --rank, --energy, --effective, --sv-ratio, --sv-fro, --sv-cumulative and --auto is "
          + "needed")
    }
  }

  func run() throws {
    try OpenBLAS.prepare()
    var settings = CombinationSettings()
    settings.method = .svd
    settings.rank = rank.choice
    settings.budget = rank.allBudget
    settings.keepsScaling = true
    let base = try BaseModel(at: base)
    let combination = try Combination(
      [Operand(opening: adapter, base: base)], weights: [1], base: base, settings)
    let job = ArithmeticJob(
      arithmetic: combination, method: ("resize", "the nearest \(rank.summary)"), output: output,
      showsRanks: rank.auto != nil)
    try writing.report(job.run(writing, label: "resizing"))
  }
}
