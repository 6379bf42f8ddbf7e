import Checkpoints
import Files
import JSON
import Patterns
import Reports
import Tensors

/// What `inspect` has found.
///
/// Holds the headers and the configuration files; of the tensors' bytes nothing.
struct Inspection {
  let checkpoint: Checkpoint
  /// The tensors that are shown: those that the pattern matches, or all.
  let tensors: [TensorInfo]
  /// The pattern, where the user gave one: then each tensor has a line of its own.
  let pattern: Glob?
  let model: ModelFacts?
  let adapter: AdapterFacts?
  /// An adapter of another format than PEFT's.
  let foreign: ForeignAdapterFacts?
  /// For each of `tensors`, where statistics were asked for; nil for a dtype without numbers.
  var statistics: [ElementStatistics?]?
  /// What the updates of an adapter are, where statistics were asked for.
  var deltas: AdapterDeltas?
  /// Why there are none.
  var deltasRefusal: String?
  /// The parameters of the base that the user named.
  var baseParameterCount: Int?

  /// Looks into an open checkpoint.
  ///
  /// - Throws: `io` and `damaged` of the configuration files, and `different` where no tensor's
  ///   name matches.
  init(_ checkpoint: Checkpoint, matching pattern: Glob?) throws(PeftoolError) {
    self.checkpoint = checkpoint
    self.pattern = pattern
    tensors =
      pattern.map { pattern in checkpoint.tensors.filter { pattern.matches($0.name) } }
      ?? checkpoint.tensors
    if let pattern, tensors.isEmpty {
      throw PeftoolError(
        .different, "no tensor's name matches '\(pattern.pattern.printable)'", path: checkpoint.path
      )
    }
    foreign = try ForeignAdapterFacts(checkpoint)
    adapter =
      foreign == nil
      ? try checkpoint.adapterConfig.map { AdapterFacts($0, tensors: checkpoint.tensors) } : nil
    model =
      if let gguf = checkpoint.gguf {
        ModelFacts(gguf)
      } else {
        adapter == nil && foreign == nil
          ? try checkpoint.config.map { ModelFacts($0) } : nil
      }
  }

  /// Whether it is an adapter, of whatever format.
  var isAdapter: Bool {
    adapter != nil || foreign != nil || checkpoint.gguf?.header["general.type"]?.text == "adapter"
  }

  private var byteCount: Int { checkpoint.tensors.reduce(0) { $0 + $1.byteCount } }

  /// The files of tensors, which a packed file holds as they were.
  private var files: [(path: String, byteCount: Int)] {
    checkpoint.packed?.files(in: checkpoint.path)
      ?? checkpoint.source.files.map { ($0.path, $0.byteCount) }
  }

  /// The dtypes with their tensors and parameters, the one with most bytes first.
  private var dtypes: [(dtype: DType, tensors: Int, parameters: Int)] {
    let byDType = Dictionary(grouping: checkpoint.tensors, by: \.dtype)
    return byDType.map { dtype, tensors in
      (
        dtype: dtype, tensors: tensors.count,
        parameters: tensors.reduce(0) { $0 + $1.elementCount },
        bytes: tensors.reduce(0) { $0 + $1.byteCount }
      )
    }
    .sorted { ($1.bytes, $0.dtype.rawValue) < ($0.bytes, $1.dtype.rawValue) }
    .map { ($0.dtype, $0.tensors, $0.parameters) }
  }
}

extension Inspection {
  /// The facts and the table for a reader.
  func text(width: Int, tableWidth: Int?) -> String {
    var facts = Facts()
    facts.append("path", checkpoint.path.printable)
    facts.append("format", formatText)
    adapter?.append(to: &facts)
    foreign?.append(to: &facts)
    facts.append("model", model?.sentence)
    checkpoint.gguf?.append(to: &facts)
    facts.append("parameters", parametersText)
    facts.append("tensors", tensorsText)
    facts.append("size", sizeText)
    checkpoint.packed?.append(to: &facts)
    facts.append("metadata", metadataText)
    facts.append("updates", deltas.flatMap { $0.modules.isEmpty ? nil : $0.sentence })
    facts.append("note", deltasRefusal.map { "no figures of updates: \($0)" })
    facts.append(
      "not read",
      checkpoint.otherWeights.isEmpty
        ? nil : checkpoint.otherWeights.map(\.printable).joined(separator: ", "))
    let names = TensorColumn(isAdapter: adapter != nil, tableWidth: tableWidth)
    let table = statistics.map { statisticsTable(names, $0) } ?? shapeTable(names)
    let tables = [table, deltas?.table()].compactMap(\.self).filter { !$0.isEmpty }
    return facts.text(width: width)
      + tables.map { "\n" + $0.text(width: tableWidth) }.joined()
  }

  private var formatText: String {
    if let gguf = checkpoint.gguf {
      return "GGUF version \(gguf.header.version), "
        + (gguf.files.count == 1 ? "one file" : "\(gguf.files.count) files")
    }
    let format =
      switch checkpoint.source {
      case let file as TorchFile: file.container == .zip ? "PyTorch" : "PyTorch's older form"
      case is ShardedTorch: "PyTorch"
      case is PackedFile: "packed safetensors"
      default: "safetensors"
      }
    guard checkpoint.kind == .sharded else { return "\(format), one file" }
    return "\(format), \(files.count.text(of: "shard")) with an index"
  }

  private var parametersText: String {
    let count = checkpoint.parameterCount
    let text = count < 1000 ? "\(count)" : "\(count.countText) (\(count.groupedText))"
    guard let base = baseParameterCount, base > 0 else { return text }
    return text + ", \((Double(count) / Double(base)).percentText) of the base's \(base.countText)"
  }

  private var sizeText: String {
    byteCount < 1000
      ? byteCount.byteText : "\(byteCount.byteText) (\(byteCount.groupedText) bytes)"
  }

  private var tensorsText: String {
    let list = dtypes.map {
      dtypes.count == 1 ? $0.dtype.rawValue : "\($0.dtype.rawValue) ×\($0.tensors)"
    }
    return ([checkpoint.tensors.count.groupedText] + list).joined(separator: ", ")
  }

  private var metadataText: String? {
    let pairs = checkpoint.source.metadata
    guard !pairs.isEmpty else { return nil }
    // What one pair may take of the screen; --json has all of it.
    let longest = 200
    let shown = pairs.prefix(10).map {
      "\($0.key.printable)=\(String($0.value.printable.prefix(longest)))"
    }
    let rest = pairs.count > shown.count ? ["and \(pairs.count - shown.count) more"] : []
    return (shown + rest).joined(separator: ", ")
  }

  /// What a line of the table stands for: one tensor, or a group of them.
  private var lines: [TensorGroup] {
    guard pattern != nil else { return TensorGroup.groups(of: tensors) }
    let keys = tensors.map { NumberedName($0.name).sortKey }
    return tensors.indices.sorted { keys[$0].lexicographicallyPrecedes(keys[$1]) }.map {
      TensorGroup(
        name: tensors[$0].name, dtype: tensors[$0].dtype, shape: tensors[$0].shape, members: [$0])
    }
  }

  private func shapeTable(_ names: TensorColumn) -> Table {
    let lines = lines
    let isGrouped = lines.contains { $0.members.count > 1 }
    // Where all tensors have one dtype the facts tell it.
    let isMixed = dtypes.count > 1
    var table = Table(
      [names.column] + (isGrouped ? [.init("count", .right)] : [])
        + (isMixed ? [.init("dtype")] : []) + [.init("shape"), .init("size", .right)])
    for line in lines {
      let byteCount = line.members.reduce(0) { $0 + tensors[$1].byteCount }
      table.append(
        [names.text(line.name)]
          + (isGrouped ? [line.members.count > 1 ? "×\(line.members.count)" : ""] : [])
          + (isMixed ? [line.dtype.rawValue] : [])
          + [line.shape.shapeText, byteCount.byteText])
    }
    return table
  }

  private func statisticsTable(
    _ names: TensorColumn, _ statistics: [ElementStatistics?]
  ) -> Table {
    let lines = lines.map { line in
      // Within a group all have one dtype: all have numbers, or none.
      (name: line.name, sum: line.members.compactMap { statistics[$0] }.sum, dtype: line.dtype)
    }
    let counts: [(title: String, count: (ElementStatistics) -> Int)] = [
      ("zeros", \.zeroCount), ("NaN", \.nanCount), ("inf", \.infinityCount),
    ]
    let shown = counts.filter { column in lines.contains { column.count($0.sum) > 0 } }
    var table = Table(
      [names.column] + ["min", "max", "mean", "norm"].map { .init($0, .right) }
        + shown.map { .init($0.title, .right) })
    for (name, sum, dtype) in lines {
      var cells: [String]
      if !dtype.isNumeric {
        cells = ["", "", "", dtype.rawValue]
      } else if sum.finiteCount == 0 {
        cells = ["-", "-", "-", "-"]
      } else {
        cells = [sum.minimum, sum.maximum, sum.mean ?? 0, sum.norm].map(\.measureText)
      }
      cells += shown.map { $0.count(sum).countText }
      table.append([names.text(name)] + cells)
    }
    return table
  }
}

extension Inspection {
  /// The findings as `--json` prints them.
  var report: JSON {
    var members: [JSON.Member] = [
      .init("path", .string(checkpoint.path)),
      .init("kind", .string(adapter == nil && foreign == nil ? "model" : "adapter")),
      .init("format", .string(checkpoint.format.rawValue)),
      .init("files", filesReport),
      .init("packed", checkpoint.packed?.report ?? .null),
      .init("parameters", .number(checkpoint.parameterCount)),
      .init("bytes", .number(byteCount)),
      .init("dtypes", dtypesReport),
    ]
    members += [
      .init(
        "metadata",
        .object(checkpoint.source.metadata.map { .init($0.key, .string($0.value)) })),
      .init("model", model?.json ?? .null),
      .init("adapter", adapter?.report ?? foreign?.report ?? .null),
      .init("baseParameters", baseParameterCount.map { .number($0) } ?? .null),
      .init("deltas", deltas?.report ?? .null),
      .init("deltasRefusal", deltasRefusal.map { .string($0) } ?? .null),
      .init("tensors", .array(tensors.indices.map(tensorReport))),
    ]
    return .object(members)
  }

  private var filesReport: JSON {
    .array(
      files.map {
        .object([.init("path", .string($0.path)), .init("bytes", .number($0.byteCount))])
      })
  }

  private var dtypesReport: JSON {
    .object(
      dtypes.map {
        .init(
          $0.dtype.rawValue,
          .object([
            .init("tensors", .number($0.tensors)), .init("parameters", .number($0.parameters)),
          ]))
      })
  }

  private func tensorReport(_ place: Int) -> JSON {
    let tensor = tensors[place]
    var members: [JSON.Member] = [
      .init("name", .string(tensor.name)),
      .init("dtype", .string(tensor.dtype.rawValue)),
      .init("shape", .array(tensor.shape.map { .number($0) })),
      .init("parameters", .number(tensor.elementCount)),
      .init("file", .number(tensor.fileIndex)),
      .init("offset", .number(tensor.byteRange.lowerBound)),
      .init("bytes", .number(tensor.byteCount)),
    ]
    if let strides = tensor.strides {
      members.append(.init("strides", .array(strides.map { .number($0) })))
    }
    if let statistics {
      members.append(.init("statistics", statistics[place].map(\.report) ?? .null))
    }
    return .object(members)
  }
}

extension ElementStatistics {
  /// The figures as `--json` prints them; null for those that no finite element gives.
  fileprivate var report: JSON {
    .object([
      .init("minimum", .number(minimum)),
      .init("maximum", .number(maximum)),
      .init("mean", mean.map { .number($0) } ?? .null),
      .init("norm", .number(norm)),
      .init("zeros", .number(zeroCount)),
      .init("nans", .number(nanCount)),
      .init("infinities", .number(infinityCount)),
    ])
  }
}
