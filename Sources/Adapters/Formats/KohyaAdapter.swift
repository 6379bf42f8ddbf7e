import Checkpoints
import Files
import JSON
import Tensors

/// The adapters of kohya's sd-scripts and of LyCORIS: one file, names without dots.
///
/// `networks/lora.py` of sd-scripts and `modules/locon.py` of LyCORIS 4.1: s = alpha / rank.
enum KohyaAdapter {
  // MARK: reading

  /// Reads the modules of one of the file's networks.
  ///
  /// - Throws: `damaged`, and `unsupported` for other methods than LoRA and DoRA, for a scale of
  ///   each input, and where names of modules cannot be told.
  static func read(
    _ checkpoint: Checkpoint, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) -> LowRankAdapter {
    var modules: [Parts] = []
    var places: [ExactName: Int] = [:]
    for info in checkpoint.tensors {
      let tensor = AdapterTensor(info, in: checkpoint.source)
      let found = KohyaKey(info.name)
      guard let key = found, let part = key.part else {
        let what = (found?.method).map { "is of \($0)" } ?? "is no key of kohya's"
        throw tensor.stored.at(
          PeftoolError(
            .unsupported,
            "\(what), expected lora_down.weight, lora_up.weight, alpha or dora_scale of a module: "
              + "LoRA and DoRA have a counterpart in other formats"))
      }
      let place = places[ExactName(key.module)] ?? modules.count
      if place == modules.count {
        places[ExactName(key.module)] = place
        modules.append(Parts(name: key.module))
      }
      modules[place].tensors[part] = tensor
    }
    do throws(PeftoolError) {
      let prefix =
        if let prefix = hints.prefix { prefix } else {
          try KohyaNames.prefix(of: modules.map(\.name))
        }
      let chosen = modules.filter { $0.name.hasPrefix(prefix + "_") }
      guard !chosen.isEmpty else {
        throw PeftoolError(
          .different, "no module's name begins with \(prefix.printable)_: --prefix names another")
      }
      let names = KohyaNames(hints.base)
      var pairs: [LowRankAdapter.Module] = []
      for module in chosen {
        pairs.append(try pair(module, try names.path(of: module.name, prefix: prefix)))
      }
      var adapter = try LowRankAdapter(pairs)
      if chosen.count < modules.count {
        adapter.notes.append(
          "left out, of other prefixes than \(prefix.printable): \(modules.count - chosen.count) of "
            + "\(modules.count) modules; a conversion for each prefix")
      }
      if adapter.usesDoRA { adapter.notes.append(epsilonNote) }
      return adapter
    } catch {
      throw error.at(path: checkpoint.path)
    }
  }

  private struct Parts {
    let name: String
    var tensors: [KohyaKey.Part: AdapterTensor] = [:]
  }

  private static let epsilonNote =
    "LyCORIS adds the machine epsilon to DoRA's norms, which PEFT and mlx-lm do not: the weights "
    + "are equal up to that"

  private static func pair(
    _ module: Parts, _ path: String
  ) throws(PeftoolError) -> LowRankAdapter.Module {
    guard let a = module.tensors[.down], let b = module.tensors[.up] else {
      throw PeftoolError(
        .damaged, "module \(module.name.printable) has not both lora_down and lora_up")
    }
    let magnitude = module.tensors[.doraScale]
    if let magnitude, magnitude.shape.first != b.shape.first, magnitude.shape.first == 1 {
      throw magnitude.stored.at(
        PeftoolError(
          .unsupported,
          "has shape \(magnitude.shape.shapeText), DoRA's scale of each input (wd_on_output "
            + "false): PEFT and mlx-lm have one of each output, \(b.shape.first ?? 0)"))
    }
    let alpha = try module.tensors[.alpha].map { (tensor) throws(PeftoolError) in
      try tensor.stored.number
    }
    return try LowRankAdapter.Module(path, a: a, b: b, magnitude: magnitude) { rank in
      // kohya takes an alpha that is 0 or not there for the rank.
      let alpha = alpha.flatMap { $0 == 0 ? nil : $0 } ?? Double(rank)
      return (alpha / Double(rank), alpha)
    }
  }

  // MARK: writing

  /// The file that kohya's scripts and LyCORIS load.
  ///
  /// - Throws: `unsupported` for embeddings, and for an alpha that kohya takes for another.
  static func files(
    for adapter: LowRankAdapter, prefix: String?
  ) throws(PeftoolError) -> AdapterFiles {
    if let positions = adapter.positions { throw positions.refusal(of: "a file of kohya's") }
    let modules = adapter.modules
    let prefix = prefix ?? KohyaNames.defaultPrefix(for: modules.map(\.path))
    var items: [AdapterFiles.Item] = []
    var names: [ExactName: String] = [:]
    var roundedCount = 0
    for module in modules {
      guard module.kind != .embedding else {
        throw module.a.stored.at(
          PeftoolError(.unsupported, "is of an embedding, which kohya and LyCORIS do not change"))
      }
      let alpha = Float(module.alpha)
      guard alpha.isFinite, alpha != 0 else {
        throw PeftoolError(
          .unsupported,
          "alpha of \(module.path.printable) is \(module.alpha), which kohya "
            + (alpha == 0 ? "takes for the rank" : "cannot hold in F32"))
      }
      let name = KohyaNames.flatten(module.path, prefix: prefix)
      if let other = names.updateValue(module.path, forKey: ExactName(name)) {
        throw PeftoolError(
          .unsupported,
          "\(other.printable) and \(module.path.printable) have one name in kohya's form, "
            + name.printable)
      }
      if Double(alpha) != module.alpha { roundedCount += 1 }
      items.append(.init("\(name).lora_down.weight", module.a))
      items.append(.init("\(name).lora_up.weight", module.b))
      items.append(.init("\(name).alpha", number: module.alpha))
      if let magnitude = module.magnitude {
        let ones = Array(repeating: 1, count: module.a.shape.count - 1)
        // LyCORIS computes the norm in the dtype of the scale.
        let single = magnitude.dtype == .f32 ? magnitude : magnitude.multiplied(by: 1)
        items.append(
          .init("\(name).dora_scale", single.reshaped([module.outputCount] + ones)))
      }
    }
    var files = AdapterFiles(file: items, metadata: metadata(of: adapter))
    if roundedCount > 0 {
      files.notes.append("alpha of \(roundedCount) of \(modules.count) modules is rounded to F32")
    }
    if adapter.usesDoRA { files.notes.append(epsilonNote) }
    return files
  }

  /// What sd-scripts writes of a network.
  private static func metadata(
    of adapter: LowRankAdapter
  ) -> [(key: String, value: String)] {
    func text<Value: Hashable>(_ values: [Value]) -> String {
      let first = values.first.map { "\($0)" } ?? ""
      return Set(values).count == 1 ? first : "Dynamic"
    }
    return [
      ("ss_network_alpha", text(adapter.modules.map { Float($0.alpha) })),
      ("ss_network_dim", text(adapter.modules.map(\.rank))),
      ("ss_network_module", adapter.usesDoRA ? "lycoris.kohya" : "networks.lora"),
    ]
  }
}

extension StoredTensor {
  /// The value of a tensor with one element, of a float or a whole number.
  ///
  /// - Throws: `damaged` where it is anything else, or not finite.
  fileprivate var number: Double {
    get throws(PeftoolError) {
      guard info.elementCount == 1 else {
        throw at(PeftoolError(.damaged, "has shape \(shape.shapeText), expected one number"))
      }
      if dtype.isComputable { return try values(Double.self)[0] }
      guard [.i8, .i16, .i32, .i64].contains(dtype) else {
        throw at(PeftoolError(.damaged, "is \(dtype.rawValue), expected a number"))
      }
      let bytes = try source.bytes(of: info)
      let bits = bytes.littleEndian(at: 0, count: bytes.count)
      let unused = 64 - dtype.bitCount
      return Double(Int64(bitPattern: bits << UInt64(unused)) >> Int64(unused))
    }
  }
}
