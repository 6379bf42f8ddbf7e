import CKernels
import Tensors

// The kernels of training.h. Each pointer lives as long as the storage of the rows that it belongs
// to, and the preconditions hold the kernel to the counts.

/// A matrix in panels of sixteen columns, as the product of matrices reads it best.
@safe
struct Panels {
  /// The panels, one after the other: rows of `depth` times sixteen floats.
  let rows: Rows
  /// The rows of the matrix.
  let depth: Int
  /// The columns of the matrix.
  let columns: Int

  /// Some rows of the matrix.
  func rows(_ range: Range<Int>) -> Panels {
    precondition(range.lowerBound >= 0 && range.upperBound <= depth, "rows that there are")
    let width = Int(PEF_PANEL)
    return Panels(
      rows: rows.columns(range.lowerBound * width..<range.upperBound * width),
      depth: range.count, columns: columns)
  }

  private init(rows: Rows, depth: Int, columns: Int) {
    self.rows = rows
    self.depth = depth
    self.columns = columns
  }

  /// The floats that panels take.
  static func floatCount(depth: Int, columns: Int) -> Int {
    (columns + Int(PEF_PANEL) - 1) / Int(PEF_PANEL) * Int(PEF_PANEL) * depth
  }

  /// Room for a matrix in a scratch; what is there is anything.
  init(depth: Int, columns: Int, in scratch: Rows) {
    let width = Int(PEF_PANEL)
    rows = scratch.reshaped((columns + width - 1) / width, depth * width)
    self.depth = depth
    self.columns = columns
  }

  /// Some rows, laid out in a scratch that has room for them.
  init(copying matrix: Rows, in scratch: Rows) {
    self.init(depth: matrix.count, columns: matrix.columns, in: scratch)
    copy(matrix, at: 0)
  }

  /// The transpose of some rows, laid out in a scratch that has room for it.
  init(transposing matrix: Rows, in scratch: Rows) {
    self.init(depth: matrix.columns, columns: matrix.count, in: scratch)
    transpose(matrix, at: 0)
  }

  /// Lays out the rows from a number on.
  func copy(_ matrix: Rows, at row: Int) {
    precondition(matrix.columns == columns && row >= 0 && row + matrix.count <= depth, "its rows")
    let place = rows.columns(row * Int(PEF_PANEL)..<rows.columns)
    unsafe pef_copy_panels_f32(
      place.pointer, rows.stride, matrix.pointer, matrix.stride, matrix.count, matrix.columns)
  }

  /// Lays out the columns from a number on, which begins a panel: the rows of a matrix.
  func transpose(_ matrix: Rows, at column: Int) {
    let width = Int(PEF_PANEL)
    precondition(matrix.columns == depth && column >= 0 && column % width == 0, "its panels")
    precondition(column + matrix.count <= columns, "its columns")
    let place = rows.rows(column / width..<rows.count)
    unsafe pef_transpose_panels_f32(
      place.pointer, matrix.pointer, matrix.stride, matrix.count, matrix.columns)
  }
}

extension Rows {
  /// self = a · b, or self += a · b: (m, n) from (m, k) and (k, n).
  func multiply(_ a: Rows, _ b: Panels, adding: Bool = false) {
    precondition(count == a.count && columns == b.columns, "a product of that shape")
    precondition(a.columns == b.depth, "factors that fit")
    unsafe pef_gemm_f32(
      pointer, stride, a.pointer, a.stride, 1, b.rows.pointer, Int(PEF_PANEL), b.rows.stride, count,
      columns, b.depth, adding ? 1 : 0)
  }

  /// The same with b as it lies.
  package func multiply(_ a: Rows, _ b: Rows, adding: Bool = false) {
    precondition(count == a.count && columns == b.columns, "a product of that shape")
    precondition(a.columns == b.count, "factors that fit")
    unsafe pef_gemm_f32(
      pointer, stride, a.pointer, a.stride, 1, b.pointer, b.stride, Int(PEF_PANEL), count, columns,
      b.count, adding ? 1 : 0)
  }

  /// self = aᵀ · b, or self += aᵀ · b: (m, n) from (k, m) and (k, n).
  func multiply(transposed a: Rows, _ b: Rows, adding: Bool = false) {
    precondition(count == a.columns && columns == b.columns, "a product of that shape")
    precondition(a.count == b.count, "factors that fit")
    unsafe pef_gemm_f32(
      pointer, stride, a.pointer, 1, a.stride, b.pointer, b.stride, Int(PEF_PANEL), count, columns,
      b.count, adding ? 1 : 0)
  }
}

extension Rows {
  /// self = aᵀ · b, or self += aᵀ · b, with b in panels.
  func multiply(transposed a: Rows, _ b: Panels, adding: Bool = false) {
    precondition(count == a.columns && columns == b.columns, "a product of that shape")
    precondition(a.count == b.depth, "factors that fit")
    unsafe pef_gemm_f32(
      pointer, stride, a.pointer, 1, a.stride, b.rows.pointer, Int(PEF_PANEL), b.rows.stride,
      count, columns, b.depth, adding ? 1 : 0)
  }
}

extension Rows {
  /// y = self · x: (1, count) from x (1, columns), over 16 partial sums.
  func multiplyRows(by x: Rows, into y: Rows) {
    precondition(x.count == 1 && x.columns == columns && y.count == 1 && y.columns == count)
    unsafe pef_rows_times_vector_f32(y.pointer, pointer, stride, x.pointer, count, columns)
  }

  /// Each column times its factor, plus its offset.
  func scaleColumns(by factors: Rows?, plus offsets: Rows?) {
    precondition((factors?.columns ?? columns) == columns, "a factor a column")
    precondition((offsets?.columns ?? columns) == columns, "an offset a column")
    unsafe pef_scale_columns_f32(
      pointer, stride, count, columns, factors?.pointer, offsets?.pointer)
  }

  /// self (1, columns) += the sum over the rows of x·(y − offsets).
  func addColumnProducts(_ x: Rows, _ y: Rows, offsets: Rows?) {
    precondition(count == 1 && x.columns == columns && y.columns == columns && x.count == y.count)
    precondition((offsets?.columns ?? columns) == columns, "an offset a column")
    unsafe pef_column_products_f32(
      pointer, x.pointer, x.stride, y.pointer, y.stride, x.count, columns, offsets?.pointer)
  }
}

extension Rows {
  /// self = x ∘ factors, some rows of one shape.
  func multiply(_ x: Rows, elementwise factors: Rows) {
    precondition(count == x.count && columns == x.columns, "rows of one shape")
    precondition(count == factors.count && columns == factors.columns, "a factor an element")
    unsafe pef_multiply_elements_f32(
      pointer, stride, x.pointer, x.stride, factors.pointer, factors.stride, count, columns)
  }

  /// self += x ∘ factors, likewise.
  func addProduct(_ x: Rows, elementwise factors: Rows) {
    precondition(count == x.count && columns == x.columns, "rows of one shape")
    precondition(count == factors.count && columns == factors.columns, "a factor an element")
    unsafe pef_add_products_f32(
      pointer, stride, x.pointer, x.stride, factors.pointer, factors.stride, count, columns)
  }

  /// self = factors ∘ self − other, a factor (1, count) a row; rows without gaps.
  func scaleRows(by factors: Rows, minus other: Rows) {
    precondition(factors.count == 1 && factors.columns == count, "a factor a row")
    precondition(isDense && other.isDense && count == other.count && columns == other.columns)
    unsafe pef_scale_rows_minus_f32(pointer, factors.pointer, other.pointer, count, columns)
  }
}

extension Rows {
  /// self += other; rows without gaps.
  func add(_ other: Rows) {
    precondition(isDense && other.isDense && count * columns == other.count * other.columns)
    unsafe pef_add_f32(pointer, other.pointer, count * columns)
  }

  /// Each float of rows of fewer columns so many times; rows without gaps.
  func copy(from other: Rows, repeating groupSize: Int) {
    precondition(isDense && other.isDense && count == other.count, "rows without gaps")
    precondition(columns == other.columns * groupSize, "a column for each of a group")
    unsafe pef_repeat_columns_f32(pointer, other.pointer, count * other.columns, groupSize)
  }

  /// self += the sums of so many columns of other rows, each in f64; rows without gaps.
  func addSums(of other: Rows, groupSize: Int) {
    precondition(isDense && other.isDense && count == other.count, "rows without gaps")
    precondition(other.columns == columns * groupSize, "a column for each group")
    unsafe pef_sum_columns_f32(pointer, other.pointer, count * columns, groupSize)
  }

  /// self times a factor; rows without gaps.
  package func scale(by factor: Float) {
    withSpan { Float.scale(&$0, at: 0, by: factor, count: $0.count) }
  }

  /// self += factor · self, where 1 + factor would be rounded; rows without gaps.
  package func addSelf(times factor: Float) {
    withSpan { for place in 0..<$0.count { $0[place] += factor * $0[place] } }
  }

  /// The sum of the products with other floats, in f64; both are rows without gaps.
  package func sumOfProducts(_ other: Rows) -> Double {
    precondition(count * columns == other.count * other.columns, "as many floats")
    return withSpan { own in
      other.withSpan { Float.sumOfProducts(own.span, $0.span, at: 0, count: $0.count) }
    }
  }

  /// self (1, columns) += the sum of some rows, one after the other.
  func addRows(of other: Rows) {
    precondition(count == 1 && columns == other.columns, "as wide")
    unsafe pef_column_products_f32(
      pointer, other.pointer, other.stride, nil, 0, other.count, columns, nil)
  }

  /// Zeros everywhere; rows without gaps.
  package func clear() {
    precondition(isDense, "rows without gaps")
    unsafe pointer.update(repeating: 0, count: count * columns)
  }
}
