import Checkpoints
import Fixtures
import Tensors

@testable import Models

/// A tensor to be written.
struct Values {
  let name: String
  let shape: [Int]
  let dtype: DType
  let bytes: [UInt8]

  /// Values in f32, written in a dtype.
  init(_ name: String, _ shape: [Int], _ values: [Float], dtype: DType = .f32) {
    self.name = name
    self.shape = shape
    self.dtype = dtype
    var bytes = [UInt8](repeating: 0, count: values.count * dtype.bitCount / 8)
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    Float.narrow(values.span, dtype, into: &raw, count: values.count)
    self.bytes = bytes
  }

  /// Bytes as they are.
  init(_ name: String, _ shape: [Int], bytes: [UInt8], dtype: DType) {
    self.name = name
    self.shape = shape
    self.dtype = dtype
    self.bytes = bytes
  }
}

extension Scratch {
  /// Writes a safetensors file and gives its path.
  @discardableResult
  func write(_ name: String, _ tensors: [Values]) throws -> String {
    let encoded = try SafetensorsHeader.encode(
      tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) }, order: .given)
    return try write(name, encoded.bytes + tensors.flatMap(\.bytes))
  }
}

/// A weight that has been read from a file.
func frozenWeight(_ values: Values) throws -> FrozenWeight {
  let scratch = try Scratch()
  let file = try Checkpoint(opening: scratch.write("weight.safetensors", [values]))
  return try FrozenWeight(file.tensors[0], in: file.source)
}
