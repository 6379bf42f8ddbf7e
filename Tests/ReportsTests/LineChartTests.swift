import Testing

@testable import Reports

@Suite struct LineChartTests {
  @Test func aCurveIsDrawnFromCornerToCorner() {
    let chart = LineChart("step", [.init("loss", [(0, 2), (10, 1)])])
    #expect(chart.markup.contains("points=\"60.0,24.0 780.0,284.0\""))
    #expect(chart.markup.contains(">loss</text>") && chart.markup.contains(">step</text>"))
  }

  @Test func namesAreText() {
    let chart = LineChart("<b>", [.init("a&b", [(0, 0)], isMarked: true)])
    #expect(chart.markup.contains("&lt;b&gt;") && chart.markup.contains("a&amp;b"))
    #expect(chart.markup.contains("<circle"))
  }

  @Test func nothingAndWhatIsNotFiniteIsNoCurve() {
    #expect(LineChart("x", [.init("y", [])]).markup.isEmpty)
    #expect(LineChart("x", [.init("y", [(0, .nan), (1, .infinity)])]).markup.isEmpty)
  }

  @Test func aLongCurveIsThinned() {
    let chart = LineChart("x", [.init("y", (0..<50_000).map { (Double($0), Double($0 % 7)) })])
    #expect(chart.markup.utf8.count < 40_000)
  }
}
