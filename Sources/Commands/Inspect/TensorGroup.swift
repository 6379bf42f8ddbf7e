import Tensors

/// Tensors of one dtype and shape whose names differ in nothing but whole numbers between dots:
/// one module's tensors through all layers and experts.
struct TensorGroup: Equatable {
  /// The name with each number that varies as its range: `model.layers.{0-21}.mlp.up_proj.weight`.
  ///
  /// A `Glob` of it matches the members.
  let name: String
  let dtype: DType
  let shape: [Int]
  /// Their places in the list of tensors.
  let members: [Int]

  /// The most characters of a list of numbers; a longer one becomes its first and last number.
  private static let longestList = 24

  /// Groups tensors; a group stands where its name sorts, numbers by their value.
  static func groups(of tensors: [TensorInfo]) -> [TensorGroup] {
    struct Key: Hashable {
      let pattern: [UInt8]
      let dtype: DType
      let shape: [Int]
    }
    var places: [Key: Int] = [:]
    var found: [(key: Key, numbers: [[Int]], members: [Int])] = []
    for (place, tensor) in tensors.enumerated() {
      let name = NumberedName(tensor.name)
      let key = Key(pattern: name.pattern, dtype: tensor.dtype, shape: tensor.shape)
      if let group = places[key] {
        found[group].numbers.append(name.numbers)
        found[group].members.append(place)
      } else {
        places[key] = found.count
        found.append((key, [name.numbers], [place]))
      }
    }
    let ordered = found.map { group in
      (
        sortKey: NumberedName(pattern: group.key.pattern, numbers: group.numbers[0]).sortKey,
        group: TensorGroup(
          name: NumberedName.text(
            group.key.pattern,
            group.numbers[0].indices.map { column in listText(group.numbers.map { $0[column] }) }),
          dtype: group.key.dtype, shape: group.key.shape, members: group.members)
      )
    }
    return ordered.sorted { $0.sortKey.lexicographicallyPrecedes($1.sortKey) }.map(\.group)
  }

  /// `3` for one number, `{0-21}` and `{0-2,7}` for several.
  static func listText(_ numbers: [Int]) -> String {
    let numbers = Set(numbers).sorted()
    guard numbers.count > 1 else { return numbers.first.map(String.init) ?? "" }
    let list = numbers.rangesText
    return list.utf8.count > longestList
      ? "{\(numbers[0])-\(numbers[numbers.count - 1])}"
      : "{\(list)}"
  }
}

extension [Int] {
  /// Ascending numbers as runs: `0-2,7`.
  var rangesText: String {
    var runs: [ClosedRange<Int>] = []
    for number in self {
      if let last = runs.last, last.upperBound + 1 == number {
        runs[runs.count - 1] = last.lowerBound...number
      } else {
        runs.append(number...number)
      }
    }
    return runs.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
      .joined(separator: ",")
  }
}

/// A tensor's name with its numbers apart from the rest.
struct NumberedName {
  /// The name's UTF-8, with a byte that UTF-8 does not have for each of the numbers.
  let pattern: [UInt8]
  /// The dot-separated parts that are nothing but digits, from left to right.
  let numbers: [Int]

  /// Numbers of more digits than this stay text.
  private static let maximumDigitCount = 9
  private static let placeholder: UInt8 = 0xFF

  init(pattern: [UInt8], numbers: [Int]) {
    (self.pattern, self.numbers) = (pattern, numbers)
  }

  /// Takes a name apart.
  init(_ name: String) {
    var pattern: [UInt8] = []
    var numbers: [Int] = []
    for part in name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
      if !pattern.isEmpty || !numbers.isEmpty { pattern.append(UInt8(ascii: ".")) }
      if let number = Self.number(part) {
        numbers.append(number)
        pattern.append(Self.placeholder)
      } else {
        pattern.append(contentsOf: part)
      }
    }
    self.pattern = pattern
    self.numbers = numbers
  }

  private static func number(_ part: Substring.UTF8View) -> Int? {
    guard !part.isEmpty, part.count <= maximumDigitCount else { return nil }
    var value = 0
    for byte in part {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      value = value * 10 + Int(byte - UInt8(ascii: "0"))
    }
    // `00` is not the number 0: two names must not become one.
    return part.count == 1 || part.first != UInt8(ascii: "0") ? value : nil
  }

  /// Bytes that sort names, numbers by their value and before text.
  var sortKey: [UInt8] {
    var next = numbers.makeIterator()
    return pattern.flatMap { byte in
      guard byte == Self.placeholder, let number = next.next() else { return [byte] }
      return (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
    }
  }

  /// The name with these texts for its numbers.
  static func text(_ pattern: [UInt8], _ numbers: [String]) -> String {
    var next = numbers.makeIterator()
    let bytes = pattern.flatMap { byte in
      byte == placeholder ? next.next().map { Array($0.utf8) } ?? [byte] : [byte]
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
