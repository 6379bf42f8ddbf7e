import Files

extension TokenEncoder {
  /// The numbers of a conversation's tokens, and those ranges of them that the assistant writes.
  ///
  /// The text is encoded as one, since tokens may reach over the borders of its pieces; a token that
  /// holds some of an answer is the answer's, as in transformers' `assistant_masks`.
  /// - Parameter turnEnd: the token behind which a text is encoded as if nothing stood before it.
  /// - Throws: as `encode`; `unsupported` where the search for the answers would take too long.
  func encode(
    _ chat: ChatSegments, turnEnd: String
  ) throws(PeftoolError) -> (ids: [Int32], answers: [Range<Int>]) {
    let ids = try encode(chat.text, false)
    if let answers = try piecewise(chat.segments, in: ids, turnEnd: turnEnd) {
      return (ids, answers)
    }
    return (ids, try byPrefixes(chat.segments, in: ids))
  }

  /// The answers, with each turn encoded by itself; nil where the turns' tokens are not those of
  /// the whole.
  private func piecewise(
    _ segments: [ChatSegments.Segment], in ids: [Int32], turnEnd: String
  ) throws(PeftoolError) -> [Range<Int>]? {
    var answers: [Range<Int>] = []
    var (place, before) = (0, "")
    /// Encodes behind a turn's end, so that nothing is done that is done at a text's beginning.
    func encoded(_ text: String) throws(PeftoolError) -> [Int32]? {
      if place == 0 { return try encode(text, false) }
      let ids = try encode(turnEnd + text, false)
      return ids.first == end ? Array(ids.dropFirst()) : nil
    }
    let ends = try encode(turnEnd, false)
    let end = ends.count == 1 ? ends[0] : nil
    for segment in segments {
      guard segment.isAssistant else {
        before += segment.text
        continue
      }
      guard end != nil, segment.text.ends(with: turnEnd), let head = try encoded(before),
        let turn = try encoded(before + segment.text), ids[place...].starts(with: turn)
      else { return nil }
      answers.append((place + commonPrefixCount(head, turn))..<(place + turn.count))
      place += turn.count
      before = ""
    }
    if !answers.isEmpty {
      guard let tail = try encoded(before), ids[place...].elementsEqual(tail) else { return nil }
    }
    return answers
  }

  /// The answers, with all that stands before each border encoded again.
  private func byPrefixes(
    _ segments: [ChatSegments.Segment], in ids: [Int32]
  ) throws(PeftoolError) -> [Range<Int>] {
    var answers: [Range<Int>] = []
    var (before, byteCount) = ("", 0)
    func encoded(_ text: String) throws(PeftoolError) -> [Int32] {
      byteCount += text.utf8.count
      guard byteCount <= searchLimit else {
        throw PeftoolError(
          .unsupported,
          "a conversation too long to find its answers in, whose turns end with no "
            + "token of their own; expected a tokenizer that has the chat template's tokens")
      }
      return try encode(text, false)
    }
    for segment in segments {
      let start = before
      before += segment.text
      guard segment.isAssistant else { continue }
      let first = commonPrefixCount(try encoded(start), ids)
      let whole = try encoded(before)
      let last = commonPrefixCount(whole, ids)
      // Where the border lies within a token, that token holds some of the answer.
      let end = last < whole.count && last < ids.count ? last + 1 : last
      if first < end { answers.append(first..<end) }
    }
    return answers
  }
}
