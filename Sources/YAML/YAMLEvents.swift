import CYAML
import Files

/// What libyaml finds in a text, one thing after the other.
@safe
struct YAMLEvents: ~Copyable {
  /// A thing that it finds.
  struct Event {
    let kind: Kind
    /// The line that it begins in, from 1.
    let line: Int
    /// The name after `&`, of a value that aliases may stand for.
    var anchor: String?
    /// The name after `!`.
    var tag: String?
  }

  enum Kind {
    case streamStart, streamEnd, documentStart, documentEnd
    case alias(String)
    case scalar(String, isPlain: Bool)
    case sequenceStart, sequenceEnd, mappingStart, mappingEnd
  }

  /// libyaml's state, which has pointers to itself and so must not move.
  private let parser: UnsafeMutablePointer<yaml_parser_t>
  /// The text, which libyaml reads where it lies.
  private let text: UnsafeMutableBufferPointer<UInt8>

  /// Begins to read a text in UTF-8.
  ///
  /// - Throws: `io` where memory is out.
  init(_ bytes: [UInt8]) throws(PeftoolError) {
    unsafe text = .allocate(capacity: bytes.count)
    _ = unsafe text.initialize(fromContentsOf: bytes)
    unsafe parser = .allocate(capacity: 1)
    unsafe parser.initialize(to: yaml_parser_t())
    guard unsafe yaml_parser_initialize(parser) == 1 else {
      unsafe parser.deallocate()
      unsafe text.deallocate()
      throw PeftoolError(.io, "no memory for a YAML text")
    }
    unsafe yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
    unsafe yaml_parser_set_input_string(parser, text.baseAddress, text.count)
  }

  deinit {
    // Each is freed once; nothing of libyaml's is kept.
    unsafe yaml_parser_delete(parser)
    unsafe parser.deallocate()
    unsafe text.deallocate()
  }

  /// The next thing; not to be called after `streamEnd`.
  ///
  /// - Throws: `damaged` with libyaml's reason.
  mutating func next() throws(PeftoolError) -> Event {
    var event = unsafe yaml_event_t()
    guard unsafe yaml_parser_parse(parser, &event) == 1 else { throw failure() }
    // The event's strings are copied before it is deleted.
    defer { unsafe yaml_event_delete(&event) }
    let line = unsafe Int(event.start_mark.line) + 1
    let data = unsafe event.data
    switch unsafe event.type {
    case YAML_STREAM_START_EVENT: return Event(kind: .streamStart, line: line)
    case YAML_STREAM_END_EVENT: return Event(kind: .streamEnd, line: line)
    case YAML_DOCUMENT_START_EVENT: return Event(kind: .documentStart, line: line)
    case YAML_DOCUMENT_END_EVENT: return Event(kind: .documentEnd, line: line)
    case YAML_ALIAS_EVENT:
      return Event(kind: .alias(unsafe Self.string(data.alias.anchor) ?? ""), line: line)
    case YAML_SCALAR_EVENT:
      let scalar = unsafe data.scalar
      // libyaml gives `length` bytes of UTF-8, zeros among them perhaps.
      let value = unsafe String(
        decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
      return unsafe Event(
        kind: .scalar(value, isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE), line: line,
        anchor: Self.string(scalar.anchor), tag: Self.string(scalar.tag))
    case YAML_SEQUENCE_START_EVENT:
      return unsafe Event(
        kind: .sequenceStart, line: line, anchor: Self.string(data.sequence_start.anchor),
        tag: Self.string(data.sequence_start.tag))
    case YAML_MAPPING_START_EVENT:
      return unsafe Event(
        kind: .mappingStart, line: line, anchor: Self.string(data.mapping_start.anchor),
        tag: Self.string(data.mapping_start.tag))
    case YAML_SEQUENCE_END_EVENT: return Event(kind: .sequenceEnd, line: line)
    case YAML_MAPPING_END_EVENT: return Event(kind: .mappingEnd, line: line)
    default: preconditionFailure("libyaml gives no event after the last")
    }
  }

  /// What libyaml says of what it could not read.
  private func failure() -> PeftoolError {
    let state = unsafe parser.pointee
    // `problem` is a constant string.
    let reason = unsafe state.problem.map { unsafe String(cString: $0) } ?? "cannot be read"
    switch unsafe state.error {
    case YAML_MEMORY_ERROR: return PeftoolError(.io, "no memory for a YAML text")
    case YAML_READER_ERROR:
      return PeftoolError(.damaged, "YAML: \(reason)", offset: unsafe Int(state.problem_offset))
    default:
      return PeftoolError(
        .damaged, unsafe "line \(state.problem_mark.line + 1): YAML: \(reason)")
    }
  }

  /// A name of libyaml's, which ends with a zero byte and has none inside.
  private static func string(_ pointer: UnsafeMutablePointer<yaml_char_t>?) -> String? {
    unsafe pointer.map { unsafe String(cString: $0) }
  }
}
