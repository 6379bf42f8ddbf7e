import Reports
import Testing

@Suite struct ProgressLineTests {
  @Test func theLineTellsShareRateAndTimeLeft() {
    #expect(
      ProgressLine.text(
        "merging", done: 500_000_000, total: 2_000_000_000, elapsedSeconds: 1, width: 79)
        == "merging  [######.....................]  500 MB of 2.0 GB  500 MB/s  3.00 s left")
  }

  @Test func theFirstMomentsNameNoRate() {
    #expect(
      ProgressLine.text("merging", done: 0, total: 2000, elapsedSeconds: 0.1, width: 50)
        == "merging  [....................]  0 bytes of 2.0 kB")
  }

  @Test(arguments: 0...120) func itNeverWraps(width: Int) {
    let line = ProgressLine.text(
      "merging", done: 7_999_999_999, total: 2_000_000_000, elapsedSeconds: 4000, width: width)
    #expect(line.count <= width)
  }

  @Test func nothingToDoIsDone() {
    #expect(
      ProgressLine.text("reading", done: 0, total: 0, elapsedSeconds: 0, width: 79)
        .contains("[##############################]"))
  }
}
