import Testing

@testable import Training

@Suite struct ScheduleTests {
  /// The tables of transformers' `get_linear_schedule_with_warmup` for S = 10, W = 3.
  @Test func ratesAreThoseOfTransformers() {
    let linear = Schedule(kind: .linear, warmupSteps: 3, stepCount: 10)
    let thirds: [Double] = [0, 1, 2, 3]
    let sevenths: [Double] = [6, 5, 4, 3, 2, 1]
    let expected = thirds.map { $0 / 3 } + sevenths.map { $0 / 7 }
    for (step, factor) in expected.enumerated() {
      #expect(abs(linear.factor(at: step) - factor) < 1e-15)
    }
  }

  /// `get_cosine_schedule_with_warmup` for S = 10, W = 2, and a constant rate.
  @Test func aCosineFallsToAlmostNothing() {
    let cosine = Schedule(kind: .cosine, warmupSteps: 2, stepCount: 10)
    let expected = [0, 0.5, 1, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449, 0.5]
    for (step, factor) in expected.enumerated() {
      #expect(abs(cosine.factor(at: step) - factor) < 1e-15)
    }
    let constant = Schedule(kind: .constant, warmupSteps: 2, stepCount: 10)
    #expect([0, 1, 2, 9].map(constant.factor(at:)) == [0, 0.5, 1, 1])
  }
}
