import LinearAlgebra

// Which entries of an update are kept.

extension Array where Element: BinaryFloatingPoint & Sendable {
  /// The largest entries by magnitude, as many as the density's share of all, rounded down.
  ///
  /// The rest becomes 0. Of equal ones the first are kept; `magnitude_based_pruning` of PEFT leaves
  /// open which.
  func keepingLargest(density: Double) -> [Element] {
    keepingLargest(count: Int(density * Double(count)))
  }

  /// The `count` largest entries by magnitude.
  func keepingLargest(count kept: Int) -> [Element] {
    guard kept < count else { return self }
    guard kept > 0 else { return [Element](repeating: 0, count: count) }
    let (limit, equalCount) = leastOfLargest(count: kept)
    var left = equalCount
    return indices.map { place in
      if self[place].magnitude > limit { return self[place] }
      guard self[place].magnitude == limit, left > 0 else { return 0 }
      left -= 1
      return self[place]
    }
  }

  /// The places of the `count` largest entries by magnitude in ascending order; of equal ones the first.
  package func placesOfLargest(count kept: Int) -> [Int] {
    guard kept < count else { return Array<Int>(indices) }
    guard kept > 0 else { return [] }
    let (limit, equalCount) = leastOfLargest(count: kept)
    var left = equalCount
    return indices.filter { place in
      if self[place].magnitude > limit { return true }
      guard self[place].magnitude == limit, left > 0 else { return false }
      left -= 1
      return true
    }
  }

  /// The least of the `count` largest magnitudes, and how many of those equal to it are among them.
  ///
  /// By counting the bits of the numbers from the top, 16 at a time: no order of all is needed.
  private func leastOfLargest(count kept: Int) -> (limit: Element, equalCount: Int) {
    var (prefix, mask): (UInt64, UInt64) = (0, 0)
    var left = kept
    for shift in stride(from: UInt64(48), through: 0, by: -16) {
      var counts = [Int](repeating: 0, count: 1 << 16)
      for element in self {
        let bits = Double(element).magnitude.bitPattern
        if bits & mask == prefix { counts[Int(bits >> shift & 0xFFFF)] += 1 }
      }
      var digit = counts.count - 1
      while counts[digit] < left {
        left -= counts[digit]
        digit -= 1
      }
      prefix |= UInt64(digit) << shift
      mask |= 0xFFFF << shift
    }
    return (Element(Double(bitPattern: prefix)), left)
  }

  /// DARE: each entry is kept with the density's probability, and then divided by it
  /// (`random_pruning` of PEFT).
  func keepingRandom(density: Double, _ numbers: RandomNumbers) -> [Element] {
    indices.map { numbers.uniform($0) < density ? self[$0] / Element(density) : 0 }
  }

  /// Model Breadcrumbs (Davari, Belilovsky 2023): without the share `outliers` of the largest and
  /// without the smallest, so that the density's share is left (`breadcrumbs` of mergekit).
  func keepingMiddle(density: Double, outliers: Double) -> [Element] {
    let kept = Int(density * Double(count))
    let top = Swift.min(Int(outliers * Double(count)), count - kept)
    let largest = keepingLargest(count: top + kept)
    let outermost = keepingLargest(count: top)
    return zip(largest, outermost).map { $1 == 0 ? $0 : 0 }
  }

  /// DELLA's MagPrune (Deep, Bhardwaj, Poria 2024): in each row the entries are kept with a
  /// probability from density − ε for the smallest to density + ε for the largest; what is left is
  /// rescaled to the sum of all magnitudes (`magprune` of mergekit).
  func keepingByRank(
    density: Double, epsilon: Double, columns: Int, _ numbers: RandomNumbers
  ) -> [Element] {
    var result = [Element](repeating: 0, count: count)
    guard columns > 0 else { return result }
    for start in stride(from: 0, to: count, by: columns) {
      let row = start..<start + columns
      let order = row.sorted { (self[$0].magnitude, $0) < (self[$1].magnitude, $1) }
      for (rank, place) in order.enumerated() {
        let share = columns > 1 ? Double(rank) / Double(columns - 1) : 1
        let probability = density - epsilon + 2 * epsilon * share
        if numbers.uniform(place) < probability { result[place] = self[place] }
      }
    }
    let whole = reduce(0) { $0 + Double($1.magnitude) }
    let kept = result.reduce(0) { $0 + Double($1.magnitude) }
    return kept > 0 ? result.map { $0 * Element(whole / kept) } : result
  }
}
