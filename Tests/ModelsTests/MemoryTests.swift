import LinearAlgebra
import Testing

@testable import Models

/// The bytes of all floats that a value holds, whatever is private there; those of a model apart.
private func byteCount(of value: Any) -> Int {
  var seen: Set<ObjectIdentifier> = []
  func count(_ value: Any) -> Int {
    if value is Llama || value is ThreadTeam { return 0 }
    if let floats = value as? [Float] { return floats.count }
    let mirror = Mirror(reflecting: value)
    if mirror.displayStyle == .class {
      let isNew = seen.insert(ObjectIdentifier(value as AnyObject)).inserted
      guard isNew else { return 0 }
    }
    if let storage = value as? Storage { return storage.count }
    return mirror.children.reduce(0) { $0 + count($1.value) }
  }
  return 4 * count(value)
}

/// What a pass says that it takes, before it takes it, against what it then holds: all but a few
/// rows, such as the factors of rotations.
@Suite struct MemoryTests {
  private static let models: [TinyModel] = [
    .init(), .init(family: "qwen2", isDoRA: true), .init(family: "qwen3", layerCount: 3),
  ]

  @Test(arguments: models, [LossPass.Keeping.everything, .inputs, .nothing])
  func aLossPassTakesWhatItSays(tiny: TinyModel, keeping: LossPass.Keeping) throws {
    let model = try tiny.load()
    for (tokens, longest, threads) in [(12, 12, 1), (70, 50, 2), (700, 300, 3)] {
      let pass = LossPass(
        model, team: ThreadTeam(count: threads), tokens: tokens, longest: longest,
        keeping: keeping)
      let told = LossPass.byteCount(
        model, tokens: tokens, longest: longest, keeping: keeping, threads: threads)
      #expect((0...128).contains(byteCount(of: pass) - told), "\(tokens) tokens")
    }
  }

  @Test(arguments: models) func aGenerationPassTakesWhatItSays(tiny: TinyModel) throws {
    let model = try tiny.load()
    for capacity in [100, 600] {
      let pass = GenerationPass(model, team: ThreadTeam(count: 1), capacity: capacity)
      let told =
        GenerationPass.byteCount(model, capacity: capacity) + 4 * ProjectionGroup.scratchCount
      #expect((0...2048).contains(byteCount(of: pass) - told), "\(capacity) tokens")
    }
  }
}
