import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

@testable import Adapters

/// Tensors in a file of their own, which goes when the value goes.
struct TensorFile {
  let file: SafetensorsFile
  private let scratch: Scratch

  init(_ tensors: [Values]) throws {
    scratch = try Scratch()
    file = try SafetensorsFile(opening: scratch.write("tensors.safetensors", tensors))
  }

  func stored(_ name: String) throws -> StoredTensor {
    StoredTensor(try #require(file.tensors.first { $0.name == name }), in: file)
  }
}

/// A matrix in double precision: the plain twin of what a tile computes.
private struct Matrix {
  var rows: Int
  var columns: Int
  var values: [Double]

  init(_ rows: Int, _ columns: Int, _ values: [Float]) {
    self.rows = rows
    self.columns = columns
    self.values = values.map(Double.init)
  }

  subscript(row: Int, column: Int) -> Double {
    get { values[row * columns + column] }
    set { values[row * columns + column] = newValue }
  }
}

@Suite struct TileTests {
  private static let rows = 13
  private static let columns = 9
  private static let rank = 3
  /// f32 results are those of double precision, rounded once.
  private static let halfULP = 0x1p-24

  private let w: [Float]
  private let a: [Float]
  private let b: [Float]
  private let m: [Float]
  private let own: [Float]

  init() {
    w = Values("w", [Self.rows, Self.columns]).values
    a = Values("a", [Self.rank, Self.columns]).values
    b = Values("b", [Self.rows, Self.rank]).values
    m = Values("m", [Self.rows]).values.map { abs($0) + 0.5 }
    own = Values("own", [Self.rows, Self.columns]).values
  }

  private func makeFile() throws -> TensorFile {
    try TensorFile([
      Values("w", [Self.rows, Self.columns], w), Values("a", [Self.rank, Self.columns], a),
      Values("b", [Self.rows, Self.rank], b), Values("m", [Self.rows], m),
      Values("own", [Self.rows, Self.columns], own),
      Values("rows", [2, Self.columns], Array(own[..<18])),
    ])
  }

  /// s·B·A.
  private func product(_ scaling: Double) -> Matrix {
    var d = Matrix(Self.rows, Self.columns, w)
    for row in 0..<Self.rows {
      for column in 0..<Self.columns {
        d[row, column] =
          scaling
          * (0..<Self.rank).reduce(0.0) {
            $0 + Double(b[row * Self.rank + $1]) * Double(a[$1 * Self.columns + column])
          }
      }
    }
    return d
  }

  private func dora(_ start: [Float], _ d: Matrix) -> Matrix {
    var v = Matrix(Self.rows, Self.columns, start)
    for place in v.values.indices { v.values[place] += d.values[place] }
    for row in 0..<Self.rows {
      let norm = (0..<Self.columns).reduce(0) { $0 + v[row, $1] * v[row, $1] }.squareRoot()
      for column in 0..<Self.columns { v[row, column] *= Double(m[row]) / norm }
    }
    return v
  }

  /// Merges the whole tensor in parts of the given rows.
  private func merged(
    _ file: TensorFile, _ changes: [OutputTensor.WeightedChange], rounding: Rounding,
    rowsAtOnce: Int
  ) throws -> [Float] {
    let tensor = OutputTensor(
      name: "w", dtype: .f32, base: try file.stored("w"), baseDType: .f32, changes: changes,
      fileIndex: 0)
    let prepared = try PreparedTensor<Double>(tensor, rounding)
    var tile = Tile<Double>(columns: Self.columns)
    var result: [Float] = []
    var row = 0
    while row < Self.rows {
      let part = row..<min(row + rowsAtOnce, Self.rows)
      let input = Array(w[(part.lowerBound * Self.columns)..<(part.upperBound * Self.columns)])
      var output = [Float](repeating: 0, count: input.count)
      var span = output.mutableSpan
      var bytes = span.mutableBytes
      _ = try tile.merge(part, of: prepared, from: input.span.bytes, into: &bytes)
      result += output
      row = part.upperBound
    }
    return result
  }

  private func expectNear(_ found: [Float], _ expected: [Double]) {
    for (place, (found, expected)) in zip(found, expected).enumerated() {
      #expect(
        abs(Double(found) - expected) <= Self.halfULP * max(abs(expected), 1) * 1.0001,
        "element \(place): \(found), expected \(expected)")
    }
  }

  private func lowRank(_ file: TensorFile, _ scaling: Double) throws -> LowRank {
    LowRank(
      a: try file.stored("a"), b: try file.stored("b"), rank: Self.rank, scaling: scaling,
      layout: .plain)
  }

  @Test(arguments: [1, 4, 13])
  func oneLoRAIsAddedWithItsWeight(rowsAtOnce: Int) throws {
    let file = try makeFile()
    let change = Change(update: .lowRank(try lowRank(file, 0.75)))
    let found = try merged(
      file, [.init(change: change, weight: -2)], rounding: .once, rowsAtOnce: rowsAtOnce)
    let d = product(0.75)
    expectNear(found, zip(w, d.values).map { Double($0) - 2 * $1 })
  }

  @Test(arguments: [1, 4, 13])
  func oneDoRAHasItsMagnitudesForNorms(rowsAtOnce: Int) throws {
    let file = try makeFile()
    let change = Change(
      update: .dora(try lowRank(file, 0.75), magnitude: try file.stored("m"), .rows))
    let found = try merged(
      file, [.init(change: change, weight: 1)], rounding: .once, rowsAtOnce: rowsAtOnce)
    expectNear(found, dora(w, product(0.75)).values)
    for row in 0..<Self.rows {
      let norm = found[(row * Self.columns)..<((row + 1) * Self.columns)]
        .reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
      #expect(abs(norm - Double(m[row])) < 1e-6)
    }
  }

  @Test func aWeightMultipliesTheWholeChangeOfEachAdapter() throws {
    let file = try makeFile()
    let changes: [OutputTensor.WeightedChange] = [
      .init(
        change: Change(
          update: .dora(try lowRank(file, 0.5), magnitude: try file.stored("m"), .rows)),
        weight: 0.7),
      .init(change: Change(update: .lowRank(try lowRank(file, 1.5))), weight: -0.6),
      .init(change: Change(own: try file.stored("own")), weight: 0.25),
    ]
    let found = try merged(file, changes, rounding: .once, rowsAtOnce: 5)
    let first = dora(w, product(0.5)).values
    let second = product(1.5).values
    let expected = w.indices.map { place in
      let base = Double(w[place])
      return base + 0.7 * (first[place] - base) - 0.6 * second[place]
        + 0.25 * (Double(own[place]) - base)
    }
    expectNear(found, expected)
  }

  @Test func adaptersInTurnTakeDoRAsNormsOfTheBase() throws {
    let file = try makeFile()
    let changes: [OutputTensor.WeightedChange] = [
      .init(change: Change(update: .lowRank(try lowRank(file, 1.5))), weight: 1),
      .init(
        change: Change(
          update: .dora(try lowRank(file, 0.5), magnitude: try file.stored("m"), .rows)),
        weight: 1),
    ]
    let found = try merged(file, changes, rounding: .peft, rowsAtOnce: 5)
    let (d, first) = (product(0.5).values, product(1.5).values)
    // The factor is that of W + d, what it multiplies is the weight merged so far.
    let whole = dora(w, product(0.5)).values
    let expected = w.indices.map { place in
      let sofar = Double(Float(Double(w[place]) + first[place]))
      return whole[place] / (Double(w[place]) + d[place]) * (sofar + d[place])
    }
    for (found, expected) in zip(found, expected) {
      #expect(abs(Double(found) - expected) <= 1e-6 * max(1, abs(expected)))
    }
  }

  @Test func rowsAreReplacedAndFactorsMultiply() throws {
    let file = try makeFile()
    let tokens = Change(update: .replaceRows(try file.stored("rows"), rows: [4, 0]))
    let found = try merged(
      file, [.init(change: tokens, weight: 1)], rounding: .once, rowsAtOnce: 3)
    var expected = w
    expected.replaceSubrange((4 * 9)..<(5 * 9), with: own[0..<9])
    expected.replaceSubrange(0..<9, with: own[9..<18])
    #expect(found == expected)

    let scaled = Change(update: .multiply(try file.stored("m"), .rows))
    let multiplied = try merged(
      file, [.init(change: scaled, weight: 1)], rounding: .once, rowsAtOnce: 3)
    expectNear(multiplied, w.indices.map { Double(w[$0]) * Double(m[$0 / 9]) })
  }
}

@Suite struct LowRankLayoutTests {
  /// Experts: A (r·E, in) expert by expert, B (out, r·E) with the expert running fastest.
  @Test func fusedAndSingleExpertsAreThoseOfPEFT() throws {
    let (experts, rank, inputs, outputs) = (3, 2, 4, 6)
    let left = Values("a", [rank * experts, inputs])
    let right = Values("b", [outputs, rank * experts])
    let (a, b) = (left.values, right.values)
    let file = try TensorFile([left, right])
    func product(_ layout: LowRank.Layout, rows: Int, columns: Int) throws -> [Double] {
      let d = LowRank(
        a: try file.stored("a"), b: try file.stored("b"), rank: rank, scaling: 1, layout: layout)
      var product = [Double](repeating: 0, count: rows * columns)
      try d.factors(Double.self).multiply(rows: 0..<rows, scaling: 1, into: &product)
      return product
    }
    /// PEFT: einsum("o r e, e r i -> e o i", B.reshape(o, r, e), A.reshape(e, r, i)).
    func element(_ expert: Int, _ output: Int, _ input: Int) -> Double {
      (0..<rank).reduce(0.0) { sum, k in
        sum + Double(b[output * rank * experts + k * experts + expert])
          * Double(a[(expert * rank + k) * inputs + input])
      }
    }
    let plain = try product(
      .experts(experts, isTransposed: false), rows: experts * outputs, columns: inputs)
    let transposed = try product(
      .experts(experts, isTransposed: true), rows: experts * inputs, columns: outputs)
    for expert in 0..<experts {
      let single = try product(
        .expert(expert, of: experts, rows: 1..<4), rows: 3, columns: inputs)
      for output in 0..<outputs {
        for input in 0..<inputs {
          let expected = element(expert, output, input)
          #expect(abs(plain[(expert * outputs + output) * inputs + input] - expected) < 1e-12)
          #expect(
            abs(transposed[(expert * inputs + input) * outputs + output] - expected) < 1e-12)
          if (1..<4).contains(output) {
            #expect(abs(single[(output - 1) * inputs + input] - expected) < 1e-12)
          }
        }
      }
    }
  }
}
