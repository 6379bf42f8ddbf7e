import Foundation
import Testing

@testable import Reports

@Suite struct HeatMapTests {
  private func map(_ cells: [(String, Double)], dark: HeatMap.Dark = .most) -> String {
    HeatMap(
      "Title", cells.map { .init(module: $0.0, value: $0.1, text: "\($0.1)") }, dark: dark,
      format: { $0.fixed(0) }
    ).markup
  }

  @Test func aCellIsAtItsLayerAndKind() {
    let markup = map([("m.layers.0.q", 1), ("m.layers.2.q", 2), ("m.layers.2.v", 3)])
    for (x, y, label) in [
      (260, 40, "m.layers.0.q: 1.0"), (304, 40, "m.layers.2.q: 2.0"),
      (304, 62, "m.layers.2.v: 3.0"),
    ] {
      let cell = #/<rect x="(\d+)" y="(\d+)" [^>]*><title>([^<]*)</title>/#
      #expect(
        markup.matches(of: cell).contains { $0.1 == "\(x)" && $0.2 == "\(y)" && $0.3 == label })
    }
  }

  /// Comparing each kind with all before it would take minutes.
  @Test(.timeLimit(.minutes(5))) func manyKindsHaveARowEach() {
    let count = 20_000
    let markup = map((0..<count).map { ("m.layers.0.kind\($0)", Double($0)) })
    #expect(markup.components(separatedBy: "<title>").count == count + 1)
    #expect(markup.contains("height=\"\(40 + count * 22 + 56)\""))
  }

  @Test(arguments: [HeatMap.Dark.most, .least])
  func oneEndIsDark(dark: HeatMap.Dark) throws {
    let markup = map([("l.0.q", 1), ("l.1.q", 5)], dark: dark)
    let colors = markup.matches(of: #/fill="(rgb[^"]*)"><title>/#).map { String($0.1) }
    let expected = ["rgb(255,237,160)", "rgb(128,0,38)"]
    #expect(colors == (dark == .most ? expected : expected.reversed()))
  }

  /// An encoder's first layer is not a decoder's.
  @Test func listsOfLayersAreToldApart() {
    let markup = map([("encoder.block.0.q", 1), ("decoder.block.0.q", 2)])
    #expect(markup.contains(">encoder.block … q</text>"))
    #expect(markup.contains(">decoder.block … q</text>"))
    #expect(map([("m.layers.0.q", 1)]).contains(">q</text>"))
  }

  @Test func whatIsInNoLayerIsListed() {
    let markup = map([("m.layers.0.q", 1), ("lm_head<", 2), ("x.4000000.q", 3)])
    #expect(
      markup.hasSuffix(
        "<p>Outside of layers:</p>\n<ul><li>lm_head&lt;: 2.0</li><li>x.4000000.q: 3.0</li></ul>"))
    #expect(!map([("lm_head", 2)]).contains("<svg"))
  }

  @Test func aNumberThatIsNoneIsPale() {
    #expect(map([("l.0.q", .nan), ("l.1.q", 5), ("l.2.q", 6)]).contains("rgb(255,237,160)\"><"))
  }
}

@Suite struct CurveChartsTests {
  @Test func aKindHasAChartAndALayerACurve() {
    let markup = CurveCharts([("l.0.q", [4, 2, 0]), ("l.1.q", [1]), ("head", [0, 0])]).markup
    #expect(markup.matches(of: /<svg/).count == 2)
    #expect(markup.matches(of: /<polyline/).count == 3)
    // From the top at the left to the bottom at the right.
    #expect(markup.contains("points=\"4.0,20.0 114.0,75.0 224.0,130.0\""))
  }
}
