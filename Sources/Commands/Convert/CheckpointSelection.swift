import Adapters
import Checkpoints
import Files
import JSON
import Patterns
import Tensors

/// Which tensors of a checkpoint are written, under which names and as what.
struct CheckpointSelection: Sendable {
  /// The user's choices.
  struct Options: Sendable {
    /// What floating tensors are written as; nil keeps each tensor's own.
    var dtype: DType?
    var include: [Glob] = []
    var exclude: [Glob] = []
    var renamings: [Renaming] = []

    /// Whether all tensors keep their names.
    var keepsAll: Bool { include.isEmpty && exclude.isEmpty && renamings.isEmpty }
  }

  /// A pattern and what takes the place of its matches.
  struct Renaming: Sendable {
    let pattern: RegularExpression
    let template: RegularExpression.Template

    /// Reads `REGEX=TEMPLATE`; the last `=` parts the two, as patterns such as `(?=x)` have one.
    init(_ text: String) throws(PeftoolError) {
      guard let sign = text.lastIndex(of: "="), sign != text.startIndex else {
        throw PeftoolError(.unsupported, "'\(text.printable)' is not of the form REGEX=TEMPLATE")
      }
      pattern = try RegularExpression(String(text[..<sign]))
      template = try RegularExpression.Template(String(text[text.index(after: sign)...]))
    }
  }

  /// The tensors, in the order of the checkpoint.
  let tensors: [Conversion.Tensor]
  /// `config.json`, where it changes.
  let config: JSON?
  /// What the user should know.
  let notes: [String]

  /// Selects tensors of a checkpoint.
  ///
  /// - Throws: `different` where a glob or a pattern matches nothing, or two tensors get one name;
  ///   `unsupported` for a dtype with a quantized model.
  init(_ checkpoint: Checkpoint, _ options: Options) throws(PeftoolError) {
    var notes: [String] = []
    var used = [Bool](
      repeating: false,
      count: options.include.count + options.exclude.count + options.renamings.count)
    var names: Set<ExactName> = []
    var tensors: [Conversion.Tensor] = []
    do throws(PeftoolError) {
      let settings = try checkpoint.modelConfig?["quantization_config"] ?? .null
      if options.dtype != nil, settings != .null {
        throw PeftoolError(
          .unsupported,
          "is quantized: its codes and scales have no other dtype; peftool dequantize first")
      }
      for info in checkpoint.tensors where Self.isSelected(info.name, options, &used) {
        let name = try Self.rename(info.name, options, &used)
        guard names.insert(ExactName(name)).inserted else {
          throw PeftoolError(
            .different, "would be '\(name.printable)', as another tensor is", tensor: info.name)
        }
        let dtype = info.dtype.isComputable ? options.dtype ?? info.dtype : info.dtype
        tensors.append(
          .init(name: name, stored: StoredTensor(info, in: checkpoint.source), dtype: dtype))
      }
      if let idle = used.firstIndex(of: false) { throw Self.idle(idle, options) }
      guard !tensors.isEmpty else {
        throw PeftoolError(.different, "has no tensor that is selected")
      }
      config =
        if let dtype = options.dtype { try checkpoint.modelConfig?.with(dtype) } else {
          checkpoint.isView ? try checkpoint.modelConfig : nil
        }
    } catch {
      throw error.at(path: checkpoint.path)
    }
    if let dtype = options.dtype {
      let left = tensors.count { $0.dtype != dtype }
      if left > 0 {
        notes.append("\(left) tensors of integers and other codes keep their dtypes")
      }
    }
    notes += checkpoint.leftBehind
    self.tensors = tensors
    self.notes = notes
  }

  private static func isSelected(
    _ name: String, _ options: Options, _ used: inout [Bool]
  ) -> Bool {
    var isIn = options.include.isEmpty
    for (place, glob) in options.include.enumerated() where glob.matches(name) {
      used[place] = true
      isIn = true
    }
    for (place, glob) in options.exclude.enumerated() where glob.matches(name) {
      used[options.include.count + place] = true
      isIn = false
    }
    return isIn
  }

  private static func rename(
    _ name: String, _ options: Options, _ used: inout [Bool]
  ) throws(PeftoolError) -> String {
    var result = name
    for (place, renaming) in options.renamings.enumerated() {
      let next = try renaming.pattern.replacing(in: result, with: renaming.template)
      if !next.isExactly(result) {
        used[options.include.count + options.exclude.count + place] = true
        result = next
      }
    }
    return result
  }

  /// What is said of a pattern that does nothing.
  private static func idle(_ place: Int, _ options: Options) -> PeftoolError {
    var place = place
    for (name, count) in [
      ("--include", options.include.count), ("--exclude", options.exclude.count),
      ("--rename", options.renamings.count),
    ] {
      if place < count {
        let effect = name == "--rename" ? "changes no name" : "matches no tensor"
        return PeftoolError(.different, "pattern \(place + 1) of \(name) \(effect)")
      }
      place -= count
    }
    preconditionFailure("a place in one of the lists")
  }
}
