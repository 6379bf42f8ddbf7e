import Checkpoints
package import Files
import Tensors

extension AdapterFormat {
  /// Opens an adapter's low-rank pairs, whatever else it holds: modules that are saved whole,
  /// biases and single rows are left out.
  ///
  /// - Parameter base: helps with kohya's names, and has to have every module then.
  /// - Throws: as `read`.
  package static func readPairs(
    _ path: String, base: BaseModel? = nil
  ) throws(PeftoolError) -> (format: AdapterFormat, adapter: LowRankAdapter) {
    let hints = Hints(base: base, prefix: nil)
    let checkpoint = try Checkpoint(opening: Adapter.folder(of: path), preferringAdapter: true)
    guard try AdapterFormat(of: checkpoint) == .peft else { return try read(path, hints) }
    return (.peft, try PEFTAdapter.read(path, hints, for: .statistics))
  }
}

extension LowRankAdapter {
  /// The names of the tensors that its pairs are made of.
  package var tensorNames: [String] { modules.flatMap(\.tensorNames) }
}

extension LowRankAdapter.Module {
  /// The names of its tensors.
  package var tensorNames: [String] { storedNames ?? parts.map(\.stored.info.name) }

  /// The bytes of its tensors.
  var byteCount: Int { parts.reduce(0) { $0 + $1.stored.info.byteCount } }
}
