import Checkpoints
import Foundation
import Tensors

/// A fresh folder for files that a test writes; gone when the value goes.
final class TemporaryFolder: Sendable {
  private let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("peftool-test-\(UUID().uuidString)").resolvingSymlinksInPath()
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  /// Writes a text and gives its path.
  @discardableResult
  func write(_ name: String, _ text: String) throws -> String {
    try write(name, Data(text.utf8))
  }

  @discardableResult
  func write(_ name: String, _ data: Data) throws -> String {
    let file = folder.appendingPathComponent(name)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try data.write(to: file)
    return file.path
  }

  /// Writes a safetensors file and gives its path.
  @discardableResult
  func write(_ name: String, _ tensors: [TestTensor]) throws -> String {
    let header = try SafetensorsHeader.encode(
      tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) }, order: .given)
    return try write(name, tensors.reduce(into: Data(header.bytes)) { $0 += $1.bytes })
  }
}

/// A tensor to be written.
struct TestTensor {
  let name: String
  let dtype: DType
  let shape: [Int]
  let bytes: Data

  init(_ name: String, _ dtype: DType, _ shape: [Int], bytes: [UInt8]) {
    (self.name, self.dtype, self.shape, self.bytes) = (name, dtype, shape, Data(bytes))
  }

  init<Element: BitwiseCopyable>(
    _ name: String, _ dtype: DType, _ elements: [Element], shape: [Int]? = nil
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape ?? [elements.count]
    bytes = elements.withUnsafeBytes { Data($0) }
  }
}

/// SplitMix64, for values that are the same on every run.
struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
