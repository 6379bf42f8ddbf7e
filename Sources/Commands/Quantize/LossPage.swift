import Reports

/// What quantization loses, as one page for a browser: a picture by layer and kind, and a table.
///
/// Nothing is fetched from elsewhere, and no script runs.
struct LossPage {
  let title: String
  let facts: [(label: String, value: String)]
  let losses: [QuantizationLoss]

  private static let cellWidth = 22
  private static let cellHeight = 22
  private static let labelWidth = 260
  private static let top = 40

  /// The page's text.
  var text: String {
    let rows = losses.byWorst.map { loss in
      "<tr><td>\(loss.module.markupText)</td><td>\(loss.rms.measureText)</td>"
        + "<td>\(loss.largest.measureText)</td><td>\(loss.decibelText)</td>"
        + "<td>\(loss.bits.fixed(2))</td></tr>"
    }
    let lines = facts.map {
      "<dt>\($0.label.markupText)</dt><dd>\($0.value.markupText)</dd>"
    }
    return """
      <!DOCTYPE html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width">
      <title>\(title.markupText)</title>
      <style>
      body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2em; }
      h1 { font-size: 1.3em; }
      h2 { font-size: 1.1em; margin-top: 2em; }
      dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; }
      dt { color: #666; }
      dd { margin: 0; }
      .picture { overflow-x: auto; }
      svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a; }
      table { border-collapse: collapse; }
      th, td { text-align: right; padding: 0.1em 0.8em; border-bottom: 1px solid #ddd; }
      th:first-child, td:first-child { text-align: left; }
      </style>
      </head>
      <body>
      <h1>\(title.markupText)</h1>
      <dl>\(lines.joined())</dl>
      <h2>Signal to noise by layer and kind of module</h2>
      <div class="picture">\(picture)</div>
      <p>In dB: 20 dB is an error of a tenth of the weights, 40 dB of a hundredth. Darker is worse.</p>
      <h2>Modules, worst first</h2>
      <table>
      <tr><th>module</th><th>RMS error</th><th>largest</th><th>SNR, dB</th><th>bits a parameter</th></tr>
      \(rows.joined(separator: "\n"))
      </table>
      </body>
      </html>

      """
  }

  /// A cell for each module: its layer across, its kind down.
  private var picture: String {
    let cells = losses.map { (place: ModulePlace($0.module), loss: $0) }
    var kinds: [String] = []
    for cell in cells where !kinds.contains(cell.place.kind) { kinds.append(cell.place.kind) }
    let layerCount = (cells.map(\.place.layer).max() ?? 0) + 1
    let finite = losses.map(\.decibels).filter(\.isFinite)
    let (least, most) = (finite.min() ?? 0, finite.max() ?? 0)
    // The legend has its width, however few layers there are.
    let width = Self.labelWidth + max(layerCount * Self.cellWidth + 8, 200)
    let height = Self.top + kinds.count * Self.cellHeight + 56
    var parts: [String] = []
    for (row, kind) in kinds.enumerated() {
      let y = Self.top + row * Self.cellHeight + 15
      parts.append(
        "<text x=\"\(Self.labelWidth - 8)\" y=\"\(y)\" text-anchor=\"end\">\(kind.markupText)</text>"
      )
    }
    let step = layerCount > 40 ? 10 : layerCount > 12 ? 4 : 1
    for layer in stride(from: 0, to: layerCount, by: step) {
      let x = Self.labelWidth + layer * Self.cellWidth + 10
      parts.append("<text x=\"\(x)\" y=\"\(Self.top - 8)\" text-anchor=\"middle\">\(layer)</text>")
    }
    for cell in cells {
      guard let row = kinds.firstIndex(of: cell.place.kind) else { continue }
      let x = Self.labelWidth + cell.place.layer * Self.cellWidth
      let y = Self.top + row * Self.cellHeight
      let label = "\(cell.loss.module): \(cell.loss.decibelText) dB".markupText
      parts.append(
        "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(Self.cellWidth - 2)\" "
          + "height=\"\(Self.cellHeight - 2)\" fill=\"\(color(cell.loss.decibels, least, most))\">"
          + "<title>\(label)</title></rect>")
    }
    parts.append(legend(least, most, y: Self.top + kinds.count * Self.cellHeight + 14))
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\" height=\"\(height)\" "
      + "role=\"img\" aria-label=\"Signal to noise by layer and kind of module\">\n"
      + parts.joined(separator: "\n") + "\n</svg>"
  }

  /// Ten shades, with the ratios at both ends.
  private func legend(_ least: Double, _ most: Double, y: Int) -> String {
    let shades = (0..<10).map { place in
      let value = least + (most - least) * Double(place) / 9
      return "<rect x=\"\(Self.labelWidth + place * 12)\" y=\"\(y)\" width=\"12\" height=\"12\" "
        + "fill=\"\(color(value, least, most))\"/>"
    }
    return shades.joined()
      + "<text x=\"\(Self.labelWidth - 8)\" y=\"\(y + 11)\" text-anchor=\"end\">"
      + "\(least.fixed(1)) dB</text>"
      + "<text x=\"\(Self.labelWidth + 128)\" y=\"\(y + 11)\">\(most.fixed(1)) dB</text>"
  }

  /// From a dark red for the worst to a pale yellow for the best.
  private func color(_ decibels: Double, _ least: Double, _ most: Double) -> String {
    let share = most > least ? max(0, min(1, (decibels - least) / (most - least))) : 1
    let (dark, light) = ([128.0, 0, 38], [255.0, 237, 160])
    let mixed = zip(dark, light).map { Int(($0 + ($1 - $0) * share).rounded()) }
    return "rgb(\(mixed.map(String.init).joined(separator: ",")))"
  }
}

/// A module's layer, and its path without the layer's number.
private struct ModulePlace {
  let layer: Int
  let kind: String

  init(_ module: String) {
    let parts = module.split(separator: ".")
    guard let place = parts.firstIndex(where: { Int($0) != nil }), let number = Int(parts[place]),
      number >= 0, number < Self.maximumLayerCount
    else {
      layer = 0
      kind = module
      return
    }
    layer = number
    kind = parts[(place + 1)...].joined(separator: ".")
  }

  /// A number larger than this is no layer's, and would make the picture too wide.
  private static let maximumLayerCount = 1000
}
