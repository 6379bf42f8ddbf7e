import Checkpoints
package import Files
import JSON
import Tensors

extension TokenExamples {
  /// Adds the examples of a safetensors file of numbers of tokens.
  ///
  /// `input_ids` (N, T) is N examples; flat, it is cut by `offsets` (N + 1), from 0 to its end.
  /// `labels` of the same shape are numbers of tokens or −100, not shifted; or `label_mask` is 0
  /// where a token is not learnt. Tokens behind the last label of an example are left out: nothing
  /// that is learnt depends on them, and so rows may be padded.
  /// - Throws: as `SafetensorsFile`; `unsupported` for tensors of other names and for dtypes that
  ///   hold no integers, `damaged` for shapes that do not fit and for numbers out of range; with the
  ///   file, the tensor and the example.
  package mutating func append(
    tokenFile path: String, vocabularySize: Int, length: Length
  ) throws(PeftoolError) {
    let file = try SafetensorsFile(opening: path)
    do throws(PeftoolError) {
      let (ids, labels, ranges) = try Self.rows(file)
      if ranges.isEmpty {
        throw PeftoolError(.damaged, "has no examples, expected at least one")
      }
      for (index, range) in ranges.enumerated() {
        do throws(PeftoolError) {
          let ids = try Self.checked(ids[range], "input_ids", below: vocabularySize)
          let labels = try Self.checked(
            labels[range], "labels", below: vocabularySize, allowing: Self.ignored)
          let end = labels.lastIndex { $0 != Self.ignored }.map { $0 + 1 } ?? labels.count
          try append(Array(ids[..<end]), labels: Array(labels[..<end]), length: length)
        } catch {
          throw PeftoolError(error.kind, "example \(index): \(error.reason)")
        }
      }
      try file.verifyUnchanged()
    } catch {
      throw error.at(path: path)
    }
  }

  private static func rows(
    _ file: SafetensorsFile
  ) throws(PeftoolError) -> (ids: [Int64], labels: [Int64], ranges: [Range<Int>]) {
    let names = ["input_ids", "labels", "label_mask", "offsets"]
    for tensor in file.tensors where !names.contains(where: { $0.isExactly(tensor.name) }) {
      throw PeftoolError(
        .unsupported,
        "is no part of a file of tokens, expected "
          + names.joined(separator: ", "), tensor: tensor.name)
    }
    func tensor(_ name: String) -> TensorInfo? { file.tensors.first { $0.name.isExactly(name) } }
    guard let input = tensor("input_ids") else {
      throw PeftoolError(.damaged, "has no tensor 'input_ids'")
    }
    let ids = try file.integers(input)
    if let labels = tensor("labels"), tensor("label_mask") != nil {
      throw PeftoolError(
        .damaged, "stands beside label_mask, expected one of them", tensor: labels.name)
    }
    var labels = ids
    if let given = tensor("labels") ?? tensor("label_mask") {
      guard given.shape == input.shape else {
        throw PeftoolError(
          .damaged, "shape \(given.shape), expected \(input.shape) as input_ids has",
          tensor: given.name)
      }
      let values = try file.integers(given)
      labels =
        given.name == "labels"
        ? values : zip(ids, values).map { $1 == 0 ? Int64(Self.ignored) : $0 }
    }
    return (ids, labels, try ranges(input, offsets: tensor("offsets"), in: file))
  }

  private static func ranges(
    _ input: TensorInfo, offsets: TensorInfo?, in file: SafetensorsFile
  ) throws(PeftoolError) -> [Range<Int>] {
    switch (input.shape.count, offsets) {
    case (2, nil):
      let width = input.shape[1]
      // Rows without tokens are none to learn from, and their number says nothing of their bytes.
      guard width > 0 else { return [] }
      return (0..<input.shape[0]).map { $0 * width..<($0 + 1) * width }
    case (1, let offsets?):
      guard offsets.shape.count == 1 else {
        throw PeftoolError(
          .damaged, "shape \(offsets.shape), expected one dimension", tensor: offsets.name)
      }
      let places = try file.integers(offsets)
      guard places.first == 0, places.last == Int64(input.elementCount),
        zip(places, places.dropFirst()).allSatisfy(<=)
      else {
        throw PeftoolError(
          .damaged, "expected numbers that ascend from 0 to \(input.elementCount)",
          tensor: offsets.name)
      }
      return zip(places, places.dropFirst()).map { Int($0)..<Int($1) }
    default:
      throw PeftoolError(
        .damaged,
        "shape \(input.shape)\(offsets == nil ? "" : " beside offsets"), expected (N, T), or one "
          + "dimension and offsets", tensor: input.name)
    }
  }

  private static func checked(
    _ values: ArraySlice<Int64>, _ name: String, below limit: Int, allowing other: Int32? = nil
  ) throws(PeftoolError) -> [Int32] {
    for (place, value) in values.enumerated() {
      guard value >= 0 && value < limit || other.map(Int64.init) == value else {
        throw PeftoolError(
          .damaged,
          "\(name) has \(value) at place \(place), expected 0 to \(limit - 1)"
            + (other.map { ", or \($0)" } ?? ""))
      }
    }
    return values.map { Int32(truncatingIfNeeded: $0) }
  }
}

extension SafetensorsFile {
  /// All numbers of a tensor of integers.
  fileprivate func integers(_ tensor: TensorInfo) throws(PeftoolError) -> [Int64] {
    let isSigned: Bool
    switch tensor.dtype {
    case .i8, .i16, .i32, .i64: isSigned = true
    case .bool, .u8, .u16, .u32: isSigned = false
    default:
      throw PeftoolError(
        .unsupported, "dtype \(tensor.dtype.rawValue), expected I8 to I64, U8 to U32 or BOOL",
        tensor: tensor.name)
    }
    let bytes = try bytes(of: tensor)
    let width = tensor.dtype.bitCount / 8
    let unused = 64 - tensor.dtype.bitCount
    return (0..<tensor.elementCount).map { place in
      let bits = bytes.littleEndian(at: place * width, count: width)
      // The highest bit is carried up where it is a sign.
      return isSigned ? Int64(bitPattern: bits << unused) >> unused : Int64(bitPattern: bits)
    }
  }
}
