import CKernels
import Glibc
import Testing

@testable import Models

/// lse(z) − z[label] in f64.
private func loss(_ z: [Double], _ label: Int) -> Double {
  let top = z.max() ?? 0
  return top + log(z.reduce(0) { $0 + exp($1 - top) }) - z[label]
}

/// softmax(z) − onehot in f64.
private func lossGradient(_ z: [Double], _ label: Int) -> [Double] {
  let top = z.max() ?? 0
  let sum = z.reduce(0) { $0 + exp($1 - top) }
  return z.indices.map { exp(z[$0] - top) / sum - ($0 == label ? 1 : 0) }
}

@Suite struct CrossEntropyTests {
  /// Around the 16 and 256 numbers that are added up at a time.
  @Test(arguments: [1, 2, 15, 16, 17, 255, 256, 257, 1000], [Float(1), 30])
  func lossesAndTheirGradientsAreTheFormulas(columns: Int, greatest: Float) {
    let rows = 3
    let z = randoms(rows * columns, seed: columns).map { $0 * greatest }
    let labels = (0..<rows).map { Int32($0 * 7 % columns) }
    var losses = [Double](repeating: 0, count: rows)
    var dz = z
    pef_cross_entropy_f32(&dz, labels, &losses, rows, columns, 0.25, 1)
    for row in 0..<rows {
      let own = z[row * columns..<(row + 1) * columns].map(Double.init)
      let label = Int(labels[row])
      #expect(abs(losses[row] - loss(own, label)) < f32Tolerance * Double(greatest))
      let expected = lossGradient(own, label).map { $0 * 0.25 }
      let found = Array(dz[row * columns..<(row + 1) * columns])
      if columns == 1 {
        #expect(found == [0] && losses[row] == 0)
      } else {
        #expect(zip(found, expected).allSatisfy { abs(Double($0) - $1) < f32Tolerance * 0.25 })
      }
    }
  }

  @Test func theTwinsGradientIsThatOfItsForward() {
    let z = randoms(9, seed: 1).map { Double($0) * 3 }
    let differences = centralDifferences(at: z) { loss($0, 4) }
    #expect(error(lossGradient(z, 4), differences) < differenceTolerance)
  }

  @Test func aVocabularyOfEqualsIsAddedUpWithoutLoss() {
    let count = 300_000
    var z = [Float](repeating: 5, count: count)
    var losses = [0.0]
    pef_cross_entropy_f32(&z, [7], &losses, 1, count, 1, 1)
    #expect(abs(losses[0] - log(Double(count))) < 1e-12)
  }

  @Test func greatLogitsDoNotOverflow() {
    var z: [Float] = [1e30, -1e30, 1e30]
    var losses = [0.0]
    pef_cross_entropy_f32(&z, [0], &losses, 1, 3, 1, 1)
    #expect(abs(losses[0] - log(2)) < 1e-12)
    #expect(abs(z[0] + 0.5) < 1e-6 && abs(z[1]) < 1e-6 && abs(z[2] - 0.5) < 1e-6)
  }

  @Test func noLogitIsPassedOver() {
    for place in 0..<40 {
      var z = [Float](repeating: 0, count: 40)
      z[place] = 90
      var losses = [0.0]
      pef_cross_entropy_f32(&z, [Int32(place)], &losses, 1, 40, 1, 0)
      #expect(losses[0] >= 0 && losses[0] < 1e-30)
    }
  }

  @Test func aBlockOfLogitsHasRoomForSomeTokens() {
    // 48 MiB of logits, in twelves; at least 48 tokens whatever the vocabulary. Where rows would lie
    // whole pages apart, there is a gap between them.
    #expect(CrossEntropy.logitCount(tokens: 1000, vocabulary: 128_256) == 96 * 128_256)
    #expect(CrossEntropy.logitCount(tokens: 1000, vocabulary: 1 << 30) == 48 * ((1 << 30) + 16))
    #expect(CrossEntropy.logitCount(tokens: 5, vocabulary: 128_256) == 5 * 128_256)
    #expect(CrossEntropy.logitCount(tokens: 5, vocabulary: 49_152) == 5 * (49_152 + 16))
  }
}
