import Foundation

/// Writes safetensors files on its own, so that tests do not lean on what they test.
enum Safetensors {
  /// A file of F32 tensors.
  static func file(
    _ tensors: [(name: String, dtype: String, shape: [Int], values: [Float])]
  ) throws -> Data {
    var header: [String: Any] = [:]
    var data = Data()
    for tensor in tensors {
      let begin = data.count
      tensor.values.withUnsafeBytes { data.append(contentsOf: $0) }
      header[tensor.name] = [
        "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.count],
      ]
    }
    let text = try JSONSerialization.data(withJSONObject: header)
    return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) } + text + data
  }
}
