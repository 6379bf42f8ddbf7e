/// Text that ends before the first of some strings, however it comes in pieces.
///
/// What may be the beginning of such a string is held back until it is known not to be one. Strings
/// are compared byte by byte.
package struct StopText: Sendable {
  private let stops: [[UInt8]]
  private var held: [UInt8] = []
  /// The string that ended the text.
  package private(set) var stop: String?

  /// Text that ends before any of these; an empty string ends nothing.
  package init(_ stops: [String]) {
    self.stops = stops.filter { !$0.isEmpty }.map { Array($0.utf8) }
  }

  /// Takes a piece, and returns the text that is certain now and was not before.
  ///
  /// Pieces that end with characters give pieces that do.
  package mutating func push(_ piece: String) -> String {
    guard stop == nil else { return "" }
    held += piece.utf8
    if let found = firstStop() {
      stop = String(decoding: stops[found.stop], as: UTF8.self)
      defer { held = [] }
      return String(decoding: held[..<found.place], as: UTF8.self)
    }
    let count = held.count - beginningCount
    defer { held.removeFirst(count) }
    return String(decoding: held[..<count], as: UTF8.self)
  }

  /// Ends the text, and returns what was held back.
  package mutating func finish() -> String {
    defer { held = [] }
    return String(decoding: held, as: UTF8.self)
  }

  /// The first place at which a string stands; of several there the first given.
  private func firstStop() -> (place: Int, stop: Int)? {
    for place in held.indices {
      if let stop = stops.firstIndex(where: { held[place...].starts(with: $0) }) {
        return (place, stop)
      }
    }
    return nil
  }

  /// How many of the last bytes may be the beginning of a string.
  private var beginningCount: Int {
    let longest = (stops.map(\.count).max() ?? 1) - 1
    for count in stride(from: min(longest, held.count), to: 0, by: -1)
    where stops.contains(where: { $0.starts(with: held.suffix(count)) }) {
      return count
    }
    return 0
  }
}
