import Reports

/// What quantization loses, as one page for a browser: a picture by layer and kind, and a table.
struct LossPage {
  let title: String
  let facts: [(label: String, value: String)]
  let losses: [QuantizationLoss]

  /// The page's text.
  var text: String {
    let pictureTitle = "Signal to noise by layer and kind of module"
    let map = HeatMap(
      pictureTitle,
      losses.map {
        .init(module: $0.module, value: $0.decibels, text: "\($0.decibelText) dB")
      }, dark: .least, format: { "\($0.fixed(1)) dB" })
    var page = Page(title, facts: facts)
    page.append(
      pictureTitle,
      markup: map.markup
        + "\n<p>In dB: 20 dB is an error of a tenth of the weights, 40 dB of a hundredth. "
        + "Darker is worse.</p>")
    page.append(
      "Modules, worst first",
      columns: ["module", "RMS error", "largest", "SNR, dB", "bits a parameter"],
      rows: losses.byWorst.map {
        [
          $0.module, $0.rms.measureText, $0.largest.measureText, $0.decibelText, $0.bits.fixed(2),
        ]
      })
    return page.text
  }
}
