import Testing

@testable import Models

@Suite struct MatrixProductTests {
  @Test func rowsAreRows() {
    #expect(Rows([1, 2, 3, 4], columns: 2).columns(1..<2).values == [2, 4])
  }
}
