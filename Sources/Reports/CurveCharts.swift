/// Small pictures of descending numbers, as SVG: one for each kind of module, in it a curve for
/// each layer, from dark for the first to pale for the last.
///
/// Each curve is drawn as shares of its largest number.
package struct CurveCharts {
  private let charts: [(title: String, curves: [(layer: Int, values: [Double])])]

  private static let width = 220
  private static let height = 110
  private static let top = 20

  /// Charts of the numbers of each module.
  package init(_ modules: [(path: String, values: [Double])]) {
    var charts: [(title: String, curves: [(layer: Int, values: [Double])])] = []
    var places: [String: Int] = [:]
    for (path, values) in modules {
      let place = ModulePlace(path)
      let title = place.layer == nil ? path : "\(place.container).*.\(place.kind)"
      let chart = places[title] ?? charts.count
      if chart == charts.count {
        places[title] = chart
        charts.append((title, []))
      }
      charts[chart].curves.append((place.layer ?? 0, values))
    }
    self.charts = charts
  }

  /// The pictures, as parts of a page.
  package var markup: String {
    "<div class=\"charts\">\(charts.map(svg).joined(separator: "\n"))</div>"
  }

  private func svg(_ chart: (title: String, curves: [(layer: Int, values: [Double])])) -> String {
    let last = max(1, chart.curves.map(\.layer).max() ?? 1)
    let count = chart.curves.map(\.values.count).max() ?? 0
    let lines = chart.curves.map { layer, values in
      let color = Color.mix((128, 0, 38), (254, 178, 76), Double(layer) / Double(last))
      return "<polyline fill=\"none\" stroke=\"\(color)\" points=\"\(points(values, of: count))\"/>"
    }
    let title = chart.title
    let bottom = Self.top + Self.height
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(Self.width + 16)\" "
      + "height=\"\(bottom + 20)\" role=\"img\" aria-label=\"\(title.markupText)\">"
      + "<title>\(title.markupText)</title>"
      + "<text x=\"4\" y=\"13\">\(title.shortenedInTheMiddle(to: 32).markupText)</text>"
      + "<path d=\"M4 \(Self.top)V\(bottom)H\(Self.width + 4)\" fill=\"none\" stroke=\"#999\"/>"
      + lines.joined()
      + "<text x=\"4\" y=\"\(bottom + 15)\">1</text>"
      + "<text x=\"\(Self.width + 4)\" y=\"\(bottom + 15)\" text-anchor=\"end\">\(count)</text>"
      + "</svg>"
  }

  private func points(_ values: [Double], of count: Int) -> String {
    let largest = values.first ?? 0
    return values.enumerated().map { place, value in
      let x = 4 + Double(Self.width * place) / Double(max(1, count - 1))
      let share = largest > 0 ? value / largest : 0
      let y = Double(Self.top) + Double(Self.height) * (1 - share)
      return "\(x.fixed(1)),\(y.fixed(1))"
    }.joined(separator: " ")
  }
}
