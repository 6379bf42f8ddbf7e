import Checkpoints

/// Which tokens see each other: ranges that are causal in themselves, for each half of the heads.
///
/// Whole texts, or the groups of LongLoRA's shifted sparse attention (S²-Attn; Chen et al. 2023,
/// section 3.2): the first half of the heads cuts a text at each multiple of the group size, the
/// second half a group later, after half a group. What lies at the ends of a text is a shorter group.
/// Of the two that the authors have published this is that of `llama_attn_replace.py`'s flash path;
/// the other lets the last half group and the first see each other, so that the first tokens of a
/// text know its end.
struct AttentionRanges: Sendable {
  /// Of the first half of the heads, and of the second.
  private let first, second: [Range<Int>]

  /// Whole texts.
  init(_ texts: [Range<Int>]) { (first, second) = (texts, texts) }

  /// Groups of so many tokens.
  init(_ texts: [Range<Int>], groupSize: Int) {
    precondition(groupSize > 0, "groups of tokens")
    first = texts.flatMap { $0.cut(into: groupSize) }
    second = texts.flatMap { text in
      let start = min(text.upperBound, text.lowerBound + groupSize / 2)
      let head = text.lowerBound..<start
      return (head.isEmpty ? [] : [head]) + (start..<text.upperBound).cut(into: groupSize)
    }
  }

  /// Each head with each of its ranges.
  func pairs(heads: Int) -> [(range: Range<Int>, head: Int)] {
    let half = heads / 2
    return first.flatMap { range in (0..<half).map { (range, $0) } }
      + second.flatMap { range in (half..<heads).map { (range, $0) } }
  }
}
