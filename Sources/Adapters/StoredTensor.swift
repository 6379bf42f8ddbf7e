package import Checkpoints
package import Files
package import Tensors

/// A tensor together with the files that hold it.
package struct StoredTensor: Sendable {
  /// The files, which are open.
  package let source: any TensorSource
  /// Name, type, shape and place.
  package let info: TensorInfo

  package init(_ info: TensorInfo, in source: any TensorSource) {
    self.info = info
    self.source = source
  }

  /// The type of its elements.
  package var dtype: DType { info.dtype }
  /// Its sizes, the slowest first.
  package var shape: [Int] { info.shape }
  /// The rows of the tensor seen as a matrix: its first dimension, 1 for a scalar.
  package var rowCount: Int { info.shape.first ?? 1 }
  /// The elements of a row; 0 where there is no row, as only then their number may overflow.
  package var columnCount: Int { rowCount > 0 ? info.elementCount / rowCount : 0 }
  /// The file that holds it, for messages.
  package var path: String { source.files[info.fileIndex].path }

  /// All its values, exact but for F64 read as `Float`: for the small tensors of an adapter.
  ///
  /// - Throws: `io`, `damaged` where the file is cut short, and where a value is NaN or infinite.
  package func values<R: Real>(_ type: R.Type) throws(PeftoolError) -> [R] {
    let bytes = try source.bytes(of: info)
    let count = info.elementCount
    // Any bit pattern is an element.
    let raw = unsafe bytes.span.bytes
    guard dtype.nonfiniteCount(raw, count: count) == 0 else {
      throw at(PeftoolError(.damaged, "has NaN or infinite values"))
    }
    var values = [R](repeating: 0, count: count)
    var span = values.mutableSpan
    R.widen(raw, dtype, into: &span, count: count)
    return values
  }

  /// Whether another tensor is the same, bit for bit; a block of each is in memory at a time.
  ///
  /// - Throws: as `TensorSource.read`.
  package func isSame(as other: StoredTensor) throws(PeftoolError) -> Bool {
    guard shape == other.shape, dtype == other.dtype else { return false }
    var first = Block(byteCount: 1 << 20)
    var second = Block(byteCount: 1 << 20)
    var start = 0
    while start < info.byteCount {
      let range = start..<min(start + first.byteCount, info.byteCount)
      var bytes = first.mutableBytes(range.count)
      try source.read(info, bytes: range, into: &bytes)
      var others = second.mutableBytes(range.count)
      try other.source.read(other.info, bytes: range, into: &others)
      guard first.bytes(range.count).isEqual(to: second.bytes(range.count)) else { return false }
      start = range.upperBound
    }
    return true
  }

  /// The error with this tensor's name and file.
  package func at(_ error: PeftoolError) -> PeftoolError {
    error.at(tensor: info.name, path: path)
  }
}
