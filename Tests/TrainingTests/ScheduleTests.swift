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
}
