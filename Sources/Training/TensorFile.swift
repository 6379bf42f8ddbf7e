import Checkpoints
import Files
import Models
import Tensors

/// Numbers in memory that go to a safetensors file, or come from one.
struct TensorFile {
  /// A tensor by name.
  struct Item {
    let name: String
    let shape: [Int]
    let values: Values

    /// Floats without a transpose.
    init(name: String, shape: [Int], rows: Rows) {
      self.init(name: name, shape: shape, .floats(rows))
    }

    init(name: String, shape: [Int], _ values: Values) {
      self.name = name
      self.shape = shape
      self.values = values
    }

    /// The bytes that it takes in a file.
    var byteCount: Int { shape.reduce(values.dtype.bitCount / 8, *) }
  }

  /// Where numbers are in memory.
  enum Values {
    /// F32 in rows.
    case floats(Rows)
    /// F32 in rows of which the file has the transpose.
    case transposed(Rows)
    /// U8 that are gathered and spread.
    case codes(get: () -> [UInt8], set: ([UInt8]) -> Void)
    /// F32 likewise.
    case scales(get: () -> [Float], set: ([Float]) -> Void)
    /// I32 likewise, which may not be what was written.
    case integers(get: () -> [Int32], set: ([Int32]) throws(PeftoolError) -> Void)

    fileprivate var dtype: DType {
      switch self {
      case .codes: .u8
      case .integers: .i32
      case .floats, .transposed, .scales: .f32
      }
    }
  }

  /// The floats that are written at once, of rows that are not transposed.
  private static let partCount = 1 << 18

  /// Writes tensors into a folder that is being made.
  ///
  /// - Throws: as `SafetensorsHeader.encode`, `io`.
  static func write(
    _ items: [Item], as name: String, into output: inout StagedOutput
  ) throws(PeftoolError) {
    let encoded = try SafetensorsHeader.encode(
      items.map { .init(name: $0.name, dtype: $0.values.dtype, shape: $0.shape) },
      metadata: [("format", "pt")])
    let file = try output.createFile(name, byteCount: encoded.fileByteCount)
    // Any bytes may be read as bytes, and a float is its bytes.
    try unsafe file.write(encoded.bytes.span.bytes, at: 0)
    for place in encoded.fileOrder {
      var start = encoded.byteRanges[place].lowerBound
      switch items[place].values {
      case .floats(let rows):
        for part in (0..<rows.count).cut(into: max(1, partCount / max(1, rows.columns))) {
          let values = rows.rows(part).values
          try unsafe file.write(values.span.bytes, at: start)
          start += 4 * values.count
        }
      case .transposed(let rows):
        try unsafe file.write(rows.transposedValues.span.bytes, at: start)
      case .codes(let get, _): try unsafe file.write(get().span.bytes, at: start)
      case .scales(let get, _): try unsafe file.write(get().span.bytes, at: start)
      case .integers(let get, _): try unsafe file.write(get().span.bytes, at: start)
      }
    }
  }

  /// Takes tensors from a file, one after the other.
  ///
  /// - Throws: `different` where one is missing or has another shape or type, `io`, `damaged`.
  static func read(_ items: [Item], from path: String) throws(PeftoolError) {
    let checkpoint = try Checkpoint(opening: path)
    for item in items {
      guard let tensor = checkpoint[item.name] else {
        throw PeftoolError(.different, "is not there", tensor: item.name, path: path)
      }
      let dtype = item.values.dtype
      guard tensor.shape == item.shape, tensor.dtype == dtype else {
        throw PeftoolError(
          .different,
          "is \(tensor.dtype.rawValue) of shape \(tensor.shape.shapeText), expected "
            + "\(dtype.rawValue) of \(item.shape.shapeText)", tensor: item.name, path: path)
      }
      let bytes = try checkpoint.source.bytes(of: tensor)
      if case .codes(_, let set) = item.values {
        set(bytes)
        continue
      }
      if case .integers(_, let set) = item.values {
        do throws(PeftoolError) {
          try set(bytes.integers)
        } catch {
          throw error.at(tensor: item.name, path: path)
        }
        continue
      }
      var values = [Float](repeating: 0, count: tensor.elementCount)
      var span = values.mutableSpan
      // Any bytes may be read as bytes.
      unsafe Float.widen(bytes.span.bytes, .f32, into: &span, count: tensor.elementCount)
      switch item.values {
      case .floats(let rows): rows.copy(from: values)
      case .transposed(let rows): rows.copy(fromTransposed: values)
      case .scales(_, let set): set(values)
      case .codes, .integers: break
      }
    }
  }
}

extension [UInt8] {
  /// Little-endian numbers of 32 bits.
  fileprivate var integers: [Int32] {
    stride(from: 0, to: count, by: 4).map { start in
      var bits: UInt32 = 0
      for place in 0..<4 { bits |= UInt32(self[start + place]) << UInt32(8 * place) }
      return Int32(bitPattern: bits)
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

  fileprivate func copy(fromTransposed values: [Float]) {
    for column in 0..<columns {
      for row in 0..<count { self[row, column] = values[column * count + row] }
    }
  }
}
