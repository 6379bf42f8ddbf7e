/// The tokens of one word while they are merged, with the memory for it, which is used again.
struct Symbols {
  private var ids: [Int32] = []
  /// For few tokens: the merge of each with the next one.
  private var pairs: [UInt64] = []
  /// For many: the places of the tokens that are left, as a list linked both ways, and a heap of
  /// ranks with places, lowest first.
  private var next: [Int32] = []
  private var previous: [Int32] = []
  private var heap = RankHeap()

  /// Up to here finding the lowest rank anew after each merge is quicker than a heap.
  static let maximumScanCount = 64

  /// How many tokens there are.
  var count: Int { ids.count }

  mutating func removeAll() {
    ids.removeAll(keepingCapacity: true)
  }

  mutating func append(_ id: Int32) {
    ids.append(id)
  }

  /// Appends the tokens to others.
  func append(to result: inout [Int32]) {
    result += ids
  }

  /// Merges until no pair is left that has a merge: always the lowest rank, of equal ones the
  /// leftmost (`Word::merge_all` of the `tokenizers` library).
  mutating func merge(by merges: MergeTable) {
    if ids.count <= Self.maximumScanCount {
      mergeScanning(by: merges)
    } else {
      mergeByHeap(by: merges)
    }
  }

  /// Takes n² steps for n tokens, but short ones.
  mutating func mergeScanning(by merges: MergeTable) {
    guard ids.count > 1 else { return }
    pairs.removeAll(keepingCapacity: true)
    for index in 0..<(ids.count - 1) { pairs.append(merges.merge(ids[index], ids[index + 1])) }
    while true {
      var lowest = MergeTable.none
      var place = 0
      for index in pairs.indices where pairs[index] < lowest {
        lowest = pairs[index]
        place = index
      }
      guard lowest != MergeTable.none else { return }
      ids[place] = MergeTable.token(of: lowest)
      ids.remove(at: place + 1)
      pairs.remove(at: place)
      if place > 0 { pairs[place - 1] = merges.merge(ids[place - 1], ids[place]) }
      if place < pairs.count { pairs[place] = merges.merge(ids[place], ids[place + 1]) }
    }
  }

  /// Takes n·log n steps for n tokens.
  mutating func mergeByHeap(by merges: MergeTable) {
    let count = Int32(ids.count)
    guard count > 1 else { return }
    next = Array(1...count)
    previous = Array(-1..<(count - 1))
    heap.removeAll()
    for place in 0..<(count - 1) {
      heap.add(merges.merge(ids[Int(place)], ids[Int(place) + 1]), at: place)
    }
    heap.order()
    while let (rank, place) = heap.removeLowest() {
      let left = Int(place)
      // A token that was merged into another one is its own neighbour.
      guard next[left] != place, next[left] < count else { continue }
      let right = Int(next[left])
      let merge = merges.merge(ids[left], ids[right])
      // The pair has changed since, and stands in the heap anew.
      guard merge != MergeTable.none, merge >> 32 == rank else { continue }
      ids[left] = MergeTable.token(of: merge)
      next[left] = next[right]
      if next[right] < count { previous[Int(next[right])] = place }
      next[right] = Int32(right)
      if previous[left] >= 0 {
        heap.insert(merges.merge(ids[Int(previous[left])], ids[left]), at: previous[left])
      }
      if next[left] < count {
        heap.insert(merges.merge(ids[left], ids[Int(next[left])]), at: place)
      }
    }
    var kept = 0
    var place: Int32 = 0
    while place < count {
      ids[kept] = ids[Int(place)]
      kept += 1
      place = next[Int(place)]
    }
    ids.removeLast(ids.count - kept)
  }
}

/// Ranks with places, of which the lowest is at hand: first by rank, then by place.
private struct RankHeap {
  private var keys: [UInt64] = []

  mutating func removeAll() {
    keys.removeAll(keepingCapacity: true)
  }

  /// Adds a merge, if it is one, without its order.
  mutating func add(_ merge: UInt64, at place: Int32) {
    guard merge != MergeTable.none else { return }
    keys.append((merge >> 32) << 32 | UInt64(UInt32(bitPattern: place)))
  }

  /// Makes a heap of what was added.
  mutating func order() {
    for index in stride(from: keys.count / 2 - 1, through: 0, by: -1) { sink(index) }
  }

  mutating func insert(_ merge: UInt64, at place: Int32) {
    let count = keys.count
    add(merge, at: place)
    if keys.count > count { rise(count) }
  }

  mutating func removeLowest() -> (rank: UInt64, place: Int32)? {
    guard let lowest = keys.first else { return nil }
    let last = keys.removeLast()
    if !keys.isEmpty {
      keys[0] = last
      sink(0)
    }
    return (lowest >> 32, Int32(truncatingIfNeeded: lowest))
  }

  private mutating func rise(_ start: Int) {
    var index = start
    let key = keys[index]
    while index > 0, keys[(index - 1) / 2] > key {
      keys[index] = keys[(index - 1) / 2]
      index = (index - 1) / 2
    }
    keys[index] = key
  }

  private mutating func sink(_ start: Int) {
    var index = start
    let key = keys[index]
    while 2 * index + 1 < keys.count {
      var child = 2 * index + 1
      if child + 1 < keys.count, keys[child + 1] < keys[child] { child += 1 }
      guard keys[child] < key else { break }
      keys[index] = keys[child]
      index = child
    }
    keys[index] = key
  }
}
