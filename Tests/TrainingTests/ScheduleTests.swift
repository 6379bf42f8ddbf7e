import Testing

@testable import Training

@Suite struct ScheduleTests {
  /// The tables of transformers' `get_linear_schedule_with_warmup` for S = 10, W = 3.
  @Test func ratesAreThoseOfTransformers() {
    let linear = Schedule(kind: .linear, warmupSteps: 3, stepCount: 10)
    let expected: [Double] = [
      0, 1.0 / 3, 2.0 / 3, 1, 6.0 / 7, 5.0 / 7, 4.0 / 7, 3.0 / 7, 2.0 / 7, 1.0 / 7,
    ]
    for (step, factor) in expected.enumerated() {
      #expect(abs(linear.factor(at: step) - factor) < 1e-15)
    }
  }
}
