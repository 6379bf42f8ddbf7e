import Checkpoints
import Files
import Quantization
import Tensors

/// A tensor of an adapter on its way from one format to another: where it lies, and what is done
/// with it.
struct AdapterTensor: Sendable {
  /// Where its values are.
  let stored: StoredTensor
  /// The shape that it has in the end.
  private(set) var shape: [Int]
  private var edits: [Edit] = []

  private enum Edit: Equatable {
    /// The matrix turned around.
    case transpose
    /// A product in f64, rounded once to f32.
    case multiply(Double)
    /// Each row times a number, likewise.
    case multiplyRows([Double])
    /// Rows of zeros at the end.
    case appendRows(Int)
    /// Each number rounded once to another dtype.
    case cast(DType)
  }

  init(_ info: TensorInfo, in source: any TensorSource) {
    stored = StoredTensor(info, in: source)
    shape = info.shape
  }

  /// The dtype that it has in the end.
  var dtype: DType {
    edits.reduce(stored.dtype) { dtype, edit in
      switch edit {
      case .multiply, .multiplyRows: .f32
      case .transpose, .appendRows: dtype
      case .cast(let new): new
      }
    }
  }

  /// Whether its bytes are those that are stored.
  var isCopy: Bool { edits.isEmpty }

  /// The matrix turned around.
  func transposed() -> AdapterTensor {
    var copy = self
    copy.shape = shape.reversed()
    if copy.edits.last == .transpose {
      copy.edits.removeLast()
    } else {
      copy.edits.append(.transpose)
    }
    return copy
  }

  /// The same elements in another shape.
  func reshaped(_ shape: [Int]) -> AdapterTensor {
    var copy = self
    copy.shape = shape
    return copy
  }

  /// Each element times a factor, in f32; with a factor of 1 the elements themselves.
  func multiplied(by factor: Double) -> AdapterTensor {
    var copy = self
    copy.edits.append(.multiply(factor))
    return copy
  }

  /// Each row times an element of another tensor, in f32: AdaLoRA's singular values.
  ///
  /// - Throws: `damaged` where there is not one for each row or one is not finite, `io`.
  func multipliedRows(by factors: StoredTensor) throws(PeftoolError) -> AdapterTensor {
    guard factors.info.elementCount == shape[0] else {
      throw factors.at(
        PeftoolError(
          .damaged,
          "has shape \(factors.shape.shapeText), expected a number for each of \(shape[0]) rows"))
    }
    var copy = self
    copy.edits.append(.multiplyRows(try factors.values(Double.self)))
    return copy
  }

  /// The numbers in another dtype, each rounded once to nearest even.
  func cast(to dtype: DType) -> AdapterTensor {
    guard dtype != self.dtype else { return self }
    var copy = self
    copy.edits.append(.cast(dtype))
    return copy
  }

  /// As many rows, with zeros at the end where there are fewer.
  func padded(toRows rows: Int) -> AdapterTensor {
    guard rows > shape[0] else { return self }
    var copy = self
    copy.edits.append(.appendRows(rows - shape[0]))
    copy.shape[0] = rows
    return copy
  }

  /// Its bytes in the end, all of them: an adapter's tensors are small.
  ///
  /// - Throws: `io`, `damaged` where the file is cut short or a value is NaN or infinite, and
  ///   `different` where a product is too large for f32, or a number for the dtype.
  func bytes() throws(PeftoolError) -> [UInt8] {
    var bytes = try stored.source.bytes(of: stored.info)
    // Any bit pattern is an element.
    try unsafe Self.check(bytes.span.bytes, stored)
    var (rows, columns, dtype) = (stored.rowCount, stored.columnCount, stored.dtype)
    for edit in edits {
      switch edit {
      case .transpose:
        var turned = [UInt8](repeating: 0, count: bytes.count)
        var span = turned.mutableSpan
        // As above.
        var raw = unsafe span.mutableBytes
        unsafe Transposition.transpose(
          bytes.span.bytes, rows: rows, columns: columns, elementByteCount: dtype.bitCount / 8,
          into: &raw)
        (bytes, rows, columns) = (turned, columns, rows)
      case .multiply(let factor):
        bytes = try multiply(
          bytes, dtype, by: [Double](repeating: factor, count: rows), columns: columns)
        dtype = .f32
      case .multiplyRows(let factors):
        bytes = try multiply(bytes, dtype, by: factors, columns: columns)
        dtype = .f32
      case .appendRows(let count):
        bytes += repeatElement(0, count: count * columns * (dtype.bitCount / 8))
        rows += count
      case .cast(let new):
        bytes = try convert(
          bytes, dtype, to: new, count: rows * columns,
          orRefuse: "has a number that is too large for \(new.rawValue)")
        dtype = new
      }
    }
    return bytes
  }

  /// The bytes in another dtype, each number rounded once; `change` has them in f64 before.
  ///
  /// - Throws: `different` with the reason where one is too large.
  private func convert(
    _ bytes: [UInt8], _ dtype: DType, to new: DType, count: Int,
    orRefuse reason: @autoclosure () -> String,
    _ change: (inout MutableSpan<Double>) -> Void = { _ in }
  ) throws(PeftoolError) -> [UInt8] {
    var values = [Double](repeating: 0, count: count)
    var span = values.mutableSpan
    // Any bit pattern is an element.
    unsafe Double.widen(bytes.span.bytes, dtype, into: &span, count: count)
    change(&span)
    var result = [UInt8](repeating: 0, count: count * new.bitCount / 8)
    var writable = result.mutableSpan
    var raw = unsafe writable.mutableBytes
    Double.narrow(values.span, new, into: &raw, count: count)
    guard unsafe new.nonfiniteCount(result.span.bytes, count: count) == 0 else {
      throw stored.at(PeftoolError(.different, reason()))
    }
    return result
  }

  private func multiply(
    _ bytes: [UInt8], _ dtype: DType, by factors: [Double], columns: Int
  ) throws(PeftoolError) -> [UInt8] {
    try convert(
      bytes, dtype, to: .f32, count: factors.count * columns,
      orRefuse:
        "times \(factors.max { $0.magnitude < $1.magnitude } ?? 1) is too large for F32"
    ) { span in
      for (row, factor) in factors.enumerated() {
        Double.scale(&span, at: row * columns, by: factor, count: columns)
      }
    }
  }

  /// Refuses values that are not finite.
  static func check(_ bytes: RawSpan, _ stored: StoredTensor) throws(PeftoolError) {
    let count = bytes.byteCount / max(1, stored.dtype.bitCount / 8)
    guard stored.dtype.nonfiniteCount(bytes, count: count) == 0 else {
      throw stored.at(PeftoolError(.damaged, "has NaN or infinite values"))
    }
  }
}
