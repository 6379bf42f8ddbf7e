import Files

/// Builds a value of a text's events, within limits.
struct YAMLReader: ~Copyable {
  private var events: YAMLEvents
  private let limits: YAML.Limits
  private var valueCount = 0
  private var anchors: [String: Anchored] = [:]

  /// A value with what it takes of the limits wherever an alias repeats it.
  private struct Anchored {
    let value: YAML
    let valueCount: Int
    let height: Int
  }

  init(_ bytes: [UInt8], _ limits: YAML.Limits) throws(PeftoolError) {
    events = try YAMLEvents(bytes)
    self.limits = limits
  }

  /// The one document of the text.
  mutating func document() throws(PeftoolError) -> YAML {
    _ = try events.next()
    let start = try events.next()
    guard case .documentStart = start.kind else {
      throw PeftoolError(.damaged, "an empty file, expected YAML")
    }
    let (value, _) = try value(of: events.next(), depth: 0)
    _ = try events.next()
    let end = try events.next()
    guard case .streamEnd = end.kind else {
      throw Self.error(.unsupported, end.line, "a second document, expected one")
    }
    return value
  }

  /// The value that begins with an event, and how many levels it has.
  private mutating func value(
    of event: YAMLEvents.Event, depth: Int
  ) throws(PeftoolError) -> (YAML, height: Int) {
    if let tag = event.tag {
      throw Self.error(
        .unsupported, event.line, "the tag \(tag.printable), expected a value without")
    }
    if case .alias(let name) = event.kind { return try alias(name, event.line, depth: depth) }
    let before = valueCount
    try count(1, event.line)
    let (content, height) = try content(of: event, depth: depth)
    let value = YAML(line: event.line, content)
    if let anchor = event.anchor {
      anchors[anchor] = Anchored(value: value, valueCount: valueCount - before, height: height)
    }
    return (value, height)
  }

  private mutating func content(
    of event: YAMLEvents.Event, depth: Int
  ) throws(PeftoolError) -> (YAML.Content, height: Int) {
    switch event.kind {
    case .scalar(let text, let isPlain):
      guard !text.unicodeScalars.contains("\0") else {
        throw Self.error(.unsupported, event.line, "U+0000 in a text")
      }
      return (isPlain ? .plain(text) : .text(text), 0)
    case .sequenceStart:
      try checkDepth(depth + 1, event.line)
      var (elements, height): ([YAML], Int) = ([], 0)
      while true {
        let next = try events.next()
        if case .sequenceEnd = next.kind { return (.sequence(elements), height + 1) }
        let (element, below) = try value(of: next, depth: depth + 1)
        elements.append(element)
        height = max(height, below)
      }
    case .mappingStart:
      try checkDepth(depth + 1, event.line)
      return try mapping(depth: depth + 1)
    default: preconditionFailure("a value begins with a scalar, a sequence or a mapping")
    }
  }

  private mutating func mapping(
    depth: Int
  ) throws(PeftoolError) -> (YAML.Content, height: Int) {
    var (members, height): ([YAML.Member], Int) = ([], 0)
    var keys: Set<[UInt8]> = []
    while true {
      let next = try events.next()
      if case .mappingEnd = next.kind { return (.mapping(members), height + 1) }
      guard case .scalar(let key, _) = next.kind, next.tag == nil, next.anchor == nil else {
        throw Self.error(.unsupported, next.line, "a key that is no plain text")
      }
      guard keys.insert(Array(key.utf8)).inserted else {
        throw Self.error(.damaged, next.line, "'\(key.printable)' for the second time")
      }
      let (value, below) = try value(of: events.next(), depth: depth)
      members.append(YAML.Member(key: key, line: next.line, value: value))
      height = max(height, below)
    }
  }

  /// What an alias stands for; a value is no part of itself, as it has its name when it is whole.
  private mutating func alias(
    _ name: String, _ line: Int, depth: Int
  ) throws(PeftoolError) -> (YAML, height: Int) {
    guard let anchored = anchors[name] else {
      throw Self.error(
        .damaged, line, "*\(name.printable) without &\(name.printable) before it")
    }
    try count(anchored.valueCount, line)
    try checkDepth(depth + anchored.height, line)
    return (anchored.value, anchored.height)
  }

  private mutating func count(_ more: Int, _ line: Int) throws(PeftoolError) {
    valueCount += more
    guard valueCount <= limits.valueCount else {
      throw Self.error(
        .unsupported, line,
        "more than \(limits.valueCount) values, those that aliases stand for among them")
    }
  }

  private func checkDepth(_ depth: Int, _ line: Int) throws(PeftoolError) {
    guard depth <= limits.depth else {
      throw Self.error(
        .unsupported, line, "nested deeper than \(limits.depth) levels")
    }
  }

  private static func error(
    _ kind: PeftoolError.Kind, _ line: Int, _ reason: String
  ) -> PeftoolError {
    PeftoolError(kind, "line \(line): \(reason)")
  }
}
