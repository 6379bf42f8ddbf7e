import Fixtures
import LinearAlgebra
import Testing

@testable import Models

/// What f32 loses in sums of some hundred products, as a part of the largest result.
let f32Tolerance = 2e-6
/// What central differences in f64 lose, as a part of the largest derivative.
let differenceTolerance = 1e-6

/// Random numbers between −1 and 1, the same from the same seed.
func randoms(_ count: Int, seed: Int) -> [Float] {
  var numbers = SplitMix64(seed: seed)
  return (0..<count).map { _ in Float.random(in: -1...1, using: &numbers) }
}

/// Random rows.
func randomRows(_ count: Int, _ columns: Int, seed: Int) -> Rows {
  columns == 0
    ? Rows(count, 0) : Rows(randoms(count * columns, seed: seed), columns: columns)
}

extension Rows {
  /// All numbers in f64.
  var doubles: [Double] { values.map(Double.init) }
  /// All numbers as their bits.
  var bits: [UInt32] { values.map(\.bitPattern) }
}

/// The largest difference, as a part of the largest magnitude expected, or of a larger one that the
/// sums went through.
func error<Found: BinaryFloatingPoint>(
  _ found: [Found], _ expected: [Double], of least: Double = 0
) -> Double {
  guard found.count == expected.count else { return .infinity }
  let largest = expected.reduce(least) { max($0, abs($1)) }
  var worst = 0.0
  for (found, expected) in zip(found, expected) {
    let difference = abs(Double(found) - expected)
    // NaN is no small difference.
    if difference.isNaN { return .infinity }
    worst = max(worst, difference)
  }
  return worst == 0 ? 0 : worst / largest
}

/// The derivatives of a function in f64 by each of its arguments.
func centralDifferences(at x: [Double], of function: ([Double]) -> Double) -> [Double] {
  let step = 1e-5
  return x.indices.map { place in
    var (high, low) = (x, x)
    high[place] += step
    low[place] -= step
    return (function(high) - function(low)) / (2 * step)
  }
}

/// Σ a·b.
func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }

/// Threads and memory for layers of so many tokens.
func workspace(
  threads: Int = 2, tokens: Int = 300, scratch: Int = 1 << 16, rank: Int = 32, masked: Int = 0
) -> Workspace {
  Workspace(
    team: ThreadTeam(count: threads), tokens: tokens, scratch: scratch, rank: rank,
    masked: masked)
}
