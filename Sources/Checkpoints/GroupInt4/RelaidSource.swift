package import Files
import JSON
import Quantization
package import Tensors

/// A model in group-wise INT4, seen in another layout of real offsets or zero points, with the same
/// codes.
///
/// Scales stay what they are, in F32, and so do offsets, and zero points that become HQQ's. One made of
/// the other is offset = -scale · zero and zero = -offset / scale, rounded to f32. Other tensors are
/// the model's own.
///
/// Memory: the codes and scales of four weights, while one is made its codes twice; and for a range
/// that is read its offsets again.
package struct RelaidSource: TensorView {
  package let tensors: [TensorInfo]
  /// The model in its own layout.
  package let viewed: any TensorSource
  private let layout: Int4Layout
  private let parts: [ExactName: (content: Content, weight: Int4Weight)]
  private let groups = Recent<GroupCodes>()

  /// What a tensor of a weight has.
  private enum Content {
    case codes, scales, shifts
    case setting([UInt8])
  }

  /// The layouts in which a model can be seen.
  package static let layouts: [Int4Layout] = [.mlx, .hqq]

  /// Shows the weights of a checkpoint in a layout.
  ///
  /// - Throws: `unsupported` for groups that the layout does not have.
  package init(
    _ stored: any TensorSource, weights: [Int4Weight], as layout: Int4Layout
  ) throws(PeftoolError) {
    precondition(Self.layouts.contains(layout), "a layout that holds any offset")
    viewed = stored
    self.layout = layout
    var parts: [ExactName: (content: Content, weight: Int4Weight)] = [:]
    var shown: [ExactName: [TensorInfo]] = [:]
    var companions: Set<ExactName> = []
    for weight in weights {
      try Self.check(weight, layout, in: stored)
      companions.formUnion(weight.names.map(ExactName.init))
      let module = String(weight.name.dropLast(".weight".count))
      var infos: [TensorInfo] = []
      for (part, content) in Self.parts(of: weight, layout) {
        let name = module + part.ending
        parts[ExactName(name)] = (content, weight)
        let count = part.shape.reduce(1, *) * part.dtype.bitCount / 8
        infos.append(
          TensorInfo(
            name: name, dtype: part.dtype, shape: part.shape, byteRange: 0..<count,
            fileIndex: weight.codes.fileIndex))
      }
      shown[ExactName(weight.codes.name)] = infos
    }
    self.parts = parts
    tensors = stored.tensors.flatMap { info in
      let name = ExactName(info.name)
      return shown[name] ?? (companions.contains(name) ? [] : [info])
    }
  }

  private static func check(
    _ weight: Int4Weight, _ layout: Int4Layout, in stored: any TensorSource
  ) throws(PeftoolError) {
    let reason: String? =
      if weight.groupOfInput != nil {
        "has its inputs in groups of another order (desc_act), and \(layout.rawValue) has them in "
          + "theirs"
      } else if !GroupInt4.groupSizes.contains(weight.groupSize)
        || weight.inputs % weight.groupSize != 0
      {
        "is in groups of \(weight.groupSize) of \(weight.inputs) inputs, and \(layout.rawValue) is "
          + "written in groups of 32, 64 or 128 that divide them"
      } else if layout == .hqq, weight.outputs * (weight.inputs / weight.groupSize) % 2 != 0 {
        "has an odd number of groups, and hqq packs two of them a row"
      } else {
        nil
      }
    guard let reason else { return }
    throw PeftoolError(
      .unsupported, reason, tensor: weight.codes.name,
      path: stored.files[weight.codes.fileIndex].path)
  }

  private static func parts(
    of weight: Int4Weight, _ layout: Int4Layout
  ) -> [(Int4Layout.Part, Content)] {
    let (outputs, inputs, size) = (weight.outputs, weight.inputs, weight.groupSize)
    let settings =
      layout == .hqq
      ? HQQSettings.all(outputs, inputs, groupSize: size).map {
        ($0.part, Content.setting($0.bytes))
      } : []
    return [
      (layout.codes(outputs, inputs, groupSize: size), .codes),
      (layout.scales(outputs, groups: inputs / size, .f32), .scales),
      (layout.shifts(outputs, groups: inputs / size, .f32), .shifts),
    ] + settings
  }

  /// Whether a tensor is of a weight that is laid out anew.
  package func isComputed(_ tensor: TensorInfo) -> Bool { parts[ExactName(tensor.name)] != nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let (content, weight) = parts[ExactName(tensor.name)] else {
      return try viewed.read(tensor, bytes: range, into: &buffer)
    }
    switch content {
    case .codes where layout == .hqq:
      let codes = try read(weight).codes
      GroupInt4.packHalves(codes.span, range, into: &buffer)
    case .codes:
      let codes = try read(weight).codes
      buffer.copy(codes.span.extracting(range))
    case .scales:
      let scales = try read(weight).scales
      buffer.copy(unsafe scales.span.bytes.extracting(range))
    case .shifts:
      let shifts = try shifts(of: read(weight), weight)
      buffer.copy(unsafe shifts.span.bytes.extracting(range))
    case .setting(let bytes): buffer.copy(unsafe bytes.span.bytes.extracting(range))
    }
  }

  /// A weight's codes with all that is beside them, of which the last few are kept.
  private func read(_ weight: Int4Weight) throws(PeftoolError) -> GroupCodes {
    try groups.value(of: weight.name) { () throws(PeftoolError) in
      try weight.read(from: viewed)
    }
  }

  /// The offsets or zero points of the layout.
  ///
  /// - Throws: `different` where a scale is too small for a zero point to make up for an offset.
  private func shifts(of codes: GroupCodes, _ weight: Int4Weight) throws(PeftoolError) -> [Float] {
    let pairs = zip(codes.scales, codes.shifts)
    let shifts: [Float] =
      switch (codes.shift, layout.shift) {
      case (.offsets, .offsets), (.zeros, .realZeros), (.realZeros, .realZeros): codes.shifts
      case (.offsets, _): pairs.map { $1 == 0 ? 0 : 0 - $1 / $0 }
      default: pairs.map { 0 - $0 * $1 }
      }
    guard let place = shifts.firstIndex(where: { !$0.isFinite }) else { return shifts }
    throw PeftoolError(
      .different,
      "has a scale of \(codes.scales[place]) beside \(codes.shifts[place]), for which "
        + "\(layout.rawValue) has no number", tensor: weight.scales.name,
      path: viewed.files[weight.scales.fileIndex].path)
  }
}
