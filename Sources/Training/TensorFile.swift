import Checkpoints
import Files
import Models
import Tensors

/// Floats in memory that go to a safetensors file, or come from one.
struct TensorFile {
  /// A tensor by name.
  struct Item {
    let name: String
    let shape: [Int]
    let rows: Rows
    /// Whether the file has the transpose.
    var isTransposed = false

    /// The rows that are written at once.
    fileprivate var parts: [Range<Int>] {
      isTransposed
        ? [0..<rows.count]
        : (0..<rows.count).cut(into: max(1, TensorFile.partCount / max(1, rows.columns)))
    }
  }

  /// The floats that are written at once, of a tensor that is not transposed.
  private static let partCount = 1 << 18

  /// Writes F32 tensors into a folder that is being made.
  ///
  /// - Throws: as `SafetensorsHeader.encode`, `io`.
  static func write(
    _ items: [Item], as name: String, into output: inout StagedOutput
  ) throws(PeftoolError) {
    let encoded = try SafetensorsHeader.encode(
      items.map { .init(name: $0.name, dtype: .f32, shape: $0.shape) },
      metadata: [("format", "pt")])
    let file = try output.createFile(name, byteCount: encoded.fileByteCount)
    // Any bytes may be read as bytes, and a float is its bytes.
    try unsafe file.write(encoded.bytes.span.bytes, at: 0)
    for place in encoded.fileOrder {
      let item = items[place]
      var start = encoded.byteRanges[place].lowerBound
      for part in item.parts {
        let rows = item.rows.rows(part)
        let values = item.isTransposed ? rows.transposedValues : rows.values
        try unsafe file.write(values.span.bytes, at: start)
        start += 4 * values.count
      }
    }
  }

  /// Reads a file's tensors by name, one after the other.
  ///
  /// - Parameter take: given each item's place and its values.
  /// - Throws: `different` where a tensor is missing or has another shape, `io`, `damaged`.
  static func read(
    _ path: String, _ items: [(name: String, shape: [Int])], _ take: (Int, [Float]) -> Void
  ) throws(PeftoolError) {
    let checkpoint = try Checkpoint(opening: path)
    for (place, item) in items.enumerated() {
      guard let tensor = checkpoint[item.name] else {
        throw PeftoolError(.different, "is not there", tensor: item.name, path: path)
      }
      guard tensor.shape == item.shape, tensor.dtype == .f32 else {
        throw PeftoolError(
          .different,
          "is \(tensor.dtype.rawValue) of shape \(tensor.shape.shapeText), expected F32 of "
            + item.shape.shapeText, tensor: item.name, path: path)
      }
      let bytes = try checkpoint.source.bytes(of: tensor)
      var values = [Float](repeating: 0, count: tensor.elementCount)
      var span = values.mutableSpan
      // Any bytes may be read as bytes.
      unsafe Float.widen(bytes.span.bytes, .f32, into: &span, count: tensor.elementCount)
      take(place, values)
    }
  }
}

extension Rows {
  /// The floats of the transpose, row by row.
  fileprivate var transposedValues: [Float] {
    var values: [Float] = []
    values.reserveCapacity(count * columns)
    for column in 0..<columns {
      for row in 0..<count { values.append(self[row, column]) }
    }
    return values
  }
}
