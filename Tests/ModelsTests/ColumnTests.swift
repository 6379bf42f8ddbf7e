import CKernels
import Testing

@testable import Models

/// What is done column by column, and with heads, to the bit.
@Suite struct ColumnTests {
  @Test(arguments: [1, 15, 16, 33], [(true, true), (true, false), (false, true)])
  func columnsAreScaledAndShifted(columns: Int, has: (factors: Bool, offsets: Bool)) {
    let all = randomRows(6, columns + 3, seed: 1)
    let before = all.values
    let (factors, offsets) = (randomRows(1, columns, seed: 2), randomRows(1, columns, seed: 3))
    all.columns(2..<2 + columns).scaleColumns(
      by: has.factors ? factors : nil, plus: has.offsets ? offsets : nil)
    for row in 0..<6 {
      for column in 0..<columns + 3 {
        var expected = before[row * (columns + 3) + column]
        if (2..<2 + columns).contains(column) {
          if has.factors { expected *= factors[0, column - 2] }
          if has.offsets { expected += offsets[0, column - 2] }
        }
        #expect(all[row, column] == expected)
      }
    }
  }

  @Test(arguments: [1, 15, 16, 33], [false, true])
  func productsAreSummedOverTheRows(columns: Int, hasOffsets: Bool) {
    let x = randomRows(7, columns + 1, seed: 1).columns(0..<columns)
    let y = randomRows(7, columns + 2, seed: 2).columns(2..<2 + columns)
    let sums = randomRows(1, columns, seed: 3)
    let offsets = hasOffsets ? randomRows(1, columns, seed: 4) : nil
    var expected = sums.values
    for row in 0..<7 {
      for column in 0..<columns {
        let change = y[row, column] - (offsets?[0, column] ?? 0)
        expected[column].addProduct(x[row, column], change)
      }
    }
    sums.addColumnProducts(x, y, offsets: offsets)
    #expect(sums.values == expected)
  }

  /// Sums of groups go on from what is there, and lose nothing on their way.
  @Test(arguments: [1, 8, 33]) func columnsAreRepeatedAndSummed(group: Int) {
    let x = randomRows(3, 5, seed: 1)
    let repeated = Rows(3, 5 * group)
    repeated.copy(from: x, repeating: group)
    for row in 0..<3 {
      for column in 0..<5 * group { #expect(repeated[row, column] == x[row, column / group]) }
    }
    let y = randomRows(3, 5 * group, seed: 2)
    let sums = randomRows(3, 5, seed: 3)
    let before = sums.values
    sums.addSums(of: y, groupSize: group)
    for row in 0..<3 {
      for column in 0..<5 {
        let sum = (0..<group).reduce(0.0) { $0 + Double(y[row, column * group + $1]) }
        #expect(sums[row, column] == before[row * 5 + column] + Float(sum))
      }
    }
  }

  @Test func withoutASecondFactorColumnsAreSummed() {
    let x = randoms(5 * 20, seed: 1)
    var sums = randoms(18, seed: 2)
    var expected = sums
    for row in 0..<5 { for column in 0..<18 { expected[column] += x[row * 20 + column] } }
    pef_column_products_f32(&sums, x, 20, nil, 0, 5, 18, nil)
    #expect(sums == expected)
  }

  @Test(arguments: [(1, 1), (4, 4), (6, 2), (8, 1)])
  func sharesOfTheHeadsOfAGroupAreAddedInTheirOrder(heads: Int, keyHeads: Int) {
    let (count, size) = (70, 5)
    let attention = Attention(
      heads: heads, keyHeads: keyHeads, headSize: size, window: nil, scaling: 1)
    let x = randomRows(count, heads * size, seed: 1)
    let y = Rows(count, keyHeads * size)
    attention.fold(x, into: y, workspace())
    let repeats = heads / keyHeads
    for token in 0..<count {
      for column in 0..<keyHeads * size {
        let (group, place) = (column / size, column % size)
        let first = x[token, group * repeats * size + place]
        let expected = (1..<repeats).reduce(first) {
          $0 + x[token, (group * repeats + $1) * size + place]
        }
        #expect(y[token, column] == expected)
      }
    }
  }

  @Test func rowsAreAddedAndCleared() {
    let (x, y) = (randomRows(5, 7, seed: 1), randomRows(5, 7, seed: 2))
    let expected = zip(x.values, y.values).map { $0 + $1 }
    x.add(y)
    #expect(x.values == expected)
    x.clear()
    #expect(x.values.allSatisfy { $0 == 0 })
  }

  @Test func partsOfRowsShareTheirMemory() {
    let rows = randomRows(4, 6, seed: 1)
    let part = rows.rows(1..<3).columns(2..<5)
    part[1, 2] = 9
    #expect(rows[2, 4] == 9)
    #expect(part.values == (1..<3).flatMap { row in (2..<5).map { rows[row, $0] } })
    part.copy(from: Rows([1, 2, 3, 4, 5, 6], columns: 3))
    #expect(rows[1, 2] == 1 && rows[2, 4] == 6 && rows[1, 1] != 0)
    #expect(rows.reshaped(2, 3).values == Array(rows.values[..<6]))
  }
}
