import Files
import Quantization
package import Tensors

/// The tensors of a weight in group-wise INT4, which fit each other.
package struct Int4Weight: Sendable {
  /// How it lies.
  package let layout: Int4Layout
  /// The rows.
  package let outputs: Int
  /// The columns.
  package let inputs: Int
  /// The inputs that share a scale.
  package let groupSize: Int
  /// The codes.
  package let codes: TensorInfo
  /// The scales.
  package let scales: TensorInfo
  /// The offsets or zero points.
  package let shifts: TensorInfo
  /// The group of each input, where that is not input / groupSize.
  package let groupOfInput: [Int32]?
  /// Whether `config.json` says that every zero point is 8.
  package let isSymmetric: Bool
  /// The names of all its tensors.
  package let names: [String]

  /// What the weight is called where it is not quantized, `MODULE.weight`.
  package var name: String { codes.name.dropLast(layout.codesEnding.count) + ".weight" }

  /// The module whose weight a tensor of codes is, in some layout, by its name, type and neighbours.
  static func module(of tensor: TensorInfo, in checkpoint: Checkpoint) -> String? {
    for (layout, dtype) in [(Int4Layout.mlx, DType.u32), (.gptq, .i32), (.hqq, nil)]
    where tensor.name.hasSuffix(layout.codesEnding) && dtype ?? tensor.dtype == tensor.dtype {
      let module = String(tensor.name.dropLast(layout.codesEnding.count))
      // HQQ's other forms have codes of other types, and other scales.
      let neighbours = [layout.scalesEnding] + (layout == .hqq ? [HQQSettings.bitsEnding] : [])
      return neighbours.contains { checkpoint[module + $0] != nil } ? module : nil
    }
    return nil
  }

  /// Reads what lies beside a module's codes.
  ///
  /// - Throws: `damaged` where a tensor is missing; `different` where they do not fit each other, or
  ///   the settings; `unsupported`; `io`.
  init(
    _ codes: TensorInfo, of module: String, _ settings: Int4Settings, in checkpoint: Checkpoint
  ) throws(PeftoolError) {
    let layout = settings.layout
    guard codes.name.hasSuffix(layout.codesEnding), codes.shape.count == 2 else {
      throw PeftoolError(
        .different,
        "is \(codes.dtype.rawValue) of shape \(codes.shape.shapeText), and config.json says "
          + layout.rawValue)
    }
    // What they say tells more than that others are missing.
    let hqq = layout == .hqq ? try HQQSettings(of: module, in: checkpoint) : nil
    guard let scales = checkpoint[module + layout.scalesEnding], scales.shape.count == 2,
      layout.scaleDTypes.contains(scales.dtype)
    else {
      let found = checkpoint[module + layout.scalesEnding]
      throw PeftoolError(
        .different,
        "is \(found?.dtype.rawValue ?? "missing") of shape "
          + "\((found?.shape ?? []).shapeText), expected a matrix of "
          + layout.scaleDTypes.map(\.rawValue).joined(separator: ", "),
        tensor: module + layout.scalesEnding)
    }
    guard let shifts = checkpoint[module + layout.shiftsEnding] else {
      throw PeftoolError(
        .damaged, "has no tensor '\((module + layout.shiftsEnding).printable)' beside it")
    }
    let (wide, narrow) = (codes.shape[0], codes.shape[1])
    // A tensor that has elements is too small for these to overflow.
    let (outputs, inputs) =
      switch layout {
      case .mlx: (wide, narrow &* 8)
      case .gptq, .gptqV2: (narrow, wide &* 8)
      case .awq: (narrow &* 8, wide)
      case .hqq: (hqq?.outputs ?? 0, hqq?.inputs ?? 0)
      }
    guard outputs > 0, inputs > 0, layout.hasGroupsByRows || outputs % 8 == 0, inputs % 8 == 0
    else {
      throw PeftoolError(
        .different,
        "of shape \(codes.shape.shapeText) holds a weight of \([outputs, inputs].shapeText), "
          + "expected multiples of 8")
    }
    let groupSize =
      if let hqq { hqq.groupSize } else { try settings.groupSize(of: module) ?? inputs }
    let groups = GroupInt4.groupCount(of: inputs, groupSize: groupSize)
    var names = [codes.name, scales.name, shifts.name] + (hqq?.names ?? [])
    func check(_ tensor: TensorInfo, _ part: Int4Layout.Part) throws(PeftoolError) {
      guard tensor.dtype == part.dtype, tensor.shape == part.shape else {
        throw PeftoolError(
          .different,
          "is \(tensor.dtype.rawValue) of shape \(tensor.shape.shapeText), a weight of "
            + "\([outputs, inputs].shapeText) in groups of \(groupSize) needs "
            + "\(part.dtype.rawValue) of \(part.shape.shapeText)", tensor: tensor.name)
      }
    }
    try check(codes, layout.codes(outputs, inputs, groupSize: groupSize))
    try check(scales, layout.scales(outputs, groups: groups, scales.dtype))
    try check(shifts, layout.shifts(outputs, groups: groups, scales.dtype))
    var groupOfInput: [Int32]?
    if let part = layout.groupIndex(inputs), let index = checkpoint[module + part.ending] {
      try check(index, part)
      names.append(index.name)
      groupOfInput = try Self.groups(
        index, count: groups, groupSize: groupSize, in: checkpoint.source)
    } else if settings.isReordered {
      throw PeftoolError(
        .damaged, "has no tensor '\(module.printable).g_idx' beside it, which desc_act needs")
    }
    // AutoGPTQ gives every layer a bias; where there was none it is zero, and no part of the model.
    if layout.groupIndex(inputs) != nil, let bias = checkpoint[module + ".bias"],
      bias.byteCount <= outputs * 8,
      try checkpoint.source.bytes(of: bias).allSatisfy({ $0 == 0 })
    {
      names.append(bias.name)
    }
    self.layout = layout
    self.outputs = outputs
    self.inputs = inputs
    self.groupSize = groupSize
    self.codes = codes
    self.scales = scales
    self.shifts = shifts
    self.groupOfInput = groupOfInput
    isSymmetric = settings.isSymmetric
    self.names = names
  }

  /// The group of each input; nil where they follow each other.
  private static func groups(
    _ tensor: TensorInfo, count: Int, groupSize: Int, in source: any TensorSource
  ) throws(PeftoolError) -> [Int32]? {
    let bytes = try source.bytes(of: tensor)
    var groups: [Int32] = []
    groups.reserveCapacity(tensor.elementCount)
    for place in 0..<tensor.elementCount {
      let bits = bytes[4 * place..<4 * place + 4].reversed()
        .reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      let group = Int32(bitPattern: bits)
      guard group >= 0, Int(group) < count else {
        throw PeftoolError(
          .damaged, "puts input \(place) into group \(group), expected 0 to \(count - 1)",
          tensor: tensor.name)
      }
      groups.append(group)
    }
    let isPlain = groups.enumerated().allSatisfy { Int($1) == $0 / groupSize }
    return isPlain ? nil : groups
  }
}
