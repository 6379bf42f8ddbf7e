import Adapters
import Files

/// A recipe is refused with a line, or it tells each adapter's weight in a module.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(PeftoolError) {
    let recipe = try Recipe(parsing: bytes)
    precondition(!recipe.adapters.isEmpty)
    for path in ["", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.é"] {
      for position in [0, 0.3, 1] {
        for weight in recipe.weights {
          // The mean of two finite numbers is finite.
          precondition(weight.value(of: path, at: position)?.isFinite == true)
        }
        for density in recipe.densities {
          let value = density.value(of: path, at: position) ?? 0
          precondition(value >= 0 && value <= 1, "densities stay where their numbers are")
        }
      }
    }
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}
