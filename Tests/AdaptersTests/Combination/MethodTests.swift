import Fixtures
import LinearAlgebra
import Testing

@testable import Adapters

/// A random matrix.
func random(_ rows: Int, _ columns: Int, seed: Int) -> Matrix<Double> {
  var numbers = SplitMix64(seed: seed)
  return Matrix(
    rows: rows, columns: columns,
    elements: (0..<rows * columns).map { _ in Double.random(in: -1...1, using: &numbers) })
}

/// Random updates of a (9, 7) weight.
func terms(ranks: [Int], weights: [Double]) -> [Term] {
  zip(ranks, weights).enumerated().map { place, pair in
    Term(
      a: random(pair.0, 7, seed: 10 * place + 1),
      b: random(9, pair.0, seed: 10 * place + 2), scaling: 0.5 + Double(place),
      weight: pair.1)
  }
}

/// Σ w·s·B·A.
func sum(_ terms: [Term]) -> Matrix<Double> {
  terms.reduce(into: Matrix(rows: 9, columns: 7)) { sum, term in
    let update = product(term.b, term.a)
    for place in sum.elements.indices {
      sum.elements[place] += term.factor * update.elements[place]
    }
  }
}

/// The largest difference of two matrices.
func distance(_ left: Matrix<Double>, _ right: Matrix<Double>) -> Double {
  zip(left.elements, right.elements).map { ($0 - $1).magnitude }.max() ?? 0
}

extension Pair {
  var update: Matrix<Double> { product(b, a) }
}

@Suite struct MethodTests {
  @Test func concatenationIsTheSum() {
    let terms = terms(ranks: [2, 4, 1], weights: [0.7, -0.6, 0.9])
    let pair = Concatenation.combine(terms)
    #expect(pair.rank == 7)
    #expect(distance(pair.update, sum(terms)) < 1e-14)
  }

  @Test func oneUpdateIsItselfForEveryMethod() throws {
    let terms = terms(ranks: [3], weights: [1])
    var settings = CombinationSettings()
    #expect(distance(try Knots.combine(terms, settings).update, sum(terms)) < 1e-12)
    #expect(distance(try TaskSingularVectors.combine(terms).update, sum(terms)) < 1e-12)
    for method in CombinationMethod.allCases where method.isApart {
      settings.method = method
      let pair = ApartMethods.combine(terms, method, settings) {
        RandomNumbers(seed: 1, stream: UInt64($0))
      }
      #expect(distance(pair.update, sum(terms)) < 1e-14, "\(method)")
    }
    for method in CombinationMethod.allCases where method.isDense {
      let update = DenseMethods.combine(terms, method, settings) {
        RandomNumbers(seed: 1, stream: UInt64($0))
      }
      #expect(distance(Matrix<Double>(update), sum(terms)) < 1e-6, "\(method)")
    }
  }

  /// Where singular vectors are orthogonal already, TSV has nothing to change.
  @Test func orthogonalUpdatesAreAdded() throws {
    let q = QR(random(9, 4, seed: 1)).q
    let p = QR(random(7, 4, seed: 2)).q.transposed()
    let terms = [(0..<2), (2..<4)].map { range in
      Term(
        a: Matrix(
          rows: 2, columns: 7,
          elements: Array(p.elements[range.lowerBound * 7..<range.upperBound * 7])),
        b: q.columns(range), scaling: 2, weight: -0.5)
    }
    #expect(distance(try TaskSingularVectors.combine(terms).update, sum(terms)) < 1e-12)
  }

  /// In KnOTS' basis the mean of updates is their mean; TIES with equal signs is that mean.
  @Test func equalUpdatesStayThemselvesInKnots() throws {
    let one = terms(ranks: [3], weights: [1])[0]
    let pair = try Knots.combine([one, one], CombinationSettings())
    #expect(distance(pair.update, sum([one])) < 1e-12)
  }

  @Test func slerpKeepsTheLengthOfUpdatesOfOneLength() throws {
    let q = QR(random(9, 2, seed: 1)).q
    let terms = (0..<2).map { place in
      Term(a: random(1, 7, seed: 3), b: q.columns(place..<place + 1), scaling: 1, weight: 1)
    }
    let pair = Slerp.combine(terms)
    let length = { (m: Matrix<Double>) in m.elements.reduce(0) { $0 + $1 * $1 }.squareRoot() }
    #expect(abs(length(pair.update) - length(product(terms[0].b, terms[0].a))) < 1e-12)
    // The straight way where there is no angle.
    let same = Slerp.combine([terms[0], terms[0]])
    #expect(distance(same.update, product(terms[0].b, terms[0].a)) < 1e-12)
  }
}

@Suite struct SparsificationTests {
  @Test(
    arguments: [
      (0.5, [0, -4, 3, 0]), (0.49, [0, -4, 0, 0]), (1, [1, -4, 3, 2]), (0, [0, 0, 0, 0]),
    ] as [(Double, [Double])])
  func theLargestAreKept(density: Double, kept: [Double]) {
    #expect([1.0, -4, 3, 2].keepingLargest(density: density) == kept)
  }

  @Test func ofEqualOnesTheFirstAreKept() {
    #expect([2.0, -2, 2, 1, -2].keepingLargest(count: 2) == [2, -2, 0, 0, 0])
    #expect([0.0, 0, 0].keepingLargest(count: 2) == [0, 0, 0])
  }

  @Test func theyAreTheLargestOfAll() {
    let values = random(40, 25, seed: 5).elements
    let sorted = values.sorted { $0.magnitude > $1.magnitude }
    for count in [1, 17, 500, 999] {
      let kept = values.keepingLargest(count: count).filter { $0 != 0 }
      #expect(Set(kept) == Set(sorted.prefix(count)))
    }
  }

  @Test func breadcrumbsDropsBothEnds() {
    #expect(
      [1.0, -2, 3, -4, 5, 6, 7, 8, 9, 10].keepingMiddle(density: 0.3, outliers: 0.2)
        == [0, 0, 0, 0, 0, 6, 7, 8, 0, 0])
  }

  @Test func dellaKeepsTheSumOfMagnitudes() {
    let values = random(6, 50, seed: 6).elements
    let kept = values.keepingByRank(
      density: 0.4, epsilon: 0.1, columns: 50, RandomNumbers(seed: 3))
    let whole = { (list: [Double]) in list.reduce(0) { $0 + $1.magnitude } }
    #expect(abs(whole(kept) - whole(values)) < 1e-9)
    #expect((60...180).contains(kept.count { $0 != 0 }))
  }
}

@Suite struct ElectionTests {
  /// The example of PEFT's sources: signs are elected of the entries as they are.
  @Test func negativeWeightsDoNotTakePartInPEFTsElection() {
    #expect(Election.mean([[1.0], [-1]], weights: [-1, 1], by: .total) == [-1])
  }

  @Test func aTieIsPositive() {
    #expect(Election.mean([[3.0], [-1]], weights: [1, 1], by: .frequency) == [3])
    #expect(Election.mean([[1.0], [-3]], weights: [1, 1], by: .total) == [-3])
  }

  @Test func mergekitDividesByTheWeightsThatAreLeft() {
    let found = Election.weighted([[2.0], [1], [-5]], weights: [1, 3, 0.5], isNormalized: true)
    #expect(found == [1.25])
    #expect(Election.weighted([[2.0], [-1]], weights: [1, 1], isNormalized: false) == [2])
  }
}

@Suite struct RankChoiceTests {
  @Test(
    arguments: [
      (.fixed(2), 2), (.fixed(9), 4), (.energy(0.9), 2), (.energy(1), 4), (.sum(0.5), 1),
      (.sum(0.75), 2), (.ratio(3.9), 2), (.ratio(4), 2), (.ratio(4.1), 3), (.effective, 4),
    ] as [(RankChoice, Int)])
  func ranks(choice: RankChoice, rank: Int) {
    #expect(choice.rank(of: [8, 4, 2, 1]) == rank)
  }

  @Test func nothingHasNoRank() {
    #expect(RankChoice.effective.rank(of: [0, 0]) == 0)
    #expect(RankChoice.effectiveRank(of: [2, 2, 2]).rounded() == 3)
  }
}
