import Testing

@testable import Models

/// A shape of attention: how many heads of which size, and how long the texts are.
struct AttentionCase: Sendable, CustomTestStringConvertible {
  let heads, keyHeads, headSize: Int
  let lengths: [Int]
  var window: Int?
  var greatest: Float = 1

  var testDescription: String {
    let window = window.map { "\($0)" } ?? "of all"
    return "\(heads)/\(keyHeads) heads of \(headSize), texts of \(lengths), window \(window)"
  }

  var texts: [Range<Int>] {
    var start = 0
    return lengths.map { length in
      start += length
      return start - length..<start
    }
  }
  var count: Int { lengths.reduce(0, +) }
  var longest: Int { lengths.reduce(0, max) }
  var attention: Attention {
    Attention(
      heads: heads, keyHeads: keyHeads, headSize: headSize, window: window,
      scaling: 1 / Float(headSize).squareRoot())
  }
  var twin: AttentionTwin {
    AttentionTwin(
      heads: heads, keyHeads: keyHeads, headSize: headSize, window: window,
      scaling: Double(attention.scaling), texts: texts)
  }
  /// q, k, v and dOut; k and v are part of wider rows.
  var inputs: (q: Rows, k: Rows, v: Rows, dOut: Rows) {
    let (queries, keys) = (heads * headSize, keyHeads * headSize)
    let both = randomRows(count, 2 * keys + 3, seed: 2)
    let scaled = randoms(count * queries, seed: 1).map { $0 * greatest }
    let q = Rows(scaled, columns: queries)
    return (
      q, both.columns(0..<keys), both.columns(keys + 1..<2 * keys + 1),
      randomRows(count, queries, seed: 4)
    )
  }
}

/// Lengths around the 48 queries and 64 keys of a block.
private let cases: [AttentionCase] =
  [
    .init(heads: 4, keyHeads: 1, headSize: 8, lengths: [130]),
    .init(heads: 3, keyHeads: 3, headSize: 16, lengths: [47, 48, 49]),
    .init(heads: 4, keyHeads: 2, headSize: 20, lengths: [1, 2, 65, 63, 1]),
    .init(heads: 2, keyHeads: 1, headSize: 2, lengths: [96, 64]),
    .init(heads: 1, keyHeads: 1, headSize: 33, lengths: [145]),
    // Scores in the hundreds: one key or two have all the weight.
    .init(heads: 2, keyHeads: 2, headSize: 16, lengths: [70], greatest: 400),
  ]
  + [1, 2, 5, 48, 64, 65, 200].map {
    .init(heads: 2, keyHeads: 1, headSize: 6, lengths: [150, 66], window: $0)
  }

/// An exponential doubles the error of its argument's last place for each power of two of it: with
/// scores up to 400·4/√16 that is 2⁹ times f32's.
private func tolerance(_ shape: AttentionCase) -> Double {
  shape.greatest > 1 ? 2e-4 : 2 * f32Tolerance
}

@Suite struct AttentionTests {
  @Test(arguments: cases) func streamedAttentionIsThatOfWholeMatrices(shape: AttentionCase) {
    let (q, k, v, dOut) = shape.inputs
    let (attention, count) = (shape.attention, shape.count)
    let work = workspace(scratch: attention.scratchCount(length: shape.longest))
    let (o, lse) = (Rows(count, q.columns), Rows(shape.heads, count))
    attention.forward(
      q: q, k: k, v: v, texts: AttentionRanges(shape.texts), into: o, lse: lse, work)
    let expected = shape.twin.forward(q.doubles, k.doubles, v.doubles)
    #expect(error(o.values, expected.o) < tolerance(shape))
    #expect(error(lse.values, expected.lse) < f32Tolerance)

    // What is there before has to go.
    let (dq, dk, dv) = (
      randomRows(count, q.columns, seed: 6), randomRows(count, q.columns, seed: 7),
      randomRows(count, q.columns, seed: 8)
    )
    attention.backward(
      q: q, k: k, v: v, o: o, lse: lse, dOut: dOut, texts: AttentionRanges(shape.texts), into: dq,
      dk, dv, work)
    let (foldedK, foldedV) = (Rows(count, k.columns), Rows(count, k.columns))
    attention.fold(dk, into: foldedK, work)
    attention.fold(dv, into: foldedV, work)
    let gradients = shape.twin.backward(q.doubles, k.doubles, v.doubles, dOut.doubles)
    // With a window of 1 they are 0: what is left is of the products with dOut.
    #expect(error(dq.values, gradients.dq, of: 1) < tolerance(shape))
    #expect(error(foldedK.values, gradients.dk, of: 1) < tolerance(shape))
    #expect(error(foldedV.values, gradients.dv) < tolerance(shape))
  }

  @Test(arguments: [nil, 1, 3])
  func theTwinsGradientsAreThoseOfItsForward(window: Int?) {
    let shape = AttentionCase(
      heads: 4, keyHeads: 2, headSize: 2, lengths: [5, 3], window: window)
    let inputs = shape.inputs
    let (q, k, v, dOut) = (
      inputs.q.doubles, inputs.k.doubles, inputs.v.doubles, inputs.dOut.doubles
    )
    let twin = shape.twin
    let (dq, dk, dv) = twin.backward(q, k, v, dOut)
    let byQ = centralDifferences(at: q) { dot(dOut, twin.forward($0, k, v).o) }
    let byK = centralDifferences(at: k) { dot(dOut, twin.forward(q, $0, v).o) }
    let byV = centralDifferences(at: v) { dot(dOut, twin.forward(q, k, $0).o) }
    if window == 1 {
      // A query that sees one key takes its value, whatever the score.
      #expect(dq.allSatisfy { abs($0) < 1e-15 })
      #expect(byQ.allSatisfy { abs($0) < 1e-9 })
    } else {
      #expect(error(dq, byQ) < differenceTolerance)
      #expect(error(dk, byK) < differenceTolerance)
    }
    #expect(error(dv, byV) < differenceTolerance)
  }

  @Test func threadsAndNeighboursChangeNoBit() {
    let shape = AttentionCase(heads: 4, keyHeads: 2, headSize: 12, lengths: [50, 70, 3])
    let expected = outputs(shape, shape.texts, threads: 1)
    for threads in [2, 3, 7] {
      #expect(outputs(shape, shape.texts, threads: threads) == expected)
    }
    let columns = shape.heads * shape.headSize
    for text in shape.texts {
      let alone = outputs(shape, [text], threads: 2)
      let own = text.lowerBound * columns..<text.upperBound * columns
      #expect(Array(alone[own]) == Array(expected[own]))
    }
  }

  private func outputs(
    _ shape: AttentionCase, _ texts: [Range<Int>], threads: Int
  ) -> [UInt32] {
    let (q, k, v, _) = shape.inputs
    let work = workspace(
      threads: threads, scratch: shape.attention.scratchCount(length: shape.longest))
    let (o, lse) = (Rows(shape.count, q.columns), Rows(shape.heads, shape.count))
    shape.attention.forward(
      q: q, k: k, v: v, texts: AttentionRanges(texts), into: o, lse: lse, work)
    return o.bits + lse.bits
  }
}
