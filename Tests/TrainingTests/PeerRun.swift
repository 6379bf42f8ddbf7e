import Checkpoints
import Foundation
import JSON
import Tensors
import Testing

@testable import Models
@testable import Training

/// A run of a peer in `Samples/training`: its batches, and what it has found.
struct PeerRun {
  /// What f32 loses adds up over the steps: of losses and norms, and of the end as a part of each
  /// tensor's largest number.
  static let lossTolerance = 1e-4
  static let endTolerance = 1e-3
  /// Of the gradients of the first step, likewise.
  static let gradientTolerance: Float = 1e-5

  let folder: String
  let expected: JSON
  private let batches: Checkpoint

  static func folder(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Samples/training/\(name)").path
  }

  init(_ name: String) throws {
    folder = Self.folder(name)
    expected = try JSON(opening: folder + "/expected.json")
    batches = try Checkpoint(opening: folder + "/batches.safetensors")
  }

  /// The model that is trained.
  var base: Checkpoint {
    get throws { try Checkpoint(opening: Self.folder("bases/\(expected.string(at: "base"))")) }
  }

  /// The two texts of a step.
  func batch(_ step: Int) throws -> TokenBatch {
    let (ids, mask) = (try batches.floats("input_ids"), try batches.floats("label_mask"))
    return TokenBatch(
      (0..<2).map { row in
        let own = (step * 2 + row) * 32..<(step * 2 + row + 1) * 32
        return (ids[own].map { Int32($0) }, mask[own].map { $0 != 0 })
      })
  }

  /// Makes all steps, and compares losses and norms.
  func makeSteps(
    _ trainer: Trainer, _ pass: LossPass, after: (Int) throws -> Void = { _ in }
  ) throws {
    let losses = try expected.array(at: "losses").map { try $0.double(named: "losses") }
    let norms = try expected.array(at: "grad_norms").map { try $0.double(named: "norms") }
    #expect(losses.count == 12 && norms.count == 12)
    for (place, loss) in losses.enumerated() {
      let step = try trainer.step([batch(place)], pass: pass)
      #expect(abs(step.loss - loss) < Self.lossTolerance * loss, "step \(step.number)")
      #expect(
        abs(step.gradientNorm - norms[place]) < Self.lossTolerance * norms[place],
        "norm of step \(step.number)")
      try after(place)
    }
  }

  /// The gradients of the first step.
  var gradients: Checkpoint {
    get throws { try Checkpoint(opening: folder + "/gradients_step0.safetensors") }
  }
}

/// The largest distance of numbers from what is expected, and the largest of these.
func distance(_ found: [Float], _ expected: [Float]) -> (worst: Float, largest: Float) {
  (
    zip(found, expected).reduce(0) { max($0, abs($1.0 - $1.1)) },
    expected.reduce(0) { max($0, abs($1)) }
  )
}

extension Checkpoint {
  /// A tensor's numbers.
  func floats(_ name: String) throws -> [Float] {
    let tensor = try #require(self[name])
    var values = [Float](repeating: 0, count: tensor.elementCount)
    let bytes = try source.bytes(of: tensor)
    var span = values.mutableSpan
    Float.read(bytes.span.bytes, tensor.dtype, into: &span, count: tensor.elementCount)
    return values
  }
}
