import Files
import Glibc
import LinearAlgebra
import Synchronization
import Testing

/// A matrix that counts its passes and may fail.
private final class CountedMatrix: LinearOperator {
  private let matrix: Matrix<Double>
  private let limit: Int
  private let passes = Atomic(0)
  var rows: Int { matrix.rows }
  var columns: Int { matrix.columns }
  var passCount: Int { passes.load(ordering: .relaxed) }

  init(_ matrix: Matrix<Double>, limit: Int = .max) {
    self.matrix = matrix
    self.limit = limit
  }

  private func pass() throws(PeftoolError) {
    guard passes.add(1, ordering: .relaxed).newValue <= limit else {
      throw PeftoolError(.io, "cannot be read")
    }
  }

  func times(_ other: Matrix<Double>) throws(PeftoolError) -> Matrix<Double> {
    try pass()
    return matrix.times(other)
  }

  func transposedTimes(_ other: Matrix<Double>) throws(PeftoolError) -> Matrix<Double> {
    try pass()
    return matrix.transposedTimes(other)
  }
}

@Suite struct RandomizedSVDTests {
  static let spectra: [[Double]] = [
    (0..<60).map { pow(0.8, Double($0)) },
    (0..<60).map { 1 / Double(1 + $0) },
    (0..<60).map { 1 / Double((1 + $0) * (1 + $0)) },
    (0..<8).map { Double(8 - $0) },
  ]

  @Test(arguments: spectra, [(120, 80), (80, 120)])
  func decayingValuesAreThoseOfGESDD(spectrum: [Double], sizes: (Int, Int)) throws {
    let matrix = Matrices.graded(sizes.0, sizes.1, spectrum)
    let exact = try SVD.singularValues(of: matrix)
    let narrow = Matrix<Float>(matrix)
    for seed in 0..<5 as Range<UInt64> {
      let wide = try RandomizedSVD(of: matrix, rank: 8, .init(seed: seed)).svd
      let float = try RandomizedSVD(of: narrow, rank: 8, .init(seed: seed)).svd
      #expect(wide.singularValues.count == 8)
      #expect(Matrices.skew(ofColumns: wide.u) < doubleTolerance)
      #expect(Matrices.skew(ofColumns: wide.vt.transposed()) < doubleTolerance)
      for index in 0..<8 {
        #expect((wide.singularValues[index] / exact[index] - 1).magnitude < 1e-3)
        #expect((Double(float.singularValues[index]) / exact[index] - 1).magnitude < 1e-3)
      }
    }
  }

  @Test func aPlantedRankIsRebuiltExactly() throws {
    let matrix = Matrices.graded(90, 70, [5, 4, 3, 2, 1])
    let svd = try RandomizedSVD(of: matrix, rank: 5, .init(seed: 1)).svd
    #expect(Matrices.distance(Matrices.rebuilt(svd), matrix) < doubleTolerance)
    let direct = try SVD(matrix).truncated(to: 5)
    #expect(Matrices.distance(svd.u, direct.u) < 1e-12)
    #expect(Matrices.distance(svd.vt, direct.vt) < 1e-12)
  }

  /// ‖M − U·diag(σ)·Vᵀ‖² is ‖M‖² − Σσ²: the values are those of the vectors beside them.
  @Test func valuesTellWhatTheCutLeavesOut() throws {
    let matrix = Matrices.random(50, 40)
    let squaredNorm = Matrices.squaredNorm(matrix)
    let found = try RandomizedSVD(of: matrix, rank: 6, .init(seed: 3))
    var rest = Matrices.rebuilt(found.svd)
    for place in rest.elements.indices { rest.elements[place] -= matrix.elements[place] }
    let kept = found.svd.singularValues.reduce(0) { $0 + $1 * $1 }
    let truncation = (squaredNorm - kept).squareRoot()
    #expect((truncation - Matrices.squaredNorm(rest).squareRoot()).magnitude < 1e-12)
  }

  /// Gaussian noise has values that hardly decay, and what is above them a fine-tune's.
  @Test(arguments: [(300, 200), (200, 300), (256, 256)])
  func valuesOfNoiseAreThoseOfGESDD(sizes: (Int, Int)) throws {
    let noise = Matrices.random(sizes.0, sizes.1)
    var raised = Matrices.graded(sizes.0, sizes.1, [30, 20, 10])
    for place in raised.elements.indices { raised.elements[place] += noise.elements[place] }
    for matrix in [noise, raised] {
      let exact = try SVD.singularValues(of: matrix)
      for seed in 0..<3 as Range<UInt64> {
        let found = try RandomizedSVD(of: Matrix<Float>(matrix), rank: 16, .init(seed: seed))
        #expect(found.isConverged)
        for (value, exact) in zip(found.svd.singularValues, exact) {
          #expect((Double(value) / exact - 1).magnitude < 1e-3)
        }
      }
    }
  }

  @Test func oneBlockMoreOfThePlaceToStartFromIsEnough() throws {
    let matrix = Matrices.graded(120, 80, (0..<60).map { pow(0.9, Double($0)) })
    let exact = try SVD(matrix).truncated(to: 18)
    let near = CountedMatrix(matrix)
    let found = try RandomizedSVD(
      of: near, rank: 8, .init(seed: 1), startingWith: exact.vt.transposed())
    #expect(near.passCount <= 4 && found.isConverged)
    #expect(Matrices.distance(found.svd.u, exact.u.firstColumns(8)) < 1e-9)
  }

  @Test func whatDoesNotConvergeSaysSo() throws {
    let matrix = Matrices.random(200, 200)
    let found = try RandomizedSVD(
      of: matrix, rank: 8, .init(seed: 1, oversampling: 0, maximumBlockCount: 2))
    #expect(!found.isConverged)
    let whole = try RandomizedSVD(
      of: matrix, rank: 100, .init(seed: 1, tolerance: 0))
    let exact = try SVD.singularValues(of: matrix)
    // The second block is cut, and the basis is whole.
    #expect(whole.isConverged && whole.projectedValues.count == 200)
    #expect((whole.projectedValues[0] / exact[0] - 1).magnitude < 1e-9)
  }

  @Test func theRankGrowsUntilTheEnergyIsKept() throws {
    let spectrum = (0..<60).map { pow(0.95, Double($0)) }
    let matrix = Matrices.graded(120, 80, spectrum)
    let squaredNorm = Matrices.squaredNorm(matrix)
    for share in [0, 0.05, 0.5, 0.9, 0.99, 0.999, 1 - 1e-12] {
      let found = try RandomizedSVD(
        of: matrix, energyShare: share, squaredNorm: squaredNorm, .init(seed: 1))
      let values = found.svd.singularValues
      #expect(values.reduce(0) { $0 + $1 * $1 } >= share * squaredNorm)
      #expect(values.dropLast().reduce(0) { $0 + $1 * $1 } < share * squaredNorm || share == 0)
      var (needed, kept) = (0, 0.0)
      while kept < share * squaredNorm, needed < 60 {
        kept += spectrum[needed] * spectrum[needed]
        needed += 1
      }
      // What is found of a value is less than it is, so it may take one value more.
      #expect(values.count == needed || values.count == needed + 1)
      if share < 0.999 { #expect(values.count == needed) }
    }
  }

  @Test func theRankGrowsNoFurtherThanItMay() throws {
    let matrix = Matrices.random(80, 60)
    let squaredNorm = Matrices.squaredNorm(matrix)
    let found = try RandomizedSVD(
      of: matrix, energyShare: 0.999, squaredNorm: squaredNorm, maximumRank: 20, .init(seed: 1))
    #expect(found.svd.singularValues.count == 20)
    let all = try RandomizedSVD(
      of: matrix, energyShare: 1, squaredNorm: 2 * squaredNorm, .init(seed: 1))
    #expect(all.svd.singularValues.count == 60)
    #expect(Matrices.distance(Matrices.rebuilt(all.svd), matrix) < doubleTolerance)
  }

  @Test(arguments: [(0, 5), (5, 0), (0, 0), (3, 2), (1, 1)])
  func smallSizesAreFine(rows: Int, columns: Int) throws {
    let matrix = Matrices.random(rows, columns)
    let found = try RandomizedSVD(of: matrix, rank: 4, .init(seed: 1))
    #expect(Matrices.distance(Matrices.rebuilt(found.svd), matrix) < doubleTolerance)
    let none = try RandomizedSVD(of: matrix, rank: 0, .init(seed: 1))
    #expect(none.svd.singularValues == [] && none.svd.vt == Matrix(rows: 0, columns: columns))
    let zero = Matrix<Double>(rows: rows, columns: columns)
    let empty = try RandomizedSVD(of: zero, energyShare: 1, squaredNorm: 0, .init(seed: 1))
    #expect(empty.svd.singularValues == [])
  }

  @Test(arguments: [1, 2, 3]) func aBlockTakesTwoPasses(blockCount: Int) throws {
    let matrix = CountedMatrix(Matrices.random(60, 50))
    _ = try RandomizedSVD(
      of: matrix, rank: 3, .init(seed: 1, tolerance: 0, maximumBlockCount: blockCount))
    #expect(matrix.passCount == 2 * blockCount)
  }

  @Test func errorsPassThrough() {
    for limit in 0..<4 {
      let matrix = CountedMatrix(Matrices.random(30, 20), limit: limit)
      #expect(throws: PeftoolError(.io, "cannot be read")) {
        try RandomizedSVD(of: matrix, rank: 3, .init(seed: 1))
      }
    }
    var matrix = Matrices.random(30, 20)
    matrix[4, 4] = .nan
    #expect { try RandomizedSVD(of: matrix, rank: 3, .init(seed: 1)) } throws: {
      ($0 as? PeftoolError)?.kind == .damaged
    }
  }
}
