import Checkpoints
import Fixtures
import Tensors

/// A safetensors file of these tensors, one byte each and counting up, in the order given.
func safetensors(
  _ names: [String], metadata: [(key: String, value: String)]? = nil
) throws -> [UInt8] {
  let encoded = try SafetensorsHeader.encode(
    names.map { .init(name: $0, dtype: .u8, shape: [1]) }, metadata: metadata, order: .given)
  return encoded.bytes + names.indices.map { UInt8($0) }
}

/// An index of which shard has which tensor.
func index(_ map: [(String, String)]) -> String {
  let members = map.map { "\"\($0)\":\"\($1)\"" }.joined(separator: ",")
  return "{\"metadata\":{\"total_size\":\(map.count)},\"weight_map\":{\(members)}}"
}
