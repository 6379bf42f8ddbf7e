/// Curves over a common axis, as SVG.
package struct LineChart {
  /// A curve: points from left to right, and how it is drawn.
  package struct Curve {
    let name: String
    let points: [(x: Double, y: Double)]
    let isMarked: Bool

    /// Points that are joined by lines; `isMarked` draws each as a dot, too.
    package init(_ name: String, _ points: [(x: Double, y: Double)], isMarked: Bool = false) {
      self.name = name
      self.points = points.filter { $0.x.isFinite && $0.y.isFinite }
      self.isMarked = isMarked
    }
  }

  private let label: String
  private let curves: [Curve]

  private static let width = 720.0
  private static let height = 260.0
  private static let left = 60.0
  private static let top = 24.0
  private static let colors = ["#3b6fb6", "#c2410c", "#15803d", "#7c3aed"]
  /// More points than the picture is wide show nothing more.
  private static let maximumPointCount = 1_000

  /// A chart; the label is plain text for the axis from left to right.
  package init(_ label: String, _ curves: [Curve]) {
    self.label = label
    self.curves = curves.filter { !$0.points.isEmpty }
  }

  /// The picture, as a part of a page; empty where there is no point.
  package var markup: String {
    let points = curves.flatMap(\.points)
    guard let lowX = points.map(\.x).min(), let highX = points.map(\.x).max(),
      let lowY = points.map(\.y).min(), let highY = points.map(\.y).max()
    else { return "" }
    let (spanX, spanY) = (max(highX - lowX, 1e-12), max(highY - lowY, 1e-12))
    func place(_ point: (x: Double, y: Double)) -> (x: Double, y: Double) {
      (
        Self.left + (point.x - lowX) / spanX * Self.width,
        Self.top + (highY - point.y) / spanY * Self.height
      )
    }
    let bottom = Self.top + Self.height
    var parts = [
      "<path d=\"M\(Self.left.fixed(0)) \(Self.top.fixed(0))V\(bottom.fixed(0))"
        + "H\((Self.left + Self.width).fixed(0))\" fill=\"none\" stroke=\"#999\"/>",
      text(Self.left - 6, Self.top + 4, highY.measureText, "end"),
      text(Self.left - 6, bottom, lowY.measureText, "end"),
      text(Self.left, bottom + 16, lowX.measureText, "middle"),
      text(Self.left + Self.width, bottom + 16, highX.measureText, "end"),
      text(Self.left + Self.width / 2, bottom + 16, label, "middle"),
    ]
    for (number, curve) in curves.enumerated() {
      let color = Self.colors[number % Self.colors.count]
      let places = Self.thinned(curve.points).map(place)
      let line = places.map { "\($0.x.fixed(1)),\($0.y.fixed(1))" }.joined(separator: " ")
      parts.append(
        "<polyline fill=\"none\" stroke=\"\(color)\" stroke-width=\"1.5\" points=\"\(line)\"/>")
      if curve.isMarked {
        parts += places.map {
          "<circle cx=\"\($0.x.fixed(1))\" cy=\"\($0.y.fixed(1))\" r=\"3\" fill=\"\(color)\"/>"
        }
      }
      let x = Self.left + 20 + 160 * Double(number)
      parts.append(
        "<rect x=\"\(x.fixed(0))\" y=\"4\" width=\"12\" height=\"12\" fill=\"\(color)\"/>")
      parts.append(text(x + 18, 14, curve.name, "start"))
    }
    let width = Self.left + Self.width + 10
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width.fixed(0))\" "
      + "height=\"\((bottom + 24).fixed(0))\" role=\"img\" aria-label=\"\(label.markupText)\">"
      + parts.joined() + "</svg>"
  }

  private func text(_ x: Double, _ y: Double, _ text: String, _ anchor: String) -> String {
    "<text x=\"\(x.fixed(0))\" y=\"\(y.fixed(0))\" text-anchor=\"\(anchor)\">\(text.markupText)</text>"
  }

  private static func thinned(_ points: [(x: Double, y: Double)]) -> [(x: Double, y: Double)] {
    let step = (points.count + maximumPointCount - 1) / maximumPointCount
    guard step > 1 else { return points }
    return points.enumerated().filter { $0.offset % step == 0 || $0.offset == points.count - 1 }
      .map(\.element)
  }
}
