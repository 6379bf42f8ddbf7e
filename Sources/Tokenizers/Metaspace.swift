import Files
import JSON

/// The sign that stands for a space in the tokens of SentencePiece (`pre_tokenizers/metaspace.rs`
/// of the `tokenizers` library, which also decodes).
struct Metaspace: Sendable {
  /// The sign, mostly `▁`.
  let sign: [UInt8]
  /// Before which pieces one is put that do not begin with it.
  let scheme: Scheme
  /// Whether pieces are cut before each sign.
  let splits: Bool

  /// Before which pieces a sign is put.
  enum Scheme: String, CaseIterable {
    /// The one that the text begins with.
    case first
    case always
    case never
  }

  /// - Throws: `damaged` where a member is missing, of another type, or contradicts another.
  init(_ part: Part) throws(PeftoolError) {
    try part.hasOnly("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep")
    var sign: [UInt8] = []
    sign.append(try part.scalar("replacement"))
    self.sign = sign
    let name = part.json["prepend_scheme"] == nil ? "always" : try part.string("prepend_scheme")
    guard let scheme = Scheme(rawValue: name) else {
      let known = Scheme.allCases.map(\.rawValue).joined(separator: ", ")
      throw PeftoolError(
        .unsupported,
        "\(part.place).prepend_scheme is \"\(name.printable)\", peftool takes \(known)")
    }
    self.scheme = scheme
    // Older files have this in place of prepend_scheme.
    if part.json["add_prefix_space"] != .null,
      try !part.bool("add_prefix_space", default: true), scheme != .never
    {
      throw PeftoolError(
        .damaged,
        "\(part.place).add_prefix_space is false, prepend_scheme \"\(scheme.rawValue)\"")
    }
    splits = part.json["split"] == .null ? true : try part.bool("split", default: true)
  }

  /// Puts signs in the place of spaces, and cuts.
  ///
  /// - Throws: `unsupported` where the text becomes too long.
  func cut(_ pieces: inout Pieces) throws(PeftoolError) {
    try pieces.map { (piece, isFirst) throws(PeftoolError) in
      try piece.replace(by: sign) { (bytes, replace) throws(PeftoolError) in
        for index in bytes.indices where bytes[index] == UInt8(ascii: " ") {
          try replace(index..<index + 1)
        }
      }
      let isPrepended =
        switch scheme {
        case .first: isFirst
        case .always: true
        case .never: false
        }
      if isPrepended, !piece.bytes.starts(with: sign) { piece.prepend(sign) }
    }
    guard splits else { return }
    pieces.split(.mergedWithNext) { (text, cuts) in
      var place = 0
      while let start = text.firstPlace(of: sign.span, from: place) {
        place = start + sign.count
        cuts.add(start..<place)
      }
    }
  }
}
