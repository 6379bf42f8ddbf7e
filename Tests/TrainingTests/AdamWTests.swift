import CKernels
import Checkpoints
import Files
import Foundation
import JSON
import Tensors
import Testing

/// The rounding of a step, and that torch's square root of vectors is off by a unit in its last
/// place at times, add up over twenty steps.
private let adamWTolerance: Float = 1e-6

/// The settings and numbers of a run of torch's AdamW, from `Samples/make_training_samples.py`.
private struct AdamWRun {
  let rates: [Double]
  let betas: (Double, Double)
  let epsilon, weightDecay: Double
  /// Whether it is transformers' formula.
  let isLate: Bool
  let start: [Float]
  /// (step, element), one row after the other.
  let gradients, values: [Float]

  init(_ place: Int) throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Samples/training")
    let settings = try JSON(opening: folder.appendingPathComponent("adamw.json").path)
      .array(named: "cases")[place]
    rates = try settings.array(at: "rates").map { try $0.double(named: "rates") }
    let both = try settings.array(at: "betas").map { try $0.double(named: "betas") }
    betas = (both[0], both[1])
    epsilon = try settings.double(at: "eps")
    weightDecay = try settings.double(at: "weight_decay")
    isLate = try settings.string(at: "style") == "transformers"
    let file = try Checkpoint(opening: folder.appendingPathComponent("adamw.safetensors").path)
    func numbers(_ name: String) throws -> [Float] {
      let tensor = try #require(file["\(place).\(name)"])
      var values = [Float](repeating: 0, count: tensor.elementCount)
      let bytes = try file.source.bytes(of: tensor)
      var span = values.mutableSpan
      Float.read(bytes.span.bytes, tensor.dtype, into: &span, count: tensor.elementCount)
      return values
    }
    (start, gradients, values) = (
      try numbers("start"), try numbers("gradients"), try numbers("values")
    )
  }

  /// The constants of a step, which counts from 1, rounded to f32 once as torch rounds them.
  func constants(_ step: Int) -> pef_adamw {
    let rate = rates[step - 1]
    let root = (1 - pow(betas.1, Double(step))).squareRoot()
    let size = rate * (isLate ? root : 1) / (1 - pow(betas.0, Double(step)))
    let (early, late) = (1 - rate * weightDecay, -rate * weightDecay)
    return pef_adamw(
      decay: isLate ? 1 : Float(early), beta2: Float(betas.1),
      one_less_beta1: Float(1 - betas.0), one_less_beta2: Float(1 - betas.1),
      step_size: Float(size), root: isLate ? 1 : Float(root), epsilon: Float(epsilon),
      late_decay: isLate ? Float(late) : 0)
  }
}

@Suite struct AdamWTests {
  @Test(arguments: 0..<4) func twentyStepsAreThoseOfThePeer(place: Int) throws {
    let run = try AdamWRun(place)
    let count = run.start.count
    #expect(run.rates.count == 20 && run.values.count == 20 * count)
    var p = run.start
    var (m, v) = ([Float](repeating: 0, count: count), [Float](repeating: 0, count: count))
    for step in 1...20 {
      var constants = run.constants(step)
      pef_adamw_f32(
        &constants, &p, &m, &v, Array(run.gradients[(step - 1) * count..<step * count]), count)
      for (element, found) in p.enumerated() {
        let expected = run.values[(step - 1) * count + element]
        #expect(
          abs(found - expected) <= adamWTolerance * max(abs(expected), Float(run.rates[step - 1])),
          "step \(step), element \(element)")
      }
    }
  }

  /// One step in f64, as the paper has it.
  @Test(arguments: [0, 1, 15, 16, 33]) func aStepIsTheFormula(count: Int) throws {
    let run = try AdamWRun(1)
    var p = (0..<count).map { Float($0) * 0.3 - 2 }
    var m = (0..<count).map { Float($0 % 5) * 0.1 - 0.2 }
    var v = (0..<count).map { Float($0 % 7) * 0.01 }
    let g = (0..<count).map { Float($0 % 3) * 0.5 - 0.4 }
    var expected: [Double] = []
    for place in 0..<count {
      let rate = run.rates[2]
      let moved = run.betas.0 * Double(m[place]) + (1 - run.betas.0) * Double(g[place])
      let square = Double(g[place]) * Double(g[place])
      let second = run.betas.1 * Double(v[place]) + (1 - run.betas.1) * square
      let (first, root) = (
        moved / (1 - pow(run.betas.0, 3)), (second / (1 - pow(run.betas.1, 3))).squareRoot()
      )
      expected.append(
        Double(p[place]) * (1 - rate * run.weightDecay) - rate * first / (root + run.epsilon))
    }
    var constants = run.constants(3)
    pef_adamw_f32(&constants, &p, &m, &v, g, count)
    #expect(zip(p, expected).allSatisfy { abs(Double($0) - $1) < 1e-6 })
  }
}
