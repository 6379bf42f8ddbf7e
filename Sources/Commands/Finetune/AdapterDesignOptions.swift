import ArgumentParser
import Files
import Training

/// What adapter is trained.
struct AdapterDesignOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The rank.", valueName: "r"))
  var rank = 8

  @Option(
    help: ArgumentHelp("Scales the update by alpha / rank; twice the rank if left out."))
  var alpha: Double?

  @Flag(name: .customLong("rslora"), help: "Scale by alpha / √rank.")
  var rsLoRA = false

  @Flag(help: "Train a DoRA adapter.")
  var dora = false

  @Option(
    help: ArgumentHelp(
      "The layers that get adapters: all-linear, names such as q_proj,v_proj, or a regular "
        + "expression for the whole path.", valueName: "layers"))
  var targetModules = TargetModules.allLinearName

  @Option(
    name: .customLong("init"),
    help: ArgumentHelp(
      "How A begins: \(AdapterDesign.Start.allCases.map(\.rawValue).joined(separator: " or ")).",
      valueName: "start"))
  var start = AdapterDesign.Start.uniform

  /// The forms that a base can be brought to.
  enum Quantization: String, CaseIterable, ExpressibleByArgument {
    case nf4
  }

  @Option(
    help: ArgumentHelp(
      "Quantize the base while it is loaded: nf4, with double quantization.", valueName: "type"))
  var quantize: Quantization?

  func validate() throws {
    guard (1...65_536).contains(rank) else {
      throw ValidationError("--rank is \(rank), expected 1 to 65536")
    }
    if let alpha, !(alpha > 0 && alpha.isFinite) {
      throw ValidationError("--alpha is \(alpha), expected more than 0")
    }
  }

  /// The design, with A drawn from a seed.
  ///
  /// - Throws: as `TargetModules`.
  func design(seed: UInt64) throws(PeftoolError) -> AdapterDesign {
    var design = AdapterDesign()
    design.rank = rank
    design.alpha = alpha ?? Double(2 * rank)
    design.usesRSLoRA = rsLoRA
    design.usesDoRA = dora
    design.targets = try TargetModules(targetModules)
    design.start = start
    design.seed = seed
    return design
  }
}

extension AdapterDesign.Start: ExpressibleByArgument {}
