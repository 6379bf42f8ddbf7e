import Files

/// How many bytes the steps of a tokenizer may add to one text, all of them together.
///
/// Each step may make a text longer, and steps behind one another multiply what they add; what a
/// step takes away is given to none. So a text's length and the time for it are bounded, however
/// many steps there are and however many parts it is cut into.
struct GrowthBudget: Sendable {
  /// The parts of the file that add, as a message names them.
  private let parts: String
  /// The most bytes, and those that have not been added yet.
  private var limit: Int
  private(set) var left: Int

  /// How many bytes may be added for each that there is at first; no character becomes as long.
  static let maximumGrowth = 64
  /// What may be added to any text.
  static let spareByteCount = 1 << 16

  /// What the named parts of a file may add to a text of so many bytes.
  init(of parts: String, byteCount: Int) {
    self.parts = parts
    limit = Self.maximumGrowth * byteCount + Self.spareByteCount
    left = limit
  }

  /// Makes room for more bytes of the text.
  mutating func extend(byteCount: Int) {
    limit += Self.maximumGrowth * byteCount
    left += Self.maximumGrowth * byteCount
  }

  /// - Throws: `unsupported` where so many bytes may not be added.
  func check(_ byteCount: Int) throws(PeftoolError) {
    guard byteCount <= left else {
      throw PeftoolError(
        .unsupported,
        "\(parts) would add more than \(limit) bytes, \(Self.maximumGrowth) times the text's "
          + "length")
    }
  }

  /// Counts bytes that were added; fewer than none count for nothing.
  ///
  /// - Throws: `unsupported` where they are too many.
  mutating func spend(_ byteCount: Int) throws(PeftoolError) {
    try check(byteCount)
    left -= max(0, byteCount)
  }
}
