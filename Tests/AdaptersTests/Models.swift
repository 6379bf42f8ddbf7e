import Checkpoints
import Fixtures
import Tensors

@testable import Adapters

/// A tensor to be written: values in f32.
struct Values {
  let name: String
  let shape: [Int]
  let dtype: DType
  let values: [Float]

  /// Random values between -1 and 1, or those given.
  init(_ name: String, _ shape: [Int], _ values: [Float]? = nil, dtype: DType = .f32) {
    self.name = name
    self.shape = shape
    self.dtype = dtype
    var numbers = SplitMix64(seed: name.utf8.reduce(7) { $0 &* 31 &+ Int($1) })
    self.values =
      values
      ?? (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &numbers) }
  }
}

extension Scratch {
  /// Writes a safetensors file and gives its path.
  @discardableResult
  func write(_ name: String, _ tensors: [Values]) throws -> String {
    let encoded = try SafetensorsHeader.encode(
      tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) }, order: .given)
    var bytes = encoded.bytes
    for tensor in tensors {
      var elements = [UInt8](repeating: 0, count: tensor.values.count * tensor.dtype.bitCount / 8)
      var span = elements.mutableSpan
      var raw = span.mutableBytes
      if tensor.dtype.isComputable {
        Float.narrow(
          tensor.values.span, tensor.dtype, into: &raw, count: tensor.values.count)
      }
      bytes += elements
    }
    return try write(name, bytes)
  }

  /// Writes an adapter's folder and gives its path.
  func writeAdapter(
    named name: String = "adapter", fields: String = "\"r\": 2, \"lora_alpha\": 2",
    type: String = "LORA", _ tensors: [Values]
  ) throws -> String {
    try write("\(name)/adapter_model.safetensors", tensors)
    try write(
      "\(name)/adapter_config.json",
      "{\"peft_type\": \"\(type)\"\(fields.isEmpty ? "" : ", ")\(fields)}")
    return path(name)
  }

  /// Writes a model's folder and gives its path.
  func writeModel(
    config: String = "{}", _ tensors: [Values]
  ) throws -> String {
    try write("base/model.safetensors", tensors)
    try write("base/config.json", config)
    return path("base")
  }
}

/// The plan for adapters with weight 1 each, or with those given.
func plan(
  _ base: String, _ adapters: [String], weights: [Double]? = nil, dtype: DType? = nil,
  renaming: [Adapter.Renaming] = []
) throws -> MergePlan {
  var options = MergePlan.Options(weights: weights ?? adapters.map { _ in 1 })
  options.dtype = dtype
  return try MergePlan(
    Checkpoint(opening: base), adapters.map { try Adapter(opening: $0, renaming: renaming) },
    options)
}
