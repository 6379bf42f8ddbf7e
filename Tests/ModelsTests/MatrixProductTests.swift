import CKernels
import Fixtures
import Testing

@testable import Models

/// A matrix somewhere in memory: element (i, j) is at start + i·row + j·column.
private struct Strided {
  var memory: [Float]
  let row, column: Int

  init(_ rows: Int, _ columns: Int, gap: Int, isTransposed: Bool = false, seed: Int) {
    row = isTransposed ? 1 : columns + gap
    column = isTransposed ? rows + gap : 1
    memory = randoms(rows * (columns + gap) + columns * (rows + gap) + 1, seed: seed)
  }
}

/// How b lies.
private enum Layout: CaseIterable { case asItLies, copied, transposed }

/// c = a · b or c += a · b by the kernel and by chains of fused multiply-adds, with what lies
/// between the rows of c.
private func products(
  _ m: Int, _ n: Int, _ k: Int, gap: Int, isTransposed: Bool, _ layout: Layout, adding: Bool
) -> (found: [UInt32], expected: [UInt32]) {
  let a = Strided(m, k, gap: gap, isTransposed: isTransposed, seed: m * 64 + k)
  let b = Strided(k, n, gap: gap, isTransposed: layout == .transposed, seed: k * 64 + n + 1)
  var found = Strided(m, n, gap: gap, seed: 2).memory
  var expected = found
  a.memory.withUnsafeBufferPointer { left in
    b.memory.withUnsafeBufferPointer { right in
      for i in 0..<m {
        for j in 0..<n {
          var total: Float? = adding ? expected[i * (n + gap) + j] : nil
          for part in stride(from: 0, to: k, by: Int(PEF_DEPTH)) {
            var sum: Float = 0
            for l in part..<min(k, part + Int(PEF_DEPTH)) {
              sum.addProduct(left[i * a.row + l * a.column], right[l * b.row + j * b.column])
            }
            total = total.map { $0 + sum } ?? sum
          }
          expected[i * (n + gap) + j] = total ?? 0
        }
      }
    }
  }
  let width = Int(PEF_PANEL)
  // What panels do not say stays NaN.
  var panels = [Float](repeating: .nan, count: (n + width - 1) / width * width * k + 1)
  switch layout {
  case .asItLies: break
  case .copied: pef_copy_panels_f32(&panels, k * Int(PEF_PANEL), b.memory, b.row, k, n)
  case .transposed: pef_transpose_panels_f32(&panels, b.memory, b.column, n, k)
  }
  let isPacked = layout != .asItLies
  pef_gemm_f32(
    &found, n + gap, a.memory, a.row, a.column, isPacked ? panels : b.memory,
    isPacked ? width : b.row, isPacked ? width * k : width, m, n, k, adding ? 1 : 0)
  return (found.map(\.bitPattern), expected.map(\.bitPattern))
}

@Suite struct MatrixProductTests {
  @Test(arguments: 0...50)
  func aProductIsAChainOfFusedMultiplyAdds(m: Int) {
    let depths = [0, 1, 2, 3, 5, 16, 17, 33]
    for n in 0...50 {
      let (found, expected) = products(
        m, n, depths[(m + 3 * n) % depths.count], gap: n % 4, isTransposed: (m + n) % 2 == 0,
        Layout.allCases[n % 3], adding: (m + n / 2) % 2 == 0)
      guard found != expected else { continue }
      Issue.record("\(m) rows, \(n) columns")
    }
  }

  /// Around what registers and caches hold at a time: 16 columns, 96 rows, 256 products.
  @Test(arguments: [
    (1, 16, 256), (4, 15, 257), (5, 17, 255), (11, 32, 513), (12, 31, 256), (13, 33, 257),
    (95, 16, 64), (96, 17, 65), (97, 33, 257), (97, 1, 512), (109, 48, 33), (193, 20, 9),
    (2, 65, 300), (24, 96, 100), (1, 1, 1000), (200, 3, 3),
  ])
  func blocksChangeNoBit(m: Int, n: Int, k: Int) {
    for (place, layout) in Layout.allCases.enumerated() {
      for adding in [false, true] {
        let (found, expected) = products(
          m, n, k, gap: place, isTransposed: (place == 1) == adding, layout, adding: adding)
        #expect(found == expected, "\(layout), \(adding)")
      }
    }
  }

  /// Rows of a that lie whole pages apart are copied, a block at a time.
  @Test(arguments: [(1, 5, 30), (97, 33, 257), (200, 20, 600)])
  func rowsThatArePagesApartAreMultipliedAsOthers(m: Int, n: Int, k: Int) {
    for adding in [false, true] {
      let (found, expected) = products(
        m, n, k, gap: 1024 - k, isTransposed: false, .copied, adding: adding)
      #expect(found == expected, "\(adding)")
    }
  }

  @Test func aProductOfNothingIsZero() {
    let (found, expected) = products(
      3, 20, 0, gap: 2, isTransposed: false, .asItLies, adding: false)
    #expect(found == expected)
    #expect(found.count { $0 == 0 } == 60)
  }

  @Test(arguments: [(1, 1), (3, 16), (5, 17), (16, 33), (40, 32), (17, 50), (33, 5)])
  func panelsHoldEachElementAndZeros(rows: Int, columns: Int) {
    let x = randomRows(rows, columns + 3, seed: rows).columns(2..<2 + columns)
    let scratch = Rows([Float](repeating: .nan, count: 60 * 60), columns: 60 * 60)
    let copied = Panels(copying: x, in: scratch)
    for j in 0..<(columns + 15) / 16 * 16 {
      for i in 0..<rows {
        #expect(copied.rows[j / 16, i * 16 + j % 16] == (j < columns ? x[i, j] : 0))
      }
    }
    let transposed = Panels(transposing: x, in: scratch)
    #expect(transposed.depth == columns && transposed.columns == rows)
    for j in 0..<(rows + 15) / 16 * 16 {
      for l in 0..<columns {
        #expect(transposed.rows[j / 16, l * 16 + j % 16] == (j < rows ? x[j, l] : 0))
      }
    }
  }

  @Test func rowsMultiplyInEachForm() {
    let (m, n, k) = (7, 21, 300)
    let a = randomRows(m, k + 2, seed: 1).columns(1..<1 + k)
    let b = randomRows(k, n + 5, seed: 2).columns(0..<n)
    let scratch = Rows(1, 16_384)
    let (plain, packed) = (Rows(m, n + 1).columns(0..<n), Rows(m, n))
    plain.multiply(a, b)
    packed.multiply(a, Panels(copying: b, in: scratch))
    #expect(plain.bits == packed.bits)

    let turned = Rows(k, m)
    for i in 0..<m { for l in 0..<k { turned[l, i] = a[i, l] } }
    let again = Rows(m, n)
    again.multiply(transposed: turned, b)
    #expect(plain.bits == again.bits)

    let sum = Rows(m, n)
    for part in [0..<256, 256..<k] {
      sum.multiply(a.columns(part), b.rows(part), adding: part.lowerBound > 0)
    }
    #expect(plain.bits == sum.bits)
  }

  @Test(arguments: [1, 15, 16, 17, 100])
  func rowsTimesAVector(columns: Int) {
    let (w, x) = (randoms(5 * (columns + 2), seed: 3), randoms(columns, seed: 4))
    var found = [Float](repeating: 0, count: 5)
    pef_rows_times_vector_f32(&found, w, columns + 2, x, 5, columns)
    let expected = (0..<5).map { row in
      (0..<columns).reduce(0) { $0 + Double(w[row * (columns + 2) + $1]) * Double(x[$1]) }
    }
    #expect(error(found, expected) < f32Tolerance)
  }
}
