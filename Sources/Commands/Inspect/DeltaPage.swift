import Adapters
import Reports

/// An adapter's updates as one page for a browser: maps of their norms and effective ranks by layer
/// and kind of module, their singular values, and a table.
struct DeltaPage {
  let title: String
  let deltas: AdapterDeltas

  /// The page's text.
  var text: String {
    let modules = deltas.modules
    var page = Page(
      title,
      facts: [
        ("updates", deltas.sentence),
        (
          "effective rank",
          "the exponential of the entropy of σ / Σσ: how many singular values do the work"
        ), ("stable rank", "Σσ² / σ₁²"),
      ])
    page.append(norms.title, markup: norms.map.markup + "\n<p>Darker is larger.</p>")
    let ranks = HeatMap(
      "Effective rank",
      modules.map {
        .init(
          module: $0.path, value: $0.effectiveRank,
          text: "\($0.effectiveRank.fixed(2)) of rank \($0.rank)")
      }, dark: .most, format: { $0.fixed(1) })
    page.append("Effective rank", markup: ranks.markup + "\n<p>Darker is larger.</p>")
    page.append(
      "Singular values",
      markup: CurveCharts(modules.map { ($0.path, $0.singularValues) }).markup
        + "\n<p>As shares of the largest; a curve for each layer, the first layers darker.</p>")
    let table = deltas.table()
    page.append("Modules", columns: table.titles, rows: table.rows)
    return page.text
  }

  /// The map of what the updates change: of DoRA the whole change, where a base tells it.
  private var norms: (title: String, map: HeatMap) {
    let modules = deltas.modules
    let hasShares = modules.contains { $0.share != nil }
    let hasChanges = modules.contains { $0.changeShare != nil }
    let title =
      if hasChanges {
        "Norm of the change W' - W as a share of the weight's"
      } else if hasShares {
        "Norm of s·B·A as a share of the weight's"
      } else {
        "Norm of s·B·A"
      }
    let format: (Double) -> String = hasShares ? { $0.percentText } : { $0.measureText }
    let map = HeatMap(
      title,
      modules.map {
        let value = hasShares ? $0.changeShare ?? $0.share ?? .nan : $0.norm
        return .init(module: $0.path, value: value, text: value.isNaN ? "-" : format(value))
      }, dark: .most, format: format)
    return (title, map)
  }
}
