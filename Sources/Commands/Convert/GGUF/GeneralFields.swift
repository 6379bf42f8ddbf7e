import Checkpoints
import Files
import JSON

/// The pairs of metadata that begin with `general.`, but for those that the tensors decide.
///
/// As llama.cpp's converter finds them in a folder's name, `config.json` and
/// `generation_config.json`; a model card (README.md) is not read.
enum GeneralFields {
  /// How ggml codes blocks, since 2023.
  static let quantizationVersion = GGUFField.u32("general.quantization_version", 2)

  /// The names of a model or, where the number of its parameters is negative, of an adapter, in
  /// `folder`; `config` is `config.json`, `generation` the other one, where it is there.
  ///
  /// - Throws: `damaged` where a setting is not of its type.
  static func fields(
    folder: String, config: JSON?, generation: JSON?, parameterCount: Int
  ) throws(PeftoolError) -> [GGUFField] {
    var names: [ModelName] = []
    // A path on somebody's disk is no name.
    if case .string(let id) = config?["_name_or_path"],
      id.utf8.count(where: { $0 == UInt8(ascii: "/") }) <= 1
    {
      names.append(ModelName(id, parameterCount: parameterCount))
    }
    let name = Folder.name(of: folder)
    if name != ".", name != ".." {
      names.append(ModelName(name, parameterCount: parameterCount))
    }
    func first(_ part: KeyPath<ModelName, String?>) -> String? {
      names.lazy.compactMap { $0[keyPath: part] }.first
    }
    let texts: [(String, String?)] = [
      ("name", names.first.map { ModelName.title($0.name) }), ("version", first(\.version)),
      ("organization", first(\.organization).map(ModelName.title)),
      ("finetune", first(\.finetune)), ("basename", first(\.basename)),
      (
        "size_label",
        first(\.sizeLabel)
          ?? (parameterCount > 0 ? ModelName.sizeLabel(parameterCount) : nil)
      ),
    ]
    return try sampling(generation)
      + texts.compactMap { key, text in
        text.flatMap { $0.isEmpty ? nil : .text("general.\(key)", $0) }
      }
  }

  /// Settings for sampling: the name in `generation_config.json`, the end of the key, and whether
  /// it is an integer.
  private static let samplingSettings = [
    ("top_k", "top_k", true), ("top_p", "top_p", false), ("min_p", "min_p", false),
    ("xtc_probability", "xtc_probability", false), ("xtc_threshold", "xtc_threshold", false),
    ("temperature", "temp", false), ("penalty_last_n", "penalty_last_n", true),
    ("penalty_repeat", "penalty_repeat", false), ("mirostat", "mirostat", true),
    ("mirostat_tau", "mirostat_tau", false), ("mirostat_eta", "mirostat_eta", false),
  ]

  private static func sampling(_ generation: JSON?) throws(PeftoolError) -> [GGUFField] {
    var fields: [GGUFField] = []
    for (name, key, isInteger) in samplingSettings {
      guard let value = generation?[name], value != .null else { continue }
      let key = "general.sampling.\(key)"
      if isInteger {
        guard let int = Int32(exactly: try value.int(named: name)) else {
          throw value.unfit(name, "an integer of 32 bits")
        }
        fields.append(.i32(key, Int(int)))
      } else {
        let number = try value.double(named: name)
        guard Float(number).isFinite else { throw value.unfit(name, "a number of F32") }
        fields.append(.f32(key, number))
      }
    }
    return fields
  }
}
