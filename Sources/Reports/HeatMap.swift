/// A picture of one number a module, as SVG: layers across, kinds of modules down.
///
/// Modules outside of numbered layers stand in a list below it.
package struct HeatMap {
  /// A module and its number.
  package struct Cell {
    /// The module's path.
    package let module: String
    /// The number; what is not finite has the color of the least dark.
    package let value: Double
    /// The number as it is shown.
    package let text: String

    package init(module: String, value: Double, text: String) {
      self.module = module
      self.value = value
      self.text = text
    }
  }

  /// Which end of the scale is dark.
  package enum Dark { case least, most }

  private let title: String
  private let dark: Dark
  private let format: (Double) -> String
  private let cells: [(place: ModulePlace, layer: Int, cell: Cell)]
  private let outside: [Cell]
  private let range: (least: Double, most: Double)

  private static let cellSize = 22
  private static let labelWidth = 260
  private static let top = 40

  /// A map of cells; `format` gives the numbers at the ends of the scale.
  package init(
    _ title: String, _ cells: [Cell], dark: Dark, format: @escaping (Double) -> String
  ) {
    self.title = title
    self.dark = dark
    self.format = format
    let placed = cells.map { (place: ModulePlace($0.module), cell: $0) }
    self.cells = placed.compactMap { placed in
      placed.place.layer.map { (placed.place, $0, placed.cell) }
    }
    outside = placed.filter { $0.place.layer == nil }.map(\.cell)
    let finite = cells.map(\.value).filter(\.isFinite)
    range = (finite.min() ?? 0, finite.max() ?? 0)
  }

  /// The picture and the list, as parts of a page.
  package var markup: String {
    let picture = cells.isEmpty ? "" : "<div class=\"picture\">\(svg)</div>"
    guard !outside.isEmpty else { return picture }
    let items = outside.map { "<li>\($0.module.markupText): \($0.text.markupText)</li>" }
    return picture + "\n<p>Outside of layers:</p>\n<ul>\(items.joined())</ul>"
  }

  private var svg: String {
    var kinds: [(container: String, kind: String)] = []
    var rows: [String: Int] = [:]
    for (place, _, _) in cells where rows[place.rowName] == nil {
      rows[place.rowName] = kinds.count
      kinds.append((place.container, place.kind))
    }
    // Of a model with several lists of layers the list has to be told, too.
    let hasOneContainer = Set(kinds.map(\.container)).count == 1
    let layerCount = (cells.map(\.layer).max() ?? 0) + 1
    // The legend has its width, however few layers there are.
    let width = Self.labelWidth + max(layerCount * Self.cellSize + 8, 200)
    let height = Self.top + kinds.count * Self.cellSize + 56
    var parts: [String] = []
    for (row, kind) in kinds.enumerated() {
      let y = Self.top + row * Self.cellSize + 15
      let label = hasOneContainer ? kind.kind : "\(kind.container) … \(kind.kind)"
      parts.append(
        "<text x=\"\(Self.labelWidth - 8)\" y=\"\(y)\" text-anchor=\"end\">"
          + "\(label.shortenedInTheMiddle(to: 36).markupText)</text>")
    }
    let step = layerCount > 40 ? 10 : layerCount > 12 ? 4 : 1
    for layer in stride(from: 0, to: layerCount, by: step) {
      let x = Self.labelWidth + layer * Self.cellSize + 10
      parts.append("<text x=\"\(x)\" y=\"\(Self.top - 8)\" text-anchor=\"middle\">\(layer)</text>")
    }
    for (place, layer, cell) in cells {
      guard let row = rows[place.rowName] else { continue }
      let x = Self.labelWidth + layer * Self.cellSize
      let y = Self.top + row * Self.cellSize
      parts.append(
        "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(Self.cellSize - 2)\" "
          + "height=\"\(Self.cellSize - 2)\" fill=\"\(color(cell.value))\">"
          + "<title>\("\(cell.module): \(cell.text)".markupText)</title></rect>")
    }
    parts.append(legend(y: Self.top + kinds.count * Self.cellSize + 14))
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\" height=\"\(height)\" "
      + "role=\"img\" aria-label=\"\(title.markupText)\">\n"
      + parts.joined(separator: "\n") + "\n</svg>"
  }

  /// Ten shades, with the numbers at both ends.
  private func legend(y: Int) -> String {
    let shades = (0..<10).map { place in
      let value = range.least + (range.most - range.least) * Double(place) / 9
      return "<rect x=\"\(Self.labelWidth + place * 12)\" y=\"\(y)\" width=\"12\" height=\"12\" "
        + "fill=\"\(color(value))\"/>"
    }
    return shades.joined()
      + "<text x=\"\(Self.labelWidth - 8)\" y=\"\(y + 11)\" text-anchor=\"end\">"
      + "\(format(range.least).markupText)</text>"
      + "<text x=\"\(Self.labelWidth + 128)\" y=\"\(y + 11)\">"
      + "\(format(range.most).markupText)</text>"
  }

  /// From a dark red to a pale yellow.
  private func color(_ value: Double) -> String {
    let width = range.most - range.least
    let share = width > 0 && value.isFinite ? max(0, min(1, (value - range.least) / width)) : nil
    let lightness = share.map { dark == .least ? $0 : 1 - $0 } ?? 1
    return Color.mix((128, 0, 38), (255, 237, 160), lightness)
  }
}

extension ModulePlace {
  /// What all modules of a row have in common.
  fileprivate var rowName: String { "\(container)\0\(kind)" }
}

/// Colors of pictures.
enum Color {
  typealias RGB = (Double, Double, Double)

  /// A color between two, as CSS writes it.
  static func mix(_ first: RGB, _ second: RGB, _ share: Double) -> String {
    let parts = [
      (first.0, second.0), (first.1, second.1), (first.2, second.2),
    ].map { Int(($0 + ($1 - $0) * share).rounded()) }
    return "rgb(\(parts.map(String.init).joined(separator: ",")))"
  }
}
