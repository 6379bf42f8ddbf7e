/// The pairs of tokens that BPE makes one of, each with its rank and the token that it makes.
struct MergeTable: Sendable {
  private var pairs: [UInt64]
  /// Rank and token of the pair at the same place.
  private var merges: [UInt64]

  /// No pair has this key: its halves are no numbers of tokens.
  private static let empty = UInt64.max

  /// What comes out where there is no merge: its rank is above all others.
  static let none = UInt64.max

  /// An empty table for so many pairs.
  init(capacity: Int) {
    var count = 16
    while count < 2 * capacity { count *= 2 }
    pairs = [UInt64](repeating: Self.empty, count: count)
    merges = [UInt64](repeating: Self.none, count: count)
  }

  /// Sets a merge; of several for one pair the last one counts.
  mutating func set(_ left: Int32, _ right: Int32, rank: Int, token: Int32) {
    let pair = Self.key(left, right)
    let slot = slot(of: pair)
    pairs[slot] = pair
    merges[slot] = UInt64(rank) << 32 | UInt64(UInt32(token))
  }

  /// The merge of a pair, its rank in the upper half and its token in the lower; or `none`.
  ///
  /// Merges so compare by their ranks, and each pair has a rank of its own.
  @inline(__always)
  func merge(_ left: Int32, _ right: Int32) -> UInt64 {
    merges[slot(of: Self.key(left, right))]
  }

  /// The token that a merge makes.
  @inline(__always)
  static func token(of merge: UInt64) -> Int32 {
    Int32(truncatingIfNeeded: merge)
  }

  @inline(__always)
  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  @inline(__always)
  private func slot(of pair: UInt64) -> Int {
    let mask = pairs.count - 1
    var slot = Int(truncatingIfNeeded: KeyedHash.value(of: pair)) & mask
    while pairs[slot] != Self.empty, pairs[slot] != pair { slot = (slot + 1) & mask }
    return slot
  }
}
