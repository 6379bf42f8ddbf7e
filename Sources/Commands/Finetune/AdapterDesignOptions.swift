import Adapters
import ArgumentParser
import Files
import Training

/// What adapter is trained.
struct AdapterDesignOptions: ParsableArguments {
  /// The methods of training.
  enum Method: String, CaseIterable, ExpressibleByArgument {
    case lora
    case loraFA = "lora-fa"
    case qaLoRA = "qa-lora"
    case adaLoRA = "adalora"
    case shira, galore, full

    /// Whether the model itself is trained, and not an adapter.
    var trainsModel: Bool { self == .galore || self == .full }
    /// Whether weights themselves are trained, in f32.
    var takesWeights: Bool { trainsModel || self == .shira }
  }

  @Option(
    help: ArgumentHelp(
      "How it is trained: lora, lora-fa (A frozen), qa-lora (on an int4 base, to merge into it), "
        + "adalora (ranks shared out over the layers), shira (a few entries of the weights); or all "
        + "of the model: full, or galore (with projected gradients).",
      valueName: "method"))
  var method = Method.lora

  /// A rank, or the wish that it be found.
  enum Rank: ExpressibleByArgument {
    case fixed(Int)
    case auto

    init?(argument: String) {
      if argument == "auto" { self = .auto; return }
      guard let rank = Int(argument) else { return nil }
      self = .fixed(rank)
    }
  }

  @Option(
    help: ArgumentHelp(
      "The rank; 8 if left out, 128 of GaLore. auto finds each layer's while it is trained.",
      valueName: "r"))
  var rank: Rank?

  @Option(
    help: ArgumentHelp(
      "The share of the entries of A and B that are 0 in the end: the smallest, more and more of "
        + "them until half of the steps.", valueName: "share"))
  var sparsity: Double?

  @Option(
    help: ArgumentHelp("Scales the update by alpha / rank; twice the rank if left out."))
  var alpha: Double?

  @Option(
    help: ArgumentHelp(
      "The share of an adapter's inputs that are left out at random; 0 if left out, or what the "
        + "adapter of --adapter has.", valueName: "share"))
  var dropout: Double?

  @Option(
    name: .customLong("rank-pattern"),
    help: ArgumentHelp(
      "The rank of the layers whose path ends as an expression says; may be repeated.",
      valueName: "layers=r"))
  var rankPatterns: [String] = []

  @Option(
    name: .customLong("alpha-pattern"),
    help: ArgumentHelp("The same of alpha.", valueName: "layers=alpha"))
  var alphaPatterns: [String] = []

  @Option(
    help: ArgumentHelp(
      "Which entries --method shira trains: random, or magnitude, the largest; random if left out.",
      valueName: "entries"))
  var mask: SparseWeights.Mask?

  @Flag(name: .customLong("rslora"), help: "Scale by alpha / sqrt(rank).")
  var rsLoRA = false

  @Flag(help: "Train a DoRA adapter.")
  var dora = false

  @Flag(help: "Train what B adds besides, too (lora_bias).")
  var loraBias = false

  @Option(
    name: .customLong("adapter"),
    help: ArgumentHelp(
      "Go on from an adapter that PEFT has saved, or finetune, with its settings.",
      valueName: "folder"), completion: .directory)
  var existing: String?

  @Option(
    help: ArgumentHelp(
      "The layers that get adapters: all-linear, names such as q_proj,v_proj, or a regular "
        + "expression for the whole path; all-linear if left out.", valueName: "layers"))
  var targetModules: String?

  @Option(
    name: .customLong("init"),
    help: ArgumentHelp(
      "How A and B begin: \(AdapterStart.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "start"))
  var start: AdapterStart?

  /// The forms that a base can be brought to.
  enum Quantization: String, CaseIterable, ExpressibleByArgument {
    case nf4
  }

  @Option(
    help: ArgumentHelp(
      "Quantize the base while it is loaded: nf4, with double quantization.", valueName: "type"))
  var quantize: Quantization?

  /// Whether ranks are found while they are trained.
  var searchesRanks: Bool { if case .auto = rank { true } else { false } }
  /// The rank that is used where no pattern says another, and none is to be found.
  var usedRank: Int {
    if case .fixed(let rank) = rank { rank } else { method == .galore ? 128 : 8 }
  }
  static let rankRange = 1...65_536

  func validate() throws {
    try Self.check("--rank", usedRank)
    if let sparsity, !(sparsity > 0 && sparsity < 1) {
      throw ValidationError("--sparsity is \(sparsity), expected more than 0 and less than 1")
    }
    if let alpha { try Self.check("--alpha", alpha) }
    if let dropout, !(dropout >= 0 && dropout <= 0.99) {
      throw ValidationError("--dropout is \(dropout), expected 0 to 0.99")
    }
    for (key, value) in try Self.patterns(rankPatterns, "--rank-pattern", Int.init) {
      try Self.check("--rank-pattern \(key)", value)
    }
    for (key, value) in try Self.patterns(alphaPatterns, "--alpha-pattern", Double.init) {
      try Self.check("--alpha-pattern \(key)", value)
    }
    guard !loraBias || !dora else {
      throw ValidationError("--lora-bias goes without --dora, as in PEFT")
    }
    guard !loraBias || start ?? .uniform == .uniform else {
      throw ValidationError("--lora-bias goes without --init, as in PEFT")
    }
    guard start != .loftq || quantize != nil else {
      throw ValidationError("--init loftq makes up for a quantization: it goes with --quantize nf4")
    }
    try checkExisting()
    try checkMethod()
  }

  /// The options of adapters that are given, for a message.
  private var given: [String] {
    [
      ("--rank", rank != nil && method == .full), ("--alpha", alpha != nil),
      ("--dropout", dropout != nil), ("--rank-pattern", !rankPatterns.isEmpty),
      ("--alpha-pattern", !alphaPatterns.isEmpty), ("--rslora", rsLoRA), ("--dora", dora),
      ("--lora-bias", loraBias), ("--adapter", existing != nil),
      ("--target-modules", targetModules != nil), ("--init", start != nil),
      ("--quantize", quantize != nil), ("--sparsity", sparsity != nil),
    ].filter(\.1).map(\.0)
  }

  /// Refuses what a method has no use for.
  private func checkMethod() throws {
    if mask != nil, method != .shira {
      throw ValidationError("--mask goes with --method shira")
    }
    if method == .shira, let name = given.first(where: { $0 != "--target-modules" }) {
      throw ValidationError("\(name) goes without --method shira, which has no A and B")
    }
    if method.trainsModel, let name = given.first {
      throw ValidationError(
        "\(name) is for adapters, and --method \(method.rawValue) trains the model itself")
    }
    if searchesRanks {
      let given: [(String, Bool, String)] = [
        ("--method \(method.rawValue)", method != .lora, ", which is of LoRA and DoRA"),
        ("--rank-pattern", !rankPatterns.isEmpty, ", which finds ranks by itself"),
        ("--alpha-pattern", !alphaPatterns.isEmpty, ", which keeps one scale"),
        ("--adapter", existing != nil, ", which begins anew"),
        ("--sparsity", sparsity != nil, ", which turns A and B"),
        (
          "--init \(start?.rawValue ?? "")", start?.takesFromWeight == true,
          ": its frozen rows have ranks of their own"
        ),
      ]
      if let (name, _, reason) = given.first(where: \.1) {
        throw ValidationError("\(name) goes without --rank auto\(reason)")
      }
    }
    if sparsity != nil, start?.takesFromWeight == true {
      throw ValidationError(
        "--sparsity goes without --init \(start?.rawValue ?? ""): its frozen rows are dense")
    }
    let isPlain = method == .lora
    let isPooled = method == .qaLoRA
    let given: [(String, Bool, String)] = [
      ("--adapter", existing != nil && !isPlain, "which begins anew"),
      ("--dora", dora && !isPlain, "as in PEFT"),
      ("--lora-bias", loraBias && !isPlain, "as in PEFT"),
      ("--sparsity", sparsity != nil && !isPlain, "which has its own way with A and B"),
      ("--rslora", rsLoRA && method == .adaLoRA, "whose scale is alpha / init-r"),
      ("--rank-pattern", !rankPatterns.isEmpty && method == .adaLoRA, "which shares ranks out"),
      ("--alpha-pattern", !alphaPatterns.isEmpty && method == .adaLoRA, "which has one for all"),
      ("--init", start != nil && method == .adaLoRA, "which has its own start"),
      (
        "--init", isPooled && ![nil, .uniform, .gaussian].contains(start),
        "whose A has a column for each group of inputs"
      ),
      ("--quantize", isPooled && quantize != nil, "whose base is in int4"),
    ]
    guard let (name, _, reason) = given.first(where: \.1) else { return }
    throw ValidationError("\(name) goes without --method \(method.rawValue), \(reason)")
  }

  /// With `--adapter` all else is settled but what is drawn anew.
  private func checkExisting() throws {
    guard existing != nil else { return }
    let given: [(String, Bool)] = [
      ("--rank", rank != nil), ("--alpha", alpha != nil), ("--rslora", rsLoRA), ("--dora", dora),
      ("--lora-bias", loraBias), ("--target-modules", targetModules != nil),
      ("--init", start != nil), ("--rank-pattern", !rankPatterns.isEmpty),
      ("--alpha-pattern", !alphaPatterns.isEmpty),
    ]
    guard let (name, _) = given.first(where: \.1) else { return }
    throw ValidationError("\(name) goes without --adapter, which has its own settings")
  }

  private static func check(_ name: String, _ rank: Int) throws {
    guard rankRange.contains(rank) else {
      throw ValidationError("\(name) is \(rank), expected 1 to \(rankRange.upperBound)")
    }
  }

  private static func check(_ name: String, _ alpha: Double) throws {
    guard alpha > 0, alpha.isFinite else {
      throw ValidationError("\(name) is \(alpha), expected more than 0")
    }
  }

  /// What stands on both sides of the last equals sign.
  private static func patterns<Value>(
    _ texts: [String], _ name: String, _ read: (String) -> Value?
  ) throws -> [(key: String, value: Value)] {
    try texts.map { text in
      guard let sign = text.lastIndex(of: "="), sign > text.startIndex,
        let value = read(String(text[text.index(after: sign)...]))
      else {
        throw ValidationError("\(name) is '\(text)', expected an expression, = and a number")
      }
      return (String(text[..<sign]), value)
    }
  }

  private static func modulePatterns<Value>(
    _ texts: [String], _ name: String, _ read: (String) -> Value?
  ) throws -> [ModulePattern<Value>] {
    try patterns(texts, name, read).map { (key, value) in
      try naming(name) { () throws(PeftoolError) in try ModulePattern(key: key, value: value) }
    }
  }

  /// Puts an option's name before what is wrong with its value.
  private static func naming<Result>(
    _ name: String, _ body: () throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> Result {
    do throws(PeftoolError) {
      return try body()
    } catch {
      throw PeftoolError(error.kind, "\(name): \(error.reason)")
    }
  }

  /// The design, with A drawn from a seed.
  ///
  /// - Parameter targets: the layers that get adapters where no option names them.
  /// - Throws: as `TargetModules` and `ModulePattern`.
  func design(
    _ method: MethodSettings, seed: UInt64, targets: String = TargetModules.allLinearName
  ) throws -> AdapterDesign {
    var design = AdapterDesign()
    design.method = method
    design.rank = usedRank
    if case .rankSearch(let settings) = method { design.rank = settings.initialRank }
    design.alpha = alpha ?? Double(2 * design.rank)
    design.dropout = dropout ?? 0
    design.usesRSLoRA = rsLoRA
    design.usesDoRA = dora
    design.hasBias = loraBias
    design.targets = try Self.naming("--target-modules") { () throws(PeftoolError) in
      try TargetModules(targetModules ?? targets)
    }
    design.rankPatterns = try Self.modulePatterns(rankPatterns, "--rank-pattern", Int.init)
    design.alphaPatterns = try Self.modulePatterns(alphaPatterns, "--alpha-pattern", Double.init)
    design.start = start ?? .uniform
    design.seed = seed
    return design
  }
}

extension AdapterStart: ExpressibleByArgument {}
extension SparseWeights.Mask: ExpressibleByArgument {}
