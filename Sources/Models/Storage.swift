import Glibc

/// Memory for floats that several hold: what rows are rows of.
///
/// It starts as zeros.
@safe
package final class Storage: @unchecked Sendable {
  // Threads share it; who writes where is settled by the loops that hand out the rows.
  /// The floats that it has room for.
  let count: Int
  let memory: UnsafeMutablePointer<Float>
  private let allocated: UnsafeMutableRawPointer

  /// What a line of the cache holds, in bytes.
  private static let alignment = 64

  /// Room for so many floats, aligned to a line of the cache.
  ///
  /// What is large takes no memory before it is written: the system gives pages of zeros.
  package init(_ count: Int) {
    precondition(count >= 0, "no negative size")
    self.count = count
    let bytes = max(count, 1) * MemoryLayout<Float>.stride
    guard let allocated = unsafe calloc(1, bytes + Self.alignment) else {
      preconditionFailure("no memory for \(bytes) bytes")
    }
    unsafe self.allocated = allocated
    unsafe memory = allocated.alignedUp(toMultipleOf: Self.alignment)
      .bindMemory(to: Float.self, capacity: max(count, 1))
  }

  deinit { unsafe free(allocated) }
}

/// Rows of floats in a storage: a matrix, or some of its rows and columns.
///
/// A copy is of the place, not of the floats.
@safe
package struct Rows: Sendable {
  let storage: Storage
  /// Where the first row begins.
  let start: Int
  /// How many rows there are.
  package let count: Int
  /// The floats of a row.
  package let columns: Int
  /// The floats from the start of a row to the start of the next.
  let stride: Int

  /// New rows of zeros.
  package init(_ count: Int, _ columns: Int) {
    self.init(Storage(count * columns), start: 0, count: count, columns: columns, stride: columns)
  }

  /// Rows of the given floats, one after the other.
  package init(_ values: [Float], columns: Int) {
    precondition(columns > 0 && values.count % columns == 0, "whole rows")
    self.init(values.count / columns, columns)
    copy(from: values)
  }

  init(_ storage: Storage, start: Int, count: Int, columns: Int, stride: Int) {
    precondition(start >= 0 && count >= 0 && columns >= 0 && stride >= columns, "no negative size")
    precondition(
      count == 0 || start + (count - 1) * stride + columns <= storage.count, "within the storage")
    self.storage = storage
    self.start = start
    self.count = count
    self.columns = columns
    self.stride = stride
  }

  /// Some of the rows.
  package func rows(_ range: Range<Int>) -> Rows {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "rows that there are")
    return Rows(
      storage, start: start + range.lowerBound * stride, count: range.count, columns: columns,
      stride: stride)
  }

  /// Some of the columns.
  package func columns(_ range: Range<Int>) -> Rows {
    precondition(range.lowerBound >= 0 && range.upperBound <= columns, "columns that there are")
    return Rows(
      storage, start: start + range.lowerBound, count: count, columns: range.count, stride: stride)
  }

  /// The start of the same memory as rows of another shape; the rows lie without gaps.
  package func reshaped(_ count: Int, _ columns: Int) -> Rows {
    precondition(isDense && count * columns <= self.count * self.columns, "room without gaps")
    return Rows(storage, start: start, count: count, columns: columns, stride: columns)
  }

  /// Whether the rows lie without gaps.
  var isDense: Bool { stride == columns || count <= 1 }

  /// Where the first row begins, for a kernel that has been told the counts.
  var pointer: UnsafeMutablePointer<Float> { unsafe storage.memory + start }
}

extension Rows {
  /// The floats of rows without gaps.
  package var values: [Float] {
    var values: [Float] = []
    values.reserveCapacity(count * columns)
    for row in 0..<count {
      // The row lies within the storage, as `init` has checked.
      unsafe values.append(
        contentsOf: UnsafeBufferPointer(start: pointer + row * stride, count: columns))
    }
    return values
  }

  /// Whether no float is NaN or infinite.
  package var isFinite: Bool {
    (0..<count).allSatisfy { row in
      withSpan(row: row) { span in
        for place in span.indices where !span[place].isFinite { return false }
        return true
      }
    }
  }

  /// One float.
  package subscript(row: Int, column: Int) -> Float {
    get {
      precondition((0..<count).contains(row) && (0..<columns).contains(column), "within the rows")
      return unsafe pointer[row * stride + column]
    }
    nonmutating set {
      precondition((0..<count).contains(row) && (0..<columns).contains(column), "within the rows")
      unsafe pointer[row * stride + column] = newValue
    }
  }

  /// Floats for all rows, one row after the other.
  package func copy(from values: [Float]) {
    precondition(values.count == count * columns, "a float for each")
    for row in 0..<count where columns > 0 {
      // Each row lies within the storage, and its values within the span.
      unsafe values.withUnsafeBufferPointer { values in
        guard let base = values.baseAddress else { return }
        unsafe (pointer + row * stride).update(from: base + row * columns, count: columns)
      }
    }
  }

  /// The same floats as other rows of this shape.
  package func copy(from other: Rows) {
    precondition(count == other.count && columns == other.columns, "rows of one shape")
    for row in 0..<count {
      // Rows of two places of one width, which do not overlap.
      unsafe (pointer + row * stride).update(
        from: other.pointer + row * other.stride, count: columns)
    }
  }

  /// One row, to be written or read by a kernel of another module.
  func withSpan<Result>(row: Int, _ body: (inout MutableSpan<Float>) -> Result) -> Result {
    precondition((0..<count).contains(row), "a row that there is")
    // The storage outlives the call, and nobody else writes the row meanwhile.
    var span = unsafe MutableSpan(_unsafeStart: pointer + row * stride, count: columns)
    return body(&span)
  }

  /// All floats of rows without gaps.
  package func withSpan<Result>(_ body: (inout MutableSpan<Float>) -> Result) -> Result {
    precondition(isDense, "rows without gaps")
    // As above.
    var span = unsafe MutableSpan(_unsafeStart: pointer, count: count * columns)
    return body(&span)
  }
}
