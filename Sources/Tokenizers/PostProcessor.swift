import Files
import JSON

/// The tokens that are put around those of a text (`processors` of the `tokenizers` library, for
/// single texts).
struct PostProcessor: Sendable {
  private enum Step {
    case text
    case tokens([Int32])
  }

  private var steps: [Step] = [.text]

  /// Puts nothing around a text.
  init() {}

  /// - Throws: `unsupported` for a type that peftool does not know, `damaged` where a member is
  ///   missing or of another type.
  init(_ part: Part) throws(PeftoolError) {
    switch part.type {
    case "Sequence":
      try part.hasOnly("processors")
      for step in try part.parts("processors") {
        let processor = try PostProcessor(step)
        guard !processor.isEmpty else { continue }
        guard isEmpty else {
          throw PeftoolError(.unsupported, "\(step.place) is the second one that adds tokens")
        }
        self = processor
      }
    case "ByteLevel":
      // It changes nothing but offsets into the text.
      try part.hasOnly("add_prefix_space", "trim_offsets", "use_regex")
    case "TemplateProcessing":
      try part.hasOnly("single", "pair", "special_tokens")
      steps = try Self.template(part)
    case "BertProcessing", "RobertaProcessing":
      try part.hasOnly("sep", "cls", "trim_offsets", "add_prefix_space")
      steps = [
        .tokens([try Self.token(part, "cls")]), .text, .tokens([try Self.token(part, "sep")]),
      ]
    default: throw part.unknown
    }
  }

  /// Puts its tokens around those of a text; without them a template may still repeat the text.
  ///
  /// - Throws: `unsupported` where they are more than `limit` together.
  func process(
    _ ids: [Int32], addingSpecialTokens: Bool, limit: Int
  ) throws(PeftoolError) -> [Int32] {
    var count = 0
    for step in steps {
      switch step {
      case .text: count += ids.count
      case .tokens(let tokens): count += tokens.count
      }
    }
    try Tokenizer.check(tokenCount: count, limit: limit)
    if isEmpty { return ids }
    var result: [Int32] = []
    result.reserveCapacity(count)
    for step in steps {
      switch step {
      case .text: result += ids
      case .tokens(let tokens): if addingSpecialTokens { result += tokens }
      }
    }
    return result
  }

  /// The tokens that are put behind a text.
  var tokensBehindText: [Int32] {
    var tokens: [Int32] = []
    for step in steps {
      switch step {
      case .text: tokens = []
      case .tokens(let more): tokens += more
      }
    }
    return tokens
  }

  private var isEmpty: Bool {
    if steps.count == 1, case .text = steps[0] { return true }
    return false
  }

  /// The most times that a template may have the text in it, and the most tokens beside it.
  static let maximumTextCount = 16
  static let maximumTokenCount = 1024

  private static func template(_ part: Part) throws(PeftoolError) -> [Step] {
    var steps: [Step] = []
    var (textCount, tokenCount) = (0, 0)
    let place = "\(part.place).single"
    let known = try specialTokens(part)
    for element in try part.member("single").array(named: place) {
      if let sequence = element["Sequence"] {
        let name = try sequence.string(at: "id")
        guard name.isExactly("A") else {
          throw PeftoolError(
            .unsupported, "\(place) has the text \"\(name.printable)\", expected \"A\" alone")
        }
        textCount += 1
        steps.append(.text)
      } else if let token = element["SpecialToken"] {
        let place = "\(part.place).special_tokens"
        let name = try token.string(at: "id")
        guard let token = known[ExactName(name)] else {
          throw PeftoolError(.damaged, "\(place) has no \"\(name.printable)\"")
        }
        let numbers = try token.array(at: "ids")
        tokenCount += numbers.count
        guard tokenCount <= maximumTokenCount else {
          throw PeftoolError(
            .unsupported,
            "\(part.place).single has more than \(maximumTokenCount) tokens, expected at most so "
              + "many")
        }
        var ids: [Int32] = []
        for id in numbers { ids.append(try number(id, place)) }
        steps.append(.tokens(ids))
      } else {
        throw element.unfit(place, "Sequence or SpecialToken in each element")
      }
    }
    guard textCount <= maximumTextCount else {
      throw PeftoolError(
        .unsupported,
        "\(place) has the text \(textCount) times, expected at most \(maximumTextCount)")
    }
    return steps
  }

  /// The members of `special_tokens` by their names.
  private static func specialTokens(_ part: Part) throws(PeftoolError) -> [ExactName: JSON] {
    guard part.json["special_tokens"] != nil else { return [:] }
    var tokens: [ExactName: JSON] = [:]
    let members = try part.member("special_tokens").object(named: "\(part.place).special_tokens")
    for member in members { tokens[ExactName(member.key)] = member.value }
    return tokens
  }

  /// The number in a pair of a token and its number.
  private static func token(_ part: Part, _ key: String) throws(PeftoolError) -> Int32 {
    let place = "\(part.place).\(key)"
    let pair = try part.member(key).array(named: place)
    guard pair.count == 2 else { throw try part.member(key).unfit(place, "a token and its number") }
    _ = try pair[0].string(named: place)
    return try number(pair[1], place)
  }

  private static func number(_ json: JSON, _ place: String) throws(PeftoolError) -> Int32 {
    let id = try json.int(named: place)
    guard (0..<TokenizerFile.maximumTokenCount).contains(id) else {
      throw json.unfit(place, "the number of a token")
    }
    return Int32(id)
  }
}
