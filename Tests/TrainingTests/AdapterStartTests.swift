import Adapters
import Checkpoints
import Files
import Fixtures
import JSON
import LinearAlgebra
import Models
import Quantization
import Tensors
import Testing

@testable import Training

/// A weight of random numbers, read from a file.
private func weight(_ outputs: Int, _ inputs: Int, seed: Int = 1) throws -> FrozenWeight {
  var numbers = SplitMix64(seed: seed)
  let values = (0..<outputs * inputs).map { _ in Float.random(in: -1...1, using: &numbers) }
  let scratch = try Scratch()
  let encoded = try SafetensorsHeader.encode(
    [.init(name: "w", dtype: .f32, shape: [outputs, inputs])], order: .given)
  let bytes = values.flatMap { value in
    (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) }
  }
  let file = try Checkpoint(opening: scratch.write("w.safetensors", encoded.bytes + bytes))
  return try FrozenWeight(file.tensors[0], in: file.source)
}

private func matrix(_ rows: Rows) -> Matrix<Double> {
  Matrix(rows: rows.count, columns: rows.columns, elements: rows.values.map(Double.init))
}

private func matrix(_ weight: FrozenWeight) -> Matrix<Double> {
  Matrix(
    rows: weight.outputs, columns: weight.inputs, elements: weight.values.map(Double.init))
}

/// s·B·A of some ranks.
private func update(_ adapter: LoRA, _ ranks: Range<Int>) -> Matrix<Double> {
  var result = product(
    matrix(adapter.all.b.rows(ranks)), matrix(adapter.all.a.rows(ranks)), transposing: .left)
  for place in result.elements.indices { result.elements[place] *= Double(adapter.scaling) }
  return result
}

private func norm(_ matrix: Matrix<Double>) -> Double {
  matrix.elements.reduce(0) { $0 + $1 * $1 }.squareRoot()
}

private func difference(_ a: Matrix<Double>, _ b: Matrix<Double>) -> Matrix<Double> {
  Matrix(rows: a.rows, columns: a.columns, elements: zip(a.elements, b.elements).map { $0 - $1 })
}

private func design(_ start: AdapterStart, rank: Int = 4) -> AdapterDesign {
  var design = AdapterDesign()
  design.rank = rank
  // A scaling that is not 1.
  design.alpha = 3 * Double(rank)
  design.start = start
  return design
}

@Suite struct AdapterStartTests {
  @Test(arguments: [(40, 24), (24, 40)], [AdapterStart.pissa, .olora])
  func whatIsTakenFromTheWeightIsFrozen(shape: (Int, Int), start: AdapterStart) throws {
    let weight = try weight(shape.0, shape.1)
    let adapter = try #require(
      try design(start).adapter(of: "l", weight, original: weight))
    #expect(adapter.rank == 4 && adapter.all.a.count == 8)
    // As training begins nothing is changed.
    #expect(norm(update(adapter, 0..<8)) < 1e-6)
    // And A₀ stays when A moves.
    adapter.a.values[0, 0] += 1
    adapter.refresh()
    #expect(norm(update(adapter, 0..<8)) > 0.1)
    #expect(adapter.parameters.map(\.values.count) == [4, 4])
  }

  @Test(arguments: [(40, 24), (24, 40), (300, 280)])
  func pissaTakesTheLargestSingularValues(shape: (Int, Int)) throws {
    let weight = try weight(shape.0, shape.1)
    let adapter = try #require(
      try design(.pissa).adapter(of: "l", weight, original: weight))
    let svd = try SVD(matrix(weight))
    let rest = difference(matrix(weight), update(adapter, 0..<4))
    let expected = svd.singularValues.dropFirst(4).reduce(0) { $0 + $1 * $1 }.squareRoot()
    #expect(abs(norm(rest) - expected) < 1e-4 * expected)
    // Both factors have half of each value.
    for rank in 0..<4 {
      let a = norm(matrix(adapter.a.values.rows(rank..<rank + 1)))
      let b = norm(matrix(adapter.b.values.rows(rank..<rank + 1)))
      #expect(abs(a - b) < 1e-5 * a)
      #expect(abs(a * b * 3 - svd.singularValues[rank]) < 1e-2 * svd.singularValues[rank])
    }
  }

  @Test func oloraTakesQAndR() throws {
    let weight = try weight(40, 24)
    let adapter = try #require(
      try design(.olora).adapter(of: "l", weight, original: weight))
    let qr = QR(matrix(weight))
    let (a, b) = (matrix(adapter.a.values), matrix(adapter.b.values))
    #expect(norm(difference(a, qr.r.firstRows(4))) < 1e-5)
    #expect(norm(difference(b, qr.q.firstColumns(4).transposed())) < 1e-5)
  }

  @Test func loftqMakesUpForQuantization() throws {
    let original = try weight(64, 96)
    let quantized = try original.quantized(.nf4, blockSize: 64, isNested: true)
    let adapter = try #require(
      try design(.loftq, rank: 8).adapter(of: "l", quantized, original: original))
    #expect(adapter.all.a.count == 8)
    let lost = difference(matrix(original), matrix(quantized))
    let svd = try SVD(lost)
    let rest = difference(lost, update(adapter, 0..<8))
    let expected = svd.singularValues.dropFirst(8).reduce(0) { $0 + $1 * $1 }.squareRoot()
    // With s = 3 in it, which PEFT leaves out.
    #expect(abs(norm(rest) - expected) < 1e-4 * expected)
    #expect(norm(rest) < 0.95 * norm(lost))
  }

  @Test(arguments: [AdapterStart.uniform, .gaussian])
  func whatIsDrawnIsOfItsDistribution(start: AdapterStart) throws {
    let weight = try weight(20, 400)
    let adapter = try #require(
      try design(start, rank: 50).adapter(of: "l", weight, original: weight))
    #expect(adapter.b.values.values.allSatisfy { $0 == 0 })
    let a = adapter.a.values.values.map(Double.init)
    let deviation = (a.reduce(0) { $0 + $1 * $1 } / Double(a.count)).squareRoot()
    // U(−1/√400, 1/√400), N(0, 1/50²); 20,000 numbers tell it to half a percent.
    let expected = start == .uniform ? 0.05 / 3.squareRoot() : 0.02
    #expect(abs(deviation - expected) < 0.03 * expected)
    if start == .uniform { #expect(a.allSatisfy { abs($0) <= 0.05 }) }
    var other = design(start, rank: 50)
    other.seed = 1
    let drawn = try #require(try other.adapter(of: "l", weight, original: weight))
    #expect(drawn.a.values.values != adapter.a.values.values)
  }

  @Test(arguments: [AdapterStart.pissa, .olora, .loftq])
  func moreRanksThanThereAreAreRefused(start: AdapterStart) throws {
    let original = try weight(40, 24)
    let weight =
      start == .loftq
      ? try original.quantized(.nf4, blockSize: 64, isNested: true) : original
    let error = #expect(throws: PeftoolError.self) {
      try design(start, rank: 25).adapter(of: "l", weight, original: original)
    }
    #expect(error?.tensor == "l.weight")
    #expect(
      error?.reason == "has 24 ranks, of which --init \(start.rawValue) takes 25")
  }

  @Test func whatIsSavedFitsTheBase() throws {
    func json(_ start: AdapterStart, rsLoRA: Bool) throws -> JSON {
      var design = design(start)
      design.usesRSLoRA = rsLoRA
      design.rankPatterns = [try .init(key: "q", value: 2)]
      design.alphaPatterns = [try .init(key: "q", value: 5)]
      return design.json(modules: ["a.q", "a.k"], base: "b")
    }
    let plain = try json(.gaussian, rsLoRA: false)
    #expect(try plain.int(at: "r") == 4 && plain.double(at: "lora_alpha") == 12)
    #expect(try plain.string(at: "init_lora_weights") == "gaussian")
    for (isRoot, factor) in [(false, 2.0), (true, 2.0.squareRoot())] {
      let doubled = try json(.pissa, rsLoRA: isRoot)
      #expect(try doubled.int(at: "r") == 8)
      #expect(try doubled.double(at: "lora_alpha") == 12 * factor)
      #expect(doubled["init_lora_weights"] == .bool(true))
      #expect(doubled.value(at: ["rank_pattern", "q"]) == .number(4))
      #expect(try doubled["alpha_pattern"]?.double(at: "q") == 5 * factor)
      // The scaling of each is what it was in training.
      let saved = try AdapterConfiguration(doubled)
      for (module, rank, alpha) in [("a.q", 2.0, 5.0), ("a.k", 4.0, 12.0)] {
        let scaling = try saved.scaling(of: module, keptRank: 2 * Int(rank))
        #expect(abs(scaling - alpha / (isRoot ? rank.squareRoot() : rank)) < 1e-12)
      }
    }
  }

  @Test func theOutputEmbeddingGetsNoDoRA() throws {
    let weight = try weight(40, 24)
    var design = design(.uniform)
    design.usesDoRA = true
    design.targets = try TargetModules("lm_head")
    #expect(throws: PeftoolError.self) {
      try design.adapter(of: "lm_head", weight, original: weight)
    }
  }
}
