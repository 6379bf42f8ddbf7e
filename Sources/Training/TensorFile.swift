import Checkpoints
import Files
import Tensors

/// Floats in memory that go to a safetensors file, or come from one.
struct TensorFile {
  /// A tensor by name.
  struct Item {
    let name: String
    let shape: [Int]
    /// Makes them when they are written, so that only those of one tensor are there twice.
    let values: () -> [Float]

    init(name: String, shape: [Int], values: @escaping @autoclosure () -> [Float]) {
      self.name = name
      self.shape = shape
      self.values = values
    }
  }

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
      let values = items[place].values()
      try unsafe file.write(values.span.bytes, at: encoded.byteRanges[place].lowerBound)
    }
  }

  /// Reads a file's tensors by name.
  ///
  /// - Throws: `different` where a tensor is missing or has another shape, `io`, `damaged`.
  static func read(
    _ path: String, _ items: [(name: String, shape: [Int])]
  ) throws(PeftoolError) -> [[Float]] {
    let checkpoint = try Checkpoint(opening: path)
    var lists: [[Float]] = []
    for item in items {
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
      lists.append(values)
    }
    return lists
  }
}
