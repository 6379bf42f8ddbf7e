import Adapters
import Files
import JSON

/// A configuration is refused with an error, or it tells each module's rank and scaling.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(PeftoolError) {
    let configuration = try AdapterConfiguration(JSON(parsing: bytes))
    for path in ["", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.é"] {
      let rank = try configuration.rank(of: path)
      precondition(rank >= 0)
      _ = configuration.keptRank(of: path)
      _ = try configuration.scaling(of: path, keptRank: rank)
    }
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}
