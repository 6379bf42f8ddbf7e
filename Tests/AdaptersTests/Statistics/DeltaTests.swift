import Checkpoints
import Files
import Fixtures
import LinearAlgebra
import Testing

@testable import Adapters

/// The Frobenius norm.
private func norm(_ matrix: Matrix<Double>) -> Double { matrix.elements.norm }

private func minus(_ left: Matrix<Double>, _ right: Matrix<Double>) -> Matrix<Double> {
  Matrix(
    rows: left.rows, columns: left.columns,
    elements: zip(left.elements, right.elements).map { $0 - $1 })
}

private func relativeError(_ found: Double?, _ expected: Double) -> Double {
  found.map { abs($0 - expected) / max(abs(expected), 1e-300) } ?? .infinity
}

/// Figures from factors against the whole (9, 7) updates.
@Suite struct JointCoresTests {
  @Test func figuresAreThoseOfTheWholeUpdates() throws {
    let terms = terms(ranks: [2, 3], weights: [1, -0.6])
    let wholes = terms.map { sum([$0]) }
    let cores = JointCores(terms[0], terms[1])
    #expect(relativeError(cores.left.elements.norm, norm(wholes[0])) < 1e-14)
    #expect(relativeError(cores.right.elements.norm, norm(wholes[1])) < 1e-14)
    #expect(relativeError(cores.difference, norm(minus(wholes[0], wholes[1]))) < 1e-14)
    let inner = zip(wholes[0].elements, wholes[1].elements).reduce(0) { $0 + $1.0 * $1.1 }
    #expect(relativeError(cores.inner, inner) < 1e-12)
  }

  @Test func overlapsAreThoseOfTheFactorsSpaces() throws {
    let terms = terms(ranks: [2, 3], weights: [1, 1])
    let overlaps = try #require(try JointCores(terms[0], terms[1]).overlaps())
    let b = product(QR(terms[0].b).q, QR(terms[1].b).q, transposing: .left)
    let a = product(
      QR(terms[0].a.transposed()).q, QR(terms[1].a.transposed()).q, transposing: .left)
    #expect(relativeError(overlaps.output, b.elements.squaredNorm / 2) < 1e-12)
    #expect(relativeError(overlaps.input, a.elements.squaredNorm / 2) < 1e-12)
  }

  /// Differences of squares would leave 1e-8 here.
  @Test func almostEqualUpdatesAreToldApart() {
    let one = terms(ranks: [3], weights: [1])[0]
    var b = one.b
    b.elements[5] += 1e-12
    let other = Term(a: one.a, b: b, scaling: one.scaling, weight: 1)
    let row = one.a.elements[(5 % 3) * 7..<(5 % 3 + 1) * 7]
    let expected = (b.elements[5] - one.b.elements[5]) * Array(row).norm * one.scaling
    let found = JointCores(one, other).difference
    #expect(abs(found - expected) < 1e-15)
  }

  @Test func otherFactorsOfOneUpdateAreTheSame() throws {
    let one = terms(ranks: [3], weights: [1])[0]
    // B·M and M⁻¹·A, with half of the scaling in B; a row of zeros more.
    let a = Matrix(stacking: [one.a.scaled(rows: [2, -4, 0.5]), Matrix(rows: 1, columns: 7)])
    let b = Matrix(
      joining: [one.b.scaled(columns: [0.5, -0.25, 2]), random(9, 1, seed: 3)])
    let other = Term(a: a, b: b, scaling: one.scaling, weight: 1)
    let cores = JointCores(one, other)
    #expect(cores.difference < 1e-14 * cores.left.elements.norm)
    let overlaps = try #require(try cores.overlaps())
    #expect(overlaps.output > 1 - 1e-13 && overlaps.input > 1 - 1e-13)
  }

  @Test func ofNothingThereIsNoSpace() throws {
    let one = terms(ranks: [3], weights: [1])[0]
    let zero = Term(a: one.a, b: Matrix(rows: 9, columns: 3), scaling: 1, weight: 1)
    #expect(try JointCores(one, zero).overlaps() == nil)
  }

  @Test func orthogonalSpacesDoNotOverlap() throws {
    let q = QR(random(9, 4, seed: 1)).q
    let a = random(2, 7, seed: 2)
    let terms = [q.columns(0..<2), q.columns(2..<4)].map {
      Term(a: a, b: $0, scaling: 1, weight: 1)
    }
    let overlaps = try #require(try JointCores(terms[0], terms[1]).overlaps())
    #expect(overlaps.output < 1e-14 && overlaps.input > 1 - 1e-14)
  }
}

@Suite struct DeltaStatisticsTests {
  private func statistics(_ values: [Double]) -> DeltaStatistics {
    DeltaStatistics(
      path: "x", rank: values.count, singularValues: values, weightNorm: 10, changeNorm: nil)
  }

  @Test func ranksCountWhatDoesTheWork() {
    let even = statistics([3, 3, 3, 3])
    #expect(even.norm == 6 && even.stableRank == 4 && abs(even.effectiveRank - 4) < 1e-12)
    #expect(even.share == 0.6)
    let steep = statistics([4, 2, 0, 0])
    #expect(steep.stableRank == 1.25)
    // 2/3 and 1/3: the entropy is ln 3 − (2/3)·ln 2.
    #expect(abs(steep.effectiveRank - 1.8898815748423097) < 1e-12)
    let none = statistics([0, 0])
    #expect(none.norm == 0 && none.stableRank == 0 && none.effectiveRank == 0)
  }
}

/// Adapters and bases in files.
@Suite struct AdapterFiguresTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func factors(_ prefix: String, scale: Float = 1) -> [Values] {
    let a = Values("\(prefix).lora_A.weight", [2, 7])
    return [
      Values(a.name, a.shape, a.values.map { $0 * scale }),
      Values("\(prefix).lora_B.weight", [9, 2]),
    ]
  }

  private func matrix(_ values: Values) -> Matrix<Double> {
    Matrix<Double>(
      Matrix(rows: values.shape[0], columns: values.shape[1], elements: values.values))
  }

  @Test(arguments: [1, 2])
  func normsAndSharesAreThoseOfTheWholeMatrices(threads: Int) throws {
    let tensors =
      factors("base_model.model.x") + factors("base_model.model.y", scale: 0.5)
    let path = try scratch.writeAdapter(fields: "\"r\": 2, \"lora_alpha\": 6", tensors)
    let weights = [Values("x.weight", [9, 7]), Values("y.weight", [9, 7])]
    let base = try BaseModel(Checkpoint(opening: scratch.writeModel(weights)))
    let adapter = try AdapterFormat.readPairs(path, base: base).adapter
    let found = try AdapterStatistics(of: adapter, base: base).run(threads: threads) { _ in }
    #expect(found.map(\.path) == ["x", "y"])
    for (place, one) in found.enumerated() {
      let delta = product(matrix(tensors[2 * place + 1]), matrix(tensors[2 * place]))
        .scaled(by: 3)
      #expect(relativeError(one.norm, norm(delta)) < 1e-13)
      let values = try SVD.singularValues(of: delta)
      #expect(zip(one.singularValues, values).allSatisfy { abs($0 - $1) < 1e-13 })
      #expect(one.singularValues.count == 2)
      #expect(
        relativeError(one.share, norm(delta) / norm(matrix(weights[place]))) < 1e-13)
      #expect(one.changeNorm == nil)
    }
  }

  @Test func theChangeOfDoRAIsThatOfTheWholeMatrix() throws {
    var tensors = factors("base_model.model.x")
    let m = Values(
      "base_model.model.x.lora_magnitude_vector", [9], (0..<9).map { 1 + 0.25 * Float($0) })
    tensors.append(m)
    let path = try scratch.writeAdapter(
      fields: "\"r\": 2, \"lora_alpha\": 1, \"use_dora\": true", tensors)
    let weight = Values("x.weight", [9, 7])
    let base = try BaseModel(Checkpoint(opening: scratch.writeModel([weight])))
    let adapter = try AdapterFormat.readPairs(path, base: base).adapter
    let found = try #require(
      try AdapterStatistics(of: adapter, base: base).run(threads: 1) { _ in }.first)

    let w = matrix(weight)
    let d = product(matrix(tensors[1]), matrix(tensors[0])).scaled(by: 0.5)
    var merged = w
    for row in 0..<9 {
      let range = row * 7..<(row + 1) * 7
      for place in range { merged.elements[place] += d.elements[place] }
      let length = Array(merged.elements[range]).norm
      for place in range { merged.elements[place] *= Double(m.values[row]) / length }
    }
    #expect(relativeError(found.changeNorm, norm(minus(merged, w))) < 1e-12)
    #expect(relativeError(found.norm, norm(d)) < 1e-13)
    #expect(relativeError(found.weightNorm, norm(w)) < 1e-13)
  }

  @Test func aWeightOfAnotherShapeIsRefused() throws {
    let path = try scratch.writeAdapter(factors("base_model.model.x"))
    let base = try BaseModel(
      Checkpoint(opening: scratch.writeModel([Values("x.weight", [7, 9])])))
    let adapter = try AdapterFormat.readPairs(path).adapter
    #expect {
      try AdapterStatistics(of: adapter, base: base)
    } throws: {
      let error = $0 as? PeftoolError
      return error?.kind == .different && error?.tensor == "x.weight"
        && error?.reason == "has shape [7, 9], the adapter changes a linear of [9, 7]"
    }
  }

  @Test func modulesSavedWholeAreLeftOut() throws {
    let path = try scratch.writeAdapter(
      factors("base_model.model.x") + [Values("base_model.model.head.weight", [3, 7])])
    #expect(try AdapterFormat.readPairs(path).adapter.modules.map(\.path) == ["x"])
  }

  @Test func adaptersArePairedByModule() throws {
    let first = try scratch.writeAdapter(
      named: "one", factors("base_model.model.x") + factors("base_model.model.z"))
    let second = try scratch.writeAdapter(
      named: "two", fields: "\"r\": 2, \"lora_alpha\": 4",
      factors("base_model.model.y") + factors("base_model.model.x")
        + [
          Values("base_model.model.z.lora_A.weight", [2, 5]),
          Values("base_model.model.z.lora_B.weight", [9, 2]),
        ])
    let comparison = try AdapterComparison(
      try AdapterFormat.readPairs(first).adapter, try AdapterFormat.readPairs(second).adapter)
    #expect(comparison.onlyInLeft == [] && comparison.onlyInRight == ["y"])
    #expect(comparison.misfits.map(\.path) == ["z"])
    let found = try #require(try comparison.run(threads: 2) { _ in }.first)
    // The same factors at twice the scaling.
    #expect(abs((found.cosine ?? 0) - 1) < 1e-14)
    #expect(relativeError(found.normRatio, 0.5) < 1e-14)
    #expect(relativeError(found.relative, 0.5) < 1e-14)
    #expect(!found.isEqual)
    #expect(found.isWithin(.init(absolute: 0, relative: 0.5001)))
    #expect(!found.isWithin(.init(absolute: 0, relative: 0.4999)))
    #expect(found.isWithin(.init(absolute: found.norms.right, relative: 0)))
  }

  @Test func biasesOfBCountWithTheirScaling() throws {
    let tensors = factors("base_model.model.x")
    let bias = Values("base_model.model.x.lora_B.bias", [9])
    let first = try scratch.writeAdapter(named: "one", tensors)
    let second = try scratch.writeAdapter(
      named: "two", fields: "\"r\": 2, \"lora_alpha\": 2, \"lora_bias\": true", tensors + [bias])
    let comparison = try AdapterComparison(
      try AdapterFormat.readPairs(first).adapter, try AdapterFormat.readPairs(second).adapter)
    let found = try #require(try comparison.run(threads: 1) { _ in }.first)
    #expect(found.difference == 0)
    #expect(relativeError(found.bias?.difference, bias.values.map(Double.init).norm) < 1e-14)
    #expect(!found.isEqual)
  }
}
