import Examples
import Fixtures

/// A tensor for a file: its dtype, shape and bytes.
struct TokenTensor {
  let name: String, dtype: String, shape: [Int], bytes: [UInt8]

  init(_ name: String, _ dtype: String, _ shape: [Int], _ values: [Int64], width: Int) {
    (self.name, self.dtype, self.shape) = (name, dtype, shape)
    bytes = values.flatMap { value in
      (0..<width).map { UInt8(truncatingIfNeeded: value >> (8 * Int64($0))) }
    }
  }

  static func i64(_ name: String, _ shape: [Int], _ values: [Int64]) -> TokenTensor {
    TokenTensor(name, "I64", shape, values, width: 8)
  }
}

extension TokenExamples {
  /// The examples of a file of tensors.
  static func read(
    _ tensors: [TokenTensor], vocabularySize: Int, maximum: Int
  ) throws -> TokenExamples {
    var (entries, data): ([String], [UInt8]) = ([], [])
    for tensor in tensors {
      entries.append(
        "\"\(tensor.name)\":{\"dtype\":\"\(tensor.dtype)\",\"shape\":\(tensor.shape),\"data_offsets\":"
          + "[\(data.count),\(data.count + tensor.bytes.count)]}")
      data += tensor.bytes
    }
    let header = Array("{\(entries.joined(separator: ","))}".utf8)
    let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
    let scratch = try Scratch()
    var examples = TokenExamples()
    try examples.append(
      tokenFile: scratch.write("f.safetensors", length + header + data),
      vocabularySize: vocabularySize, length: .init(maximum: maximum, truncates: true))
    return examples
  }
}
