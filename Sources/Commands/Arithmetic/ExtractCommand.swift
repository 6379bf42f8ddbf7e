import Adapters
import ArgumentParser
import Checkpoints
import Files
import LinearAlgebra
import Patterns

/// `peftool extract`: an adapter out of a model that was trained as a whole.
struct ExtractCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "extract",
    abstract: "Makes an adapter of the difference between a fine-tuned model and its base.",
    discussion: """
      Writes OUT, an adapter of PEFT that makes of BASE what is nearest to TUNED: for each linear \
      layer, embedding and convolution the LoRA update of --rank, or of the rank that keeps the \
      share --energy of its change. Both models may be sharded as they like, and quantized.

        peftool extract Llama-3.2-1B my-fine-tune -o adapter --rank 32
        peftool extract Llama-3.2-1B my-fine-tune -o adapter --energy 0.9 --dora
        peftool extract Llama-3.2-1B my-fine-tune -o adapter --rank 16 --save lm_head
        peftool extract Llama-3.2-1B my-fine-tune -o adapter --auto budget --mean-rank 16

      --auto finds the rank of each module and prints a table that tells why: by energy the least that \
      keeps --energy; by effective-rank the exponential of the entropy of the singular values; by \
      budget the ranks, 1 at least, that keep the most energy of all changes together for --budget \
      parameters, or for as many as --mean-rank takes in every module.

      With --dora the adapter is of DoRA, whose magnitudes take the rows' change of length off the \
      low-rank part: of the same rank it is never further from TUNED than LoRA.

      Norms, and what else has no low-rank update, are saved whole where they have changed, as are \
      modules that match --save. Biases become lora_bias; where a layer has none, or with --dora, \
      they are saved whole. Modules that match --exclude stay out, whether they match --save or \
      not, and their change is lost; their shapes may differ. Of \
      tied embeddings the update is written for both ends (ensure_weight_tying).

      With --shira the adapter is a sparse change of the weights, in the format of PEFT's SHiRA: of \
      each linear layer the largest entries of TUNED - BASE, as many as --rank gives a LoRA numbers, or \
      the share --density. Embeddings, and layers whose bias has changed, are saved whole.

        peftool extract Llama-3.2-1B my-fine-tune -o sparse --shira --density 0.01

      The report tells how large the change is beside BASE, and by module how much of \
      norm(TUNED - BASE)^2 the adapter keeps. Large changes are \
      decomposed by a randomized method, whose singular values are within a thousandth of LAPACK's; \
      --exact takes LAPACK. The bytes are the same for any number of threads.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The model that was trained.", completion: .file())
  var base: String

  @Argument(help: "What came of it.", completion: .file())
  var tuned: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @OptionGroup var rank: AutomaticRankOptions

  @Flag(help: "Make a DoRA adapter.")
  var dora = false

  @Flag(help: "Make a sparse adapter, as PEFT's SHiRA is, with --rank or --density.")
  var shira = false

  @Option(
    help: ArgumentHelp("With --shira: the share of each change's entries.", valueName: "share"))
  var density: Double?

  @Option(
    help: ArgumentHelp("Save modules whole that match.", valueName: "glob"),
    transform: { try Glob($0) })
  var save: [Glob] = []

  @Option(
    help: ArgumentHelp("Leave out modules that match.", valueName: "glob"),
    transform: { try Glob($0) })
  var exclude: [Glob] = []

  @Option(help: ArgumentHelp("What random numbers are drawn from.", valueName: "n"))
  var seed: UInt64 = 0

  @Flag(help: "Decompose by LAPACK, however large the modules.")
  var exact = false

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    try AdapterWritingOptions.validate(output: output)
    if let density {
      guard shira else { throw ValidationError("--density goes with --shira") }
      guard density > 0, density <= 1 else {
        throw ValidationError("--density is \(density), expected more than 0 and at most 1")
      }
    }
    guard !shira else {
      guard !dora, !exact, sparseSize != nil else {
        throw ValidationError(
          "--shira goes with one of --rank and --density, and without --dora and --exact")
      }
      return
    }
    guard rank.choice != nil || rank.allBudget != nil else {
      throw ValidationError("Missing --rank, or --energy, --auto and the like: how much is kept")
    }
    switch rank.choice {
    case .fixed, .energy: break
    default:
      guard !dora else {
        throw ValidationError("--dora goes with --rank, --energy, --auto energy or --sv-fro")
      }
    }
  }

  /// How many entries a sparse change has; nil where not one thing says it.
  private var sparseSize: SparseSelection.Size? {
    switch (rank.choice, rank.allBudget, density) {
    case (.fixed(let rank)?, nil, nil): .rank(rank)
    case (nil, nil, let density?): .density(density)
    default: nil
    }
  }

  /// How it is done, as a word and a line.
  private var method: (name: String, summary: String) {
    if shira { return ("shira", "the largest entries of each change") }
    return dora
      ? ("dora", "the nearest DoRA update of each module")
      : ("lora", "the nearest LoRA update of each module")
  }

  func run() throws {
    try OpenBLAS.prepare()
    var options = Extraction.Options()
    if let choice = rank.choice { options.rank = choice }
    options.budget = rank.allBudget
    options.isDoRA = dora
    options.saved = save
    options.excluded = exclude
    options.decomposition.isExact = exact
    options.decomposition.seed = seed
    let base = try BaseModel(Checkpoint(opening: base).adaptable)
    let tuned = try BaseModel(Checkpoint(opening: tuned).adaptable)
    let arithmetic: any AdapterArithmetic
    if shira, let sparseSize {
      arithmetic = try SparseSelection(base: base, tuned: tuned, options, keeping: sparseSize)
    } else {
      arithmetic = try Extraction(base: base, tuned: tuned, options)
    }
    let job = ArithmeticJob(
      arithmetic: arithmetic, method: method, output: output, showsRanks: rank.auto != nil)
    try writing.report(job.run(writing, label: "extracting"))
  }
}
