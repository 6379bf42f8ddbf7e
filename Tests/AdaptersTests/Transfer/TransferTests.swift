import Checkpoints
import Files
import Fixtures
import Glibc
import LinearAlgebra
import Tensors
import Testing

@testable import Adapters

/// Adapters moved between models of which the right answer is known.
@Suite struct TransferTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// The shapes of the layers: a square one, and one either way.
  private static let shapes = ["q": [10, 10], "up": [14, 8], "down": [8, 14]]

  private func random(_ rows: Int, _ columns: Int, seed: Int) -> Matrix<Double> {
    var numbers = SplitMix64(seed: seed)
    return Matrix(
      rows: rows, columns: columns,
      elements: (0..<rows * columns).map { _ in Double.random(in: -1...1, using: &numbers) })
  }

  /// A weight whose singular values are well apart.
  private func weight(_ name: String, seed: Int = 0) -> Matrix<Double> {
    let shape = Self.shapes[name] ?? []
    let least = min(shape[0], shape[1])
    let u = QR(random(shape[0], least, seed: 1 + seed)).q
    let v = QR(random(shape[1], least, seed: 2 + seed)).q
    return product(
      u.scaled(columns: (0..<least).map { pow(0.8, Double($0)) }), v, transposing: .right)
  }

  /// A rotation by an angle in each plane of two axes that follow each other.
  private func rotation(_ size: Int, by angle: Double) -> Matrix<Double> {
    var elements = [Double](repeating: 0, count: size * size)
    for axis in 0..<size { elements[axis * size + axis] = 1 }
    for axis in 0..<size - 1 {
      for column in 0..<size {
        let (x, y) = (elements[axis * size + column], elements[(axis + 1) * size + column])
        elements[axis * size + column] = cos(angle) * x - sin(angle) * y
        elements[(axis + 1) * size + column] = sin(angle) * x + cos(angle) * y
      }
    }
    return Matrix(rows: size, columns: size, elements: elements)
  }

  private func model(
    _ name: String, _ change: (String, Matrix<Double>) -> Matrix<Double>
  ) throws -> BaseModel {
    try scratch.write(
      "\(name)/model.safetensors",
      Self.shapes.keys.sorted().map {
        let changed = change($0, weight($0))
        return Values(
          "\($0).weight", [changed.rows, changed.columns], changed.elements.map { Float($0) })
      })
    try scratch.write("\(name)/config.json", #"{"model_type": "llama"}"#)
    return try BaseModel(Checkpoint(opening: scratch.path(name)))
  }

  /// A LoRA of rank 2 that writes and reads where the weights do.
  private func writeAdapter() throws -> String {
    try scratch.writeAdapter(
      fields: #""r": 2, "lora_alpha": 6"#,
      Self.shapes.keys.sorted().flatMap { name in
        let w = weight(name)
        let a = product(random(2, w.rows, seed: 5), w)
        let b = product(w, random(w.columns, 2, seed: 6))
        return [
          Values(
            "base_model.model.\(name).lora_A.weight", [2, w.columns], a.elements.map { Float($0) }),
          Values(
            "base_model.model.\(name).lora_B.weight", [w.rows, 2], b.elements.map { Float($0) }),
        ]
      })
  }

  private func transfer(
    _ adapter: String, from source: BaseModel, to target: BaseModel,
    _ change: (inout Transfer.Options) -> Void = { _ in }
  ) throws -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    var options = Transfer.Options()
    change(&options)
    return try Transfer(Operand(opening: adapter), from: source, to: target, options)
      .run(as: .f32, threads: 2) { _ in }
  }

  /// Those between weights of the same shape; `ProcrustesTests` has the other.
  private static let methods = Transfer.Method.allCases.filter { $0 != .procrustes }

  @Test(arguments: methods)
  func theSameModelChangesNothing(method: Transfer.Method) throws {
    let base = try model("base") { $1 }
    let adapter = try writeAdapter()
    let moved = try transfer(adapter, from: base, to: base) { $0.method = method }
    let before = try updates(Operand(opening: adapter).adapter)
    for (path, update) in try updates(moved.adapter) {
      let right = try #require(before[path])
      #expect(relativeDistance(update, right) < 1e-6)
    }
    for result in moved.results {
      let overlap = try #require(result.overlap)
      #expect(overlap.outputs > 1 - 1e-6 && overlap.inputs > 1 - 1e-6)
      #expect((overlap.alignment ?? 1) > 1 - 1e-6)
      #expect(try #require(result.keptEnergy) > 1 - 1e-6)
      #expect(result.rank == 2)
    }
    #expect(moved.adapter.modules.allSatisfy { $0.scaling == 3 })
  }

  /// W_t = O·W_s·Qᵀ, and so O·ΔW·Qᵀ is right: the projection cannot find it, the map does.
  @Test(arguments: [0.1, 0.4]) func aTurnedModelIsFound(angle: Double) throws {
    let base = try model("base") { $1 }
    let turned = try model("turned") {
      product(
        product(rotation($1.rows, by: angle), $1), rotation($1.columns, by: -angle),
        transposing: .right)
    }
    let adapter = try writeAdapter()
    let before = try updates(Operand(opening: adapter).adapter)
    let moved = try transfer(adapter, from: base, to: turned) { $0.method = .crossLoRA }
    for (path, update) in try updates(moved.adapter) {
      let old = try #require(before[path])
      let right = product(
        product(rotation(old.rows, by: angle), old), rotation(old.columns, by: -angle),
        transposing: .right)
      #expect(relativeDistance(update, right) < 1e-3)
      #expect(relativeDistance(update, old) > angle / 4)
    }
    #expect(moved.results.allSatisfy { ($0.keptEnergy ?? 0) > 1 - 1e-5 })
  }

  @Test func toProjectTwiceIsToProjectOnce() throws {
    let base = try model("base") { $1 }
    let other = try model("other") { name, weight in
      let noise = random(weight.rows, weight.columns, seed: 9)
      return Matrix(
        rows: weight.rows, columns: weight.columns,
        elements: zip(weight.elements, noise.elements).map { $0 + 0.01 * $1 })
    }
    let adapter = try writeAdapter()
    let settings = { (options: inout Transfer.Options) in
      options.method = .loraX
      options.subspace = 4
      options.threshold = 0
    }
    let once = try transfer(adapter, from: base, to: other, settings)
    let files = AdapterFormat.peft
    try AdapterWriting(files.files(for: once.adapter, .init(base: nil, prefix: nil))).run(
      to: scratch.path("once"), inputs: [], isForced: false, threads: 1, progress: { _ in })
    let twice = try transfer(scratch.path("once"), from: base, to: other, settings)
    let found = try updates(twice.adapter)
    for (path, update) in try updates(once.adapter) {
      #expect(relativeDistance(try #require(found[path]), update) < 1e-6)
    }
    #expect(twice.results.allSatisfy { ($0.keptEnergy ?? 0) > 1 - 1e-6 })
    #expect(once.results.allSatisfy { ($0.keptEnergy ?? 1) < 1 && ($0.keptEnergy ?? 0) > 0.1 })
  }

  /// Whatever lies outside of the subspaces, as half of these factors does.
  @Test func nearToTheModelAlmostAllIsKept() throws {
    let base = try model("base") { $1 }
    let near = try model("near") { name, weight in
      let noise = random(weight.rows, weight.columns, seed: 9)
      return Matrix(
        rows: weight.rows, columns: weight.columns,
        elements: zip(weight.elements, noise.elements).map { $0 + 1e-3 * $1 })
    }
    let adapter = try writeAdapter()
    let before = try updates(Operand(opening: adapter).adapter)
    for (method, isKept) in [(Transfer.Method.proLoRA, true), (.loraX, false)] {
      let moved = try transfer(adapter, from: base, to: near) {
        ($0.method, $0.subspace, $0.threshold) = (method, 3, 0)
      }
      for (path, update) in try updates(moved.adapter) {
        #expect((relativeDistance(update, try #require(before[path])) < 0.05) == isKept)
      }
      #expect(moved.results.allSatisfy { (($0.keptEnergy ?? 0) > 0.99) == isKept })
    }
    let error = #expect(throws: PeftoolError.self) {
      try transfer(adapter, from: base, to: near) {
        ($0.method, $0.subspace, $0.threshold) = (.loraX, 3, 0.99)
      }
    }
    #expect(error?.description.contains("; --method prolora keeps what lies outside of ") == true)
  }

  @Test func aStrangerIsRefusedByName() throws {
    let base = try model("base") { $1 }
    let stranger = try model("stranger") { name, old in name == "q" ? weight(name, seed: 40) : old }
    let adapter = try writeAdapter()
    for method in Self.methods {
      do {
        _ = try transfer(adapter, from: base, to: stranger) { $0.method = method }
        Issue.record("moved")
      } catch let error as PeftoolError {
        #expect(error.description.contains("1 of 3 layers are below the threshold 0.5; q has"))
        #expect(!error.description.contains("--method prolora"))
      }
      let anyway = try transfer(adapter, from: base, to: stranger) {
        $0.method = method
        $0.threshold = 0
      }
      #expect(anyway.results.map(\.path) == ["down", "q", "up"])
    }
  }

  @Test func anotherShapeIsRefused() throws {
    let base = try model("base") { $1 }
    let wider = try model("wider") { name, old in name == "q" ? random(12, 10, seed: 1) : old }
    do {
      _ = try transfer(writeAdapter(), from: base, to: wider)
      Issue.record("moved")
    } catch let error as PeftoolError {
      #expect(
        error.description.hasSuffix(
          "tensor 'q.weight': has shape [12, 10], the adapter changes a linear of [10, 10]; but for "
            + "--method procrustes transfer is between models of the same shapes"), "\(error)")
    }
  }
}
