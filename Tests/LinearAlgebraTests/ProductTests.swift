import LinearAlgebra
import Testing

@Suite struct ProductTests {
  @Test(
    arguments: [[], .left, .right, [.left, .right]] as [Transposition],
    [(3, 4, 5), (1, 1, 1), (17, 33, 9), (0, 3, 2), (2, 0, 3), (3, 2, 0), (0, 0, 0)])
  func productsAreSumsOfProducts(transposing: Transposition, sizes: (m: Int, k: Int, n: Int)) {
    let a = Matrices.random(sizes.m, sizes.k)
    let b = Matrices.random(sizes.k, sizes.n, seed: 2)
    let storedA = transposing.contains(.left) ? a.transposed() : a
    let storedB = transposing.contains(.right) ? b.transposed() : b
    let wanted = Matrices.plainProduct(a, b)
    let wide = product(storedA, storedB, transposing: transposing)
    #expect(Matrices.distance(wide, wanted) < doubleTolerance)
    let narrow = product(
      Matrix<Float>(storedA), Matrix<Float>(storedB), transposing: transposing)
    #expect(Matrices.distance(narrow, wanted) < floatTolerance)
  }

  /// Slices are 512 long.
  @Test(
    arguments: [[], .left, .right, [.left, .right]] as [Transposition],
    [(1100, 7, 3), (3, 7, 1100), (513, 2, 512)])
  func slicesMakeTheWhole(transposing: Transposition, sizes: (m: Int, k: Int, n: Int)) {
    let a = Matrices.random(sizes.m, sizes.k)
    let b = Matrices.random(sizes.k, sizes.n, seed: 2)
    let storedA = transposing.contains(.left) ? a.transposed() : a
    let storedB = transposing.contains(.right) ? b.transposed() : b
    let one = product(storedA, storedB, transposing: transposing)
    #expect(Matrices.distance(one, Matrices.plainProduct(a, b)) < doubleTolerance)
    for threads in [2, 3] {
      #expect(product(storedA, storedB, transposing: transposing, threads: threads) == one)
    }
  }
}
