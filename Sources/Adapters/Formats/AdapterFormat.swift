package import Checkpoints
package import Files
package import JSON
import Tensors

/// The formats that low-rank adapters are kept in, each read to a `LowRankAdapter` and written from
/// one.
///
/// `Formats/peft-adapter.md`, `mlx-adapter.md` and `kohya-adapter.md` have their keys and what maps
/// to what.
package enum AdapterFormat: String, CaseIterable, Sendable {
  /// A folder of PEFT's.
  case peft
  /// A folder of mlx-lm's.
  case mlx
  /// A file of kohya's sd-scripts or of LyCORIS.
  case kohya

  /// The name as its makers spell it.
  package var name: String {
    switch self {
    case .peft: "PEFT"
    case .mlx: "mlx-lm"
    case .kohya: "kohya"
    }
  }

  /// What an adapter's tensors and its configuration tell; nil where they are of none of these.
  ///
  /// - Throws: as `Checkpoint.adapterConfig`.
  package init?(of checkpoint: Checkpoint) throws(PeftoolError) {
    if checkpoint.tensors.contains(where: { KohyaKey($0.name)?.isTelling ?? false }) {
      self = .kohya
      return
    }
    guard let config = try checkpoint.adapterConfig else { return nil }
    guard let format = Self.allCases.first(where: { $0.isConfiguration(config) }) else {
      return nil
    }
    self = format
  }

  /// Whether an `adapter_config.json` is of this format.
  package func isConfiguration(_ config: JSON) -> Bool {
    switch self {
    case .peft: config["peft_type"] != nil
    case .mlx: MLXAdapter.isConfiguration(config)
    case .kohya: false
    }
  }

  /// The error for an adapter that a verb wants as PEFT has it.
  package func refusal(path: String) -> PeftoolError {
    PeftoolError(
      .unsupported,
      "is an adapter of \(name), expected one of PEFT; 'peftool convert \(path.printable) --to "
        + "peft -o OUT' makes one", path: path)
  }

  /// What helps to read an adapter besides its own files.
  package struct Hints: Sendable {
    /// The model that it was made for.
    package let base: BaseModel?
    /// What kohya's names begin with, without the `_` after it.
    package let prefix: String?

    package init(base: BaseModel?, prefix: String?) {
      self.base = base
      self.prefix = prefix
    }
  }

  /// Opens an adapter of any of the formats.
  ///
  /// - Throws: `io`, `damaged`, `unsupported` where it is of no format or holds what has no
  ///   counterpart in the others, `different` where a module is not in the base.
  package static func read(
    _ path: String, _ hints: Hints
  ) throws(PeftoolError) -> (format: AdapterFormat, adapter: LowRankAdapter) {
    let checkpoint = try Checkpoint(opening: Adapter.folder(of: path), preferringAdapter: true)
    guard let format = try AdapterFormat(of: checkpoint) else {
      throw PeftoolError(
        .unsupported,
        "is no adapter: expected PEFT's or mlx-lm's adapter_config.json beside its tensors, or "
          + "kohya's names (…lora_down.weight)", path: path)
    }
    return (format, try format.read(checkpoint, path: path, hints))
  }

  private func read(
    _ checkpoint: Checkpoint, path: String, _ hints: Hints
  ) throws(PeftoolError) -> LowRankAdapter {
    let adapter =
      switch self {
      case .peft: try PEFTAdapter.read(path, hints)
      case .mlx: try MLXAdapter.read(checkpoint, hints)
      case .kohya: try KohyaAdapter.read(checkpoint, hints)
      }
    if let base = hints.base {
      do throws(PeftoolError) {
        try adapter.checkModules(in: base)
      } catch {
        throw error.at(path: path)
      }
    }
    return adapter
  }

  /// The files that hold an adapter in this format.
  ///
  /// - Throws: `unsupported` where it has no counterpart there.
  package func files(
    for adapter: LowRankAdapter, _ hints: Hints
  ) throws(PeftoolError) -> AdapterFiles {
    switch self {
    case .peft: PEFTAdapter.files(for: adapter)
    case .mlx: try MLXAdapter.files(for: adapter, hints)
    case .kohya: try KohyaAdapter.files(for: adapter, prefix: hints.prefix)
    }
  }
}
