import ArgumentParser
import Training

/// What GaLore has to be told besides: how gradients are projected.
struct GaLoreOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The steps from one subspace of the gradients to the next; 200 if left out.",
      valueName: "n"))
  var updateProjGap: Int?

  @Option(
    help: ArgumentHelp(
      "What steps in the subspace are multiplied by; 0.25 if left out.", valueName: "x"))
  var scale: Double?

  @Option(
    help: ArgumentHelp(
      "The sides of gradients that are projected: \(projections); std if left out, which is the "
        + "shorter one.", valueName: "type"),
    transform: { text in
      guard let type = GaLore.Projection(rawValue: text.replacing("-", with: "_")) else {
        throw ValidationError("--proj-type is '\(text)', expected one of \(Self.projections)")
      }
      return type
    })
  var projType: GaLore.Projection?

  private static var projections: String {
    GaLore.Projection.allCases.map(\.rawValue).joined(separator: ", ")
  }

  /// The options that are given, for a message.
  var given: [String] {
    [
      ("--update-proj-gap", updateProjGap != nil), ("--scale", scale != nil),
      ("--proj-type", projType != nil),
    ].filter(\.1).map(\.0)
  }

  func validate() throws {
    if let updateProjGap, !(1...1_000_000_000).contains(updateProjGap) {
      throw ValidationError("--update-proj-gap is \(updateProjGap), expected 1 to 1000000000")
    }
    if let scale, !(scale > 0 && scale.isFinite) {
      throw ValidationError("--scale is \(scale), expected a number above 0")
    }
  }

  /// The settings, with the rank and the weight decay that others have.
  func settings(rank: Int, weightDecay: Double) -> GaLore.Settings {
    var settings = GaLore.Settings()
    settings.rank = rank
    settings.weightDecay = weightDecay
    if let updateProjGap { settings.gap = updateProjGap }
    if let scale { settings.scale = scale }
    if let projType { settings.projection = projType }
    return settings
  }
}
