import Testing

@testable import Commands

@Suite struct StridedWindowsTests {
  private func windows(_ count: Int, _ length: Int, _ stride: Int) -> [(Range<Int>, [Int])] {
    StridedWindows([Bool](repeating: true, count: count), length: length, stride: stride).map {
      ($0.range, zip($0.range, $0.isLabel).filter(\.1).map(\.0))
    }
  }

  @Test func oneWindowHasAShortText() {
    let found = windows(3, 5, 5)
    #expect(found.map(\.0) == [0..<3])
    #expect(found.map(\.1) == [[0, 1, 2]])
  }

  @Test func windowsOverlap() {
    let found = windows(8, 4, 2)
    #expect(found.map(\.0) == [0..<4, 2..<6, 4..<8])
    #expect(found.map(\.1) == [[0, 1, 2, 3], [4, 5], [6, 7]])
  }

  @Test func theLastIsShort() {
    #expect(windows(9, 4, 4).map(\.0) == [0..<4, 4..<8, 8..<9])
    #expect(windows(9, 4, 3).map(\.0) == [0..<4, 3..<7, 6..<9])
  }

  @Test(arguments: 1...12, 1...5)
  func everyTokenIsPredictedOnce(count: Int, length: Int) {
    for stride in 1...length {
      #expect(windows(count, length, stride).flatMap(\.1) == Array(0..<count))
    }
  }

  @Test func whatIsNoLabelStaysNone() {
    let found = StridedWindows([false, true, false, true, true], length: 3, stride: 2)
      .map(\.isLabel)
    #expect(found == [[false, true, false], [false, true, true]])
  }

  @Test func anEmptyTextHasNoWindows() {
    #expect(windows(0, 4, 2).isEmpty)
  }
}
