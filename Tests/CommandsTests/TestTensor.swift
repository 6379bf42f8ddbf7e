import Checkpoints
import Fixtures
import Tensors

extension Scratch {
  /// Writes a safetensors file and gives its path.
  @discardableResult
  func write(_ name: String, _ tensors: [TestTensor]) throws -> String {
    let header = try SafetensorsHeader.encode(
      tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) }, order: .given)
    return try write(name, header.bytes + tensors.flatMap(\.bytes))
  }
}

/// A tensor to be written.
struct TestTensor {
  let name: String
  let dtype: DType
  let shape: [Int]
  let bytes: [UInt8]

  init(_ name: String, _ dtype: DType, _ shape: [Int], bytes: [UInt8]) {
    (self.name, self.dtype, self.shape, self.bytes) = (name, dtype, shape, bytes)
  }

  init<Element: BitwiseCopyable>(
    _ name: String, _ dtype: DType, _ elements: [Element], shape: [Int]? = nil
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape ?? [elements.count]
    bytes = elements.withUnsafeBytes { Array($0) }
  }
}
