import Files
import Tokenizers

extension TokenEncoder {
  /// The numbers of a conversation's tokens, and those ranges of them that the assistant writes.
  ///
  /// The text is encoded as one, since tokens may reach over the borders of its pieces; a token that
  /// holds some of an answer is the answer's, as in transformers' `assistant_masks`. Where a border
  /// lies is told by the bytes before it, of which the tokenizer may make other tokens when they
  /// stand alone.
  /// - Parameter turnEnd: the token behind which a text is encoded as if nothing stood before it.
  /// - Throws: as `encode`; `unsupported` where the search for the answers would take too long.
  func encode(
    _ chat: ChatSegments, turnEnd: String
  ) throws(PeftoolError) -> (ids: [Int32], answers: [Range<Int>]) {
    let whole = try encodeWithEnds(chat.text)
    let ids = whole.ids
    if let answers = try piecewise(chat.segments, in: ids, turnEnd: turnEnd) {
      return (ids, answers)
    }
    return (ids, try byPrefixes(chat.segments, in: whole))
  }

  /// The answers, with each turn encoded by itself; nil where the turns' tokens are not those of
  /// the whole.
  private func piecewise(
    _ segments: [ChatSegments.Segment], in ids: [Int32], turnEnd: String
  ) throws(PeftoolError) -> [Range<Int>]? {
    var answers: [Range<Int>] = []
    var (place, before) = (0, "")
    /// Encodes behind a turn's end, so that nothing is done that is done at a text's beginning.
    func encoded(_ text: String) throws(PeftoolError) -> TokenEnds? {
      if place == 0 { return try encodeWithEnds(text) }
      let tokens = try encodeWithEnds(turnEnd + text)
      return tokens.ids.first == end ? tokens : nil
    }
    /// The tokens without the turn's end that they were encoded behind.
    func own(_ tokens: TokenEnds) -> ArraySlice<Int32> { tokens.ids.dropFirst(place == 0 ? 0 : 1) }
    let ends = try encode(turnEnd, false)
    let end = ends.count == 1 ? ends[0] : nil
    for segment in segments {
      guard segment.isAssistant else {
        before += segment.text
        continue
      }
      guard end != nil, segment.text.ends(with: turnEnd), let head = try encoded(before),
        let turn = try encoded(before + segment.text), ids[place...].starts(with: own(turn))
      else { return nil }
      let count = own(turn).count
      let first = turn.firstToken(behind: head.byteCount) - (turn.ids.count - count)
      answers.append((place + first)..<(place + count))
      place += count
      before = ""
    }
    if !answers.isEmpty {
      guard let tail = try encoded(before), ids[place...].elementsEqual(own(tail)) else {
        return nil
      }
    }
    return answers
  }

  /// The answers, with all that stands before each border encoded again.
  private func byPrefixes(
    _ segments: [ChatSegments.Segment], in whole: TokenEnds
  ) throws(PeftoolError) -> [Range<Int>] {
    var answers: [Range<Int>] = []
    var (before, byteCount) = ("", 0)
    /// How many bytes of the whole a text at its beginning is.
    func place(behind text: String) throws(PeftoolError) -> Int {
      byteCount += text.utf8.count
      guard byteCount <= searchLimit else {
        throw PeftoolError(
          .unsupported,
          "a conversation too long to find its answers in, whose turns end with no "
            + "token of their own; expected a tokenizer that has the chat template's tokens")
      }
      return try encodeWithEnds(text).byteCount
    }
    for segment in segments {
      let start = before
      before += segment.text
      guard segment.isAssistant else { continue }
      let first = whole.firstToken(behind: try place(behind: start))
      let last = whole.tokenCount(holding: try place(behind: before))
      if first < last { answers.append(first..<last) }
    }
    return answers
  }
}

extension TokenEnds {
  /// The first token that holds some of what is behind so many bytes.
  fileprivate func firstToken(behind byteCount: Int) -> Int {
    ends.firstIndex { $0 > byteCount } ?? ends.count
  }

  /// How many tokens it takes to hold so many bytes.
  fileprivate func tokenCount(holding byteCount: Int) -> Int {
    ends.firstIndex { $0 >= byteCount }.map { $0 + 1 } ?? ends.count
  }
}
