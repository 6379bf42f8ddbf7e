import Reports

/// What the name of a model tells: `org/Base-1.5-7B-Chat-v2`.
///
/// The rules are those of llama.cpp's converter (`Metadata.get_model_id_components` in gguf-py).
struct ModelName {
  private(set) var name = ""
  private(set) var organization: String?
  private(set) var basename: String?
  private(set) var finetune: String?
  private(set) var version: String?
  private(set) var sizeLabel: String?

  private enum Kind { case basename, sizeLabel, finetune, version, type }

  /// Takes a name apart; the number of parameters tells sizes from other numbers, a negative one
  /// that they are an adapter's.
  init(_ id: String, parameterCount: Int) {
    // A sentence is a name and nothing else.
    guard !id.contains(" ") else {
      name = id
      return
    }
    let pieces = id.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    name = String(pieces.last ?? "")
    if pieces.count == 2, !pieces[0].hasPrefix(".") { organization = String(pieces[0]) }
    var parts = name.split(separator: "-").map(String.init)
    var kinds = parts.indices.map { place in
      Self.kind(of: &parts[place], isFirst: place == 0, parameterCount: parameterCount)
    }
    // Beside a size in numbers one in words is none.
    let hasNumber = zip(parts, kinds).contains { part, kinds in
      kinds.contains(.sizeLabel) && part.contains(where: \.isNumber)
    }
    for place in parts.indices where hasNumber && parts[place].allSatisfy(\.isLetter) {
      kinds[place].remove(.sizeLabel)
    }
    var isStart = true
    for place in parts.indices {
      let isWord = kinds[place].isEmpty && parts[place].first?.isLetter == true
      if isStart, isWord || kinds[place].contains(.version) {
        kinds[place].insert(.basename)
      } else {
        isStart = false
        if kinds[place].isEmpty { kinds[place].insert(.finetune) }
      }
    }
    // A version at the end is the whole name's.
    for place in parts.indices.reversed() {
      guard kinds[place].contains(.basename), kinds[place].count > 1 else { break }
      kinds[place].remove(.basename)
    }
    func joined(_ isTaken: (Set<Kind>) -> Bool) -> String? {
      let taken = zip(parts, kinds).filter { isTaken($1) }.map(\.0)
      return taken.isEmpty ? nil : taken.joined(separator: "-")
    }
    basename = joined { $0.contains(.basename) }
    var sizes: [String] = []
    for (part, kinds) in zip(parts, kinds) where kinds.contains(.sizeLabel) {
      if !sizes.contains(part) { sizes.append(part) }
    }
    sizeLabel = sizes.isEmpty ? nil : sizes.joined(separator: "-")
    finetune = joined { $0.contains(.finetune) }
    version = joined { $0.contains(.version) && !$0.contains(.basename) }
    if sizeLabel == nil, finetune == nil, version == nil { basename = nil }
  }

  /// What one part looks like; a size is brought into its usual spelling.
  private static func kind(
    of part: inout String, isFirst: Bool, parameterCount: Int
  ) -> Set<Kind> {
    if part.wholeMatch(of: /(v|iter)?\d+([.]\d+)*/.ignoresCase()) != nil { return [.version] }
    if part.wholeMatch(of: /i?q\d(_\w)*|b?fp?(16|32)/.ignoresCase()) != nil {
      part = part.uppercased()
      return [.type]
    }
    guard !isFirst else { return [] }
    let size = /(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)/
    if part.wholeMatch(of: size.ignoresCase()) != nil {
      return [sizeKind(of: &part, parameterCount: parameterCount)]
    }
    if part.wholeMatch(of: /chat|instruct|vision|lora/.ignoresCase()) != nil {
      return parameterCount < 0 && part.lowercased() == "lora" ? [.type] : [.finetune]
    }
    return []
  }

  private static func sizeKind(of part: inout String, parameterCount: Int) -> Kind {
    part = part.replacing("_", with: ".")
    // 7b1 is 7.1b.
    if part.last?.isNumber == true {
      let digits = part.suffix(1)
      let unit = part.dropLast().suffix(1)
      part = part.dropLast(2) + "." + digits + unit
    }
    if part.dropLast().last?.isNumber == true, let unit = part.last, "kmbt".contains(unit) {
      part = part.dropLast() + unit.uppercased()
    }
    guard parameterCount != 0, let number = Double(part.dropLast()), let unit = part.last,
      let power = Array(" KMBT").firstIndex(of: unit)
    else { return .sizeLabel }
    let label = (0..<power).reduce(number) { label, _ in label * 1000 }
    let count = Double(parameterCount)
    // Far from the number of parameters it is another size, a context's say.
    let isOther =
      count < 0
      ? label < (-count / 8).rounded(.down)
      : (label - count).magnitude > (7 * count / 8).rounded(.down)
    guard isOther else { return .sizeLabel }
    part = part.dropLast() + unit.lowercased()
    return .finetune
  }

  /// A name as a title: `tiny-llama-1b` as `Tiny Llama 1b`.
  static func title(_ name: String) -> String {
    name.split(whereSeparator: { $0 == "-" || $0.isWhitespace }).map { word in
      let isLower =
        word.contains { $0.isLowercase } && !word.contains { $0.isUppercase }
      guard isLower, word.wholeMatch(of: /v\d+(?:\.\d+)*|\d.*/) == nil else { return String(word) }
      var title = ""
      var isInWord = false
      for letter in word {
        title += isInWord ? String(letter) : letter.uppercased()
        isInWord = letter.isLetter
      }
      return title
    }.joined(separator: " ")
  }

  /// A number of parameters as a label: `135M`, `1.1B`.
  static func sizeLabel(_ parameterCount: Int) -> String {
    let count = Double(parameterCount)
    let (value, unit) =
      count > 1e12
      ? (count * 1e-12, "T")
      : count > 1e9 ? (count * 1e-9, "B") : count > 1e6 ? (count * 1e-6, "M") : (count * 1e-3, "K")
    let whole = Int(value.rounded(.toNearestOrEven))
    return value.fixed(whole == 0 ? 2 : whole < 10 ? 1 : 0) + unit
  }
}
