import LinearAlgebra
import Testing

@testable import Adapters

@Suite struct DoRAExtractionTests {
  private func random(_ rows: Int, _ columns: Int, seed: UInt64) -> Matrix<Double> {
    let numbers = RandomNumbers(seed: seed, stream: 9)
    return Matrix(
      rows: rows, columns: columns,
      elements: (0..<rows * columns).map { numbers.normal($0) })
  }

  /// A weight of rows near 1, and what a DoRA adapter changes in it.
  private func planted(
    _ rows: Int, _ columns: Int, rank: Int, seed: UInt64
  ) -> (weight: Matrix<Float>, change: Matrix<Float>) {
    let root = 1 / Double(columns).squareRoot()
    let w = random(rows, columns, seed: seed).scaled(by: root)
    let d = product(
      random(rows, rank, seed: seed + 1),
      random(rank, columns, seed: seed + 2).scaled(by: 0.1 * root))
    let lengths = random(rows, 1, seed: seed + 3).elements.map { 1 + 0.1 * $0 }
    var change = w
    for row in 0..<rows {
      for place in row * columns..<(row + 1) * columns {
        let v = w.elements[place] + d.elements[place]
        change.elements[place] = lengths[row] * v - w.elements[place]
      }
    }
    return (Matrix(w), Matrix(change))
  }

  /// The error in f64, of what was found in any precision.
  private func squaredError(
    _ found: DoRAExtraction, _ weight: Matrix<Float>, _ change: Matrix<Float>
  ) -> Double {
    let d = product(found.pair.b, found.pair.a)
    var sum = 0.0
    for place in change.elements.indices {
      let (w, c) = (Double(weight.elements[place]), found.factors[place / weight.columns])
      let error = Double(change.elements[place]) - (c - 1) * w - c * d.elements[place]
      sum += error * error
    }
    return sum
  }

  @Test(arguments: [(96, 80), (300, 280), (280, 320)])
  func aPlantedAdapterIsFoundAgain(sizes: (Int, Int)) throws {
    let (weight, change) = planted(sizes.0, sizes.1, rank: 8, seed: 1)
    let found = try DoRAExtraction(
      change: change, of: weight, to: .fixed(8), Decomposition())
    let error = squaredError(found, weight, change)
    #expect((error / change.squaredNorm).squareRoot() < 1e-4)
    #expect(abs(error - found.squaredError) < 1e-9 * change.squaredNorm)
    let magnitude = found.magnitude(of: weight)
    #expect(magnitude.allSatisfy { $0 > 0 })
  }

  @Test(arguments: 0..<12 as Range<UInt64>)
  func itIsNeverWorseThanLoRA(seed: UInt64) throws {
    var (weight, change) = planted(40, 56, rank: 6, seed: 10 * seed)
    if seed % 3 == 0 {
      // Noise, of which no magnitude takes anything off.
      change = Matrix(random(40, 56, seed: seed).scaled(by: 0.05))
    }
    if seed % 4 == 1 {
      for place in 0..<56 { weight.elements[place] = 0 }
    }
    for rank in [1, 3, 6] {
      let found = try DoRAExtraction(
        change: change, of: weight, to: .fixed(rank), Decomposition())
      let lora = try Truncation(of: change, to: .fixed(rank), Decomposition())
      #expect(found.pair.rank == rank)
      #expect(found.squaredError <= (lora.wholeEnergy - lora.energy) * (1 + 1e-6))
    }
  }

  @Test func anEnergyIsKeptByAsFewAsItTakes() throws {
    let (weight, change) = planted(60, 50, rank: 6, seed: 5)
    for share in [0.3, 0.9, 0.999] {
      let found = try DoRAExtraction(
        change: change, of: weight, to: .energy(share), Decomposition())
      #expect(found.squaredError <= (1 - share) * change.squaredNorm * (1 + 1e-6))
      #expect(found.pair.rank <= 50)
    }
  }

  @Test(arguments: [RankChoice.energy(0.99), .energy(0.999), .energy(0.9999)])
  func ofAPlantedAdapterTheRankIsFound(choice: RankChoice) throws {
    let (weight, change) = planted(60, 50, rank: 4, seed: 5)
    let found = try DoRAExtraction(
      change: change, of: weight, to: choice, Decomposition())
    #expect(found.pair.rank == 4)
  }

  @Test func theRandomizedMethodFindsWhatLAPACKDoes() throws {
    let (weight, change) = planted(320, 300, rank: 5, seed: 3)
    var exactly = Decomposition()
    exactly.isExact = true
    for rank in [2, 5] {
      let quick = try DoRAExtraction(
        change: change, of: weight, to: .fixed(rank), Decomposition())
      let exact = try DoRAExtraction(change: change, of: weight, to: .fixed(rank), exactly)
      let whole = change.squaredNorm
      #expect(abs(quick.squaredError - exact.squaredError) < 2e-3 * whole)
    }
  }
}
