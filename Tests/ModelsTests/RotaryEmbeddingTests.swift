import Glibc
import Testing

@testable import Models

@Suite struct RotaryEmbeddingTests {
  private static let scaling = RotaryScaling(theta: 100)

  /// Each pair (i, i + D/2) turned by its angle, in f64.
  private static func turned(
    _ x: [Double], headSize: Int, position: Int32, sign: Double
  ) -> [Double] {
    let frequencies = scaling.frequencies(headSize: headSize, length: 64).frequencies
    let half = headSize / 2
    var y = x
    for head in 0..<x.count / headSize {
      for (place, frequency) in frequencies.enumerated() {
        let angle = Double(Float(position) * frequency)
        let (cosine, sine) = (cos(angle), sign * sin(angle))
        let (first, second) = (head * headSize + place, head * headSize + place + half)
        y[first] = x[first] * cosine - x[second] * sine
        y[second] = x[second] * cosine + x[first] * sine
      }
    }
    return y
  }

  @Test(arguments: [2, 4, 8, 20, 64], [false, true])
  func eachPairTurnsByItsPositionsAngle(headSize: Int, isInverse: Bool) {
    let (count, heads) = (70, 3)
    let all = randomRows(count, heads * headSize + 4, seed: headSize)
    let before = all.values
    let x = all.columns(1..<1 + heads * headSize)
    let start = (0..<count).map { x.rows($0..<$0 + 1).doubles }
    let positions = (0..<count).map { Int32($0 * 7 % 64) }
    RotaryEmbedding(Self.scaling, headSize: headSize, count: 64).rotate(
      x, headSize: headSize, positions: positions, isInverse: isInverse, workspace())
    for row in 0..<count {
      let expected = Self.turned(
        start[row], headSize: headSize, position: positions[row], sign: isInverse ? -1 : 1)
      #expect(error(x.rows(row..<row + 1).values, expected) < f32Tolerance)
      #expect(all[row, 0] == before[row * all.columns])
      #expect(all[row, all.columns - 1] == before[(row + 1) * all.columns - 1])
    }
  }

  @Test func turningBackIsTheGradient() {
    let x = randoms(16, seed: 1).map(Double.init)
    let dy = randoms(16, seed: 2).map(Double.init)
    let differences = centralDifferences(at: x) {
      dot(dy, Self.turned($0, headSize: 8, position: 5, sign: 1))
    }
    let gradient = Self.turned(dy, headSize: 8, position: 5, sign: -1)
    #expect(error(gradient, differences) < differenceTolerance)
  }
}
