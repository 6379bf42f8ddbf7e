import Adapters
import ArgumentParser
import LinearAlgebra
import Reports

/// `peftool prune`: an adapter with less in it.
struct PruneCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prune",
    abstract: "Drops the small entries of an adapter, and modules that change little.",
    discussion: """
      Writes OUT, an adapter that PEFT loads, without what counts least in ADAPTER. One of --density, \
      --min-norm and --min-share is needed; --density goes with each of the others.

        peftool prune my-adapter --density 0.5 -o sparse
        peftool prune my-adapter --density 0.2 --delta --energy 0.95 -o low
        peftool prune my-adapter --min-share 0.1 -o short

      --density keeps that share of each module's entries, the largest by magnitude. Without --delta \
      they are those of A and B together: each rank is first rescaled so that its row of A and its \
      column of B are of one length, which changes nothing of B*A; otherwise one of the two would be \
      emptied. Ranks that become empty are taken out. The file is smaller by those ranks alone, since \
      PEFT stores zeros, too; peftool convert -o OUT.zst packs them away. With --delta the entries are \
      those of the whole update s*B*A, one module at a time, and what is left is cut to the module's \
      own rank, or as --rank, --energy and the like say: it is dense again in A and B.

      With --delta --shira the entries are written as they are, a sparse change of the weights of any \
      rank, in the format of PEFT's SHiRA: of linear layers, without biases, and of LoRA.

        peftool prune my-adapter --density 0.01 --delta --shira -o sparse

      --min-norm drops modules whose change has a smaller Frobenius norm, --min-share those with less \
      than that share of the largest norm in the adapter. Without --density what stays is not touched, \
      bit for bit.

      Of a DoRA adapter the magnitudes stay as they are: a row of the merged weight keeps its length, \
      which is what m means, and no base is needed. With --base the scaling of rows stays, m divided \
      by the norm of W + s*B*A, by another m: what is dropped is then gone from the change of the \
      model, and nothing else differs. Which of the two is nearer to the old model depends on the \
      adapter; they lose about the same. The norm of a DoRA module is that of its whole change, \
      direction and magnitude, and takes --base; without it module norms are refused, and kept energy \
      is that of s*B*A.

        peftool prune dora-a --density 0.5 --min-share 0.1 --base Llama-3.2-1B -o pruned

      The kept energy of a module is 1 less the squared norm of what has changed over the squared norm \
      of what there was. Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The adapter's directory.", completion: .directory)
  var adapter: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: ArgumentHelp(
      "The share of entries that is kept, more than 0 and at most 1.", valueName: "share"))
  var density: Double?

  @Flag(help: "Drop entries of whole updates, not of A and B.")
  var delta = false

  @Flag(help: "Write the entries of updates as a sparse change, as PEFT's SHiRA does.")
  var shira = false

  @OptionGroup var rank: RankOptions

  @Flag(help: "Decompose by LAPACK, however large the modules; with --delta.")
  var exact = false

  @Option(
    name: .customLong("min-norm"),
    help: ArgumentHelp("Drop modules whose change has a smaller norm.", valueName: "x"))
  var norm: Double?

  @Option(
    name: .customLong("min-share"),
    help: ArgumentHelp(
      "Drop modules with a smaller share of the largest norm.", valueName: "share"))
  var share: Double?

  @Option(help: "The model that a DoRA adapter is for.", completion: .file())
  var base: String?

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    try AdapterWritingOptions.validate(output: output)
    guard density != nil || norm != nil || share != nil else {
      throw ValidationError("one of --density, --min-norm and --min-share is needed")
    }
    guard norm == nil || share == nil else {
      throw ValidationError("one of --min-norm and --min-share at most")
    }
    for (name, share) in [("--density", density), ("--min-share", share)] {
      guard let share else { continue }
      guard share > 0, share <= 1 else {
        throw ValidationError("\(name) is \(share), expected more than 0 and at most 1")
      }
    }
    if let norm, !(norm > 0) || !norm.isFinite {
      throw ValidationError("--min-norm is \(norm), expected more than 0")
    }
    if delta, density == nil {
      throw ValidationError("--delta needs --density, the share that is kept")
    }
    if !delta, rank.choice != nil {
      throw ValidationError("a rank goes with --delta; peftool resize cuts an adapter to one")
    }
    if shira, !delta { throw ValidationError("--shira goes with --delta") }
    if shira, rank.choice != nil || exact || norm != nil || share != nil {
      throw ValidationError(
        "--shira goes with --density and --delta, and no rank, --exact, --min-norm or --min-share")
    }
    if exact, !delta { throw ValidationError("--exact goes with --delta") }
  }

  private var settings: PruningSettings {
    PruningSettings(
      entries: density.map {
        delta
          ? .update(density: $0, rank: rank.choice, isExact: exact) : .factors(density: $0)
      },
      modules: norm.map { .norm($0) } ?? share.map { .share($0) })
  }

  /// What is done, as a word and a line.
  private var method: (name: String, summary: String) {
    let kept = (density ?? 1).percentText
    if shira { return ("shira", "\(kept) of the entries of updates, as a sparse change") }
    return switch settings.entries {
    case nil: ("modules", "those with small norms are dropped")
    case .factors: ("factors", "\(kept) of the entries of A and B, balanced")
    case .update: ("update", "\(kept) of the entries of updates, then the nearest of a rank")
    }
  }

  func run() throws {
    try OpenBLAS.prepare()
    let base = try BaseModel(at: base)
    let operand = try Operand(opening: adapter, base: base)
    let arithmetic: any AdapterArithmetic
    if shira, let density {
      arithmetic = try SparseSelection(operand, base: base, keeping: .density(density))
    } else {
      arithmetic = try Pruning(operand, base: base, settings)
    }
    let job = ArithmeticJob(arithmetic: arithmetic, method: method, output: output)
    try writing.report(job.run(writing, label: "pruning"))
  }
}
