import LinearAlgebra

/// Orders of examples, by their numbers.
enum ExampleOrder {
  /// All numbers below `count`, each once, in an order that follows from the random numbers.
  ///
  /// Fisher's and Yates' shuffle, as Durstenfeld gives it, from the end.
  static func shuffled(count: Int, _ random: RandomNumbers) -> [Int] {
    var order = Array(0..<count)
    for place in stride(from: count - 1, to: 0, by: -1) {
      // Exact in doubles for as many examples as memory holds.
      order.swapAt(place, Int(random.uniform(place) * Double(place + 1)))
    }
    return order
  }

  /// The batches whose examples are sorted by length together.
  private static let batchesPerGroup = 50

  /// An order in which the rows of a batch are about equally long, and which begins with the
  /// longest example, so that memory that does not suffice is found out at once.
  ///
  /// Groups of 50 batches, a quarter of all where these are fewer, are each sorted from long to
  /// short. Source: `get_length_grouped_indices` of transformers.
  static func lengthGrouped(_ order: [Int], lengths: [Int], rowsPerBatch: Int) -> [Int] {
    guard !order.isEmpty else { return [] }
    let batches = max(1, min(order.count / (rowsPerBatch * 4), batchesPerGroup))
    let size = batches * rowsPerBatch
    var groups = stride(from: 0, to: order.count, by: size).map { start in
      sorted(Array(order[start..<min(start + size, order.count)]), lengths: lengths)
    }
    let longest = groups.indices.reduce(0) { best, group in
      lengths[groups[group][0]] > lengths[groups[best][0]] ? group : best
    }
    let first = groups[0][0]
    groups[0][0] = groups[longest][0]
    groups[longest][0] = first
    return groups.flatMap { $0 }
  }

  /// From long to short; equally long ones stay in their order.
  private static func sorted(_ order: [Int], lengths: [Int]) -> [Int] {
    order.enumerated().sorted { a, b in
      let (first, second) = (lengths[a.element], lengths[b.element])
      return first == second ? a.offset < b.offset : first > second
    }.map(\.element)
  }

  /// Rows of examples that fit together into a capacity, every example in one.
  ///
  /// Best fit, the longest first: each goes into the row that it leaves the least room in. An
  /// example that is longer than the capacity has a row of its own.
  static func packed(_ order: [Int], lengths: [Int], capacity: Int) -> [[Int]] {
    var rows: [[Int]] = []
    var room = RowRoom(capacity: capacity)
    for example in sorted(order, lengths: lengths) {
      let length = lengths[example]
      let (row, left) = room.take(atLeast: length) ?? (rows.count, max(capacity, length))
      if row == rows.count { rows.append([]) }
      rows[row].append(example)
      room.put(row, room: left - length)
    }
    return rows
  }
}

/// Rows by the room that is left in them, found in the logarithm of the capacity.
private struct RowRoom {
  /// How many rooms can be told apart, a power of two.
  private let width: Int
  /// A binary tree, the root at 1: whether there is a row below a node.
  private var isThere: [Bool]
  private var rows: [[Int]]

  init(capacity: Int) {
    var width = 1
    while width <= capacity { width *= 2 }
    self.width = width
    isThere = Array(repeating: false, count: 2 * width)
    rows = Array(repeating: [], count: width)
  }

  /// Adds a row.
  mutating func put(_ row: Int, room: Int) {
    rows[room].append(row)
    update(room)
  }

  /// Takes out the row with the least room that suffices.
  mutating func take(atLeast length: Int) -> (row: Int, room: Int)? {
    guard length < width else { return nil }
    var node = width + length
    while !isThere[node] {
      // Up as long as the way comes from the right, and then to the neighbour on the right.
      while node > 1, node % 2 == 1 { node /= 2 }
      if node <= 1 { return nil }
      node += 1
    }
    while node < width { node = isThere[2 * node] ? 2 * node : 2 * node + 1 }
    let room = node - width
    guard let row = rows[room].popLast() else { return nil }
    update(room)
    return (row, room)
  }

  private mutating func update(_ room: Int) {
    var node = width + room
    isThere[node] = !rows[room].isEmpty
    while node > 1 {
      node /= 2
      isThere[node] = isThere[2 * node] || isThere[2 * node + 1]
    }
  }
}
