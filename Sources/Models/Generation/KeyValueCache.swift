import CKernels
import LinearAlgebra

/// The keys and values of the tokens that a layer has seen, for the queries of those to come.
///
/// Memory: 2·keyHeads·D floats a token; it is the system's until tokens are there.
struct KeyValueCache: Sendable {
  /// Rotated keys, (keyHeads, tokens in panels of D rows).
  private let keys: Rows
  /// (tokens, keyHeads·D).
  let values: Rows

  /// Room for so many tokens.
  init(capacity: Int, keyHeads: Int, headSize: Int) {
    keys = Rows(keyHeads, Panels.floatCount(depth: headSize, columns: capacity))
    values = Rows(capacity, keyHeads * headSize)
  }

  /// How many tokens there is room for.
  var capacity: Int { values.count }

  /// The panels of a head's keys.
  func keys(ofHead head: Int) -> Rows { keys.rows(head..<head + 1) }

  /// Takes the keys and values of tokens, the first of which is number `first`.
  ///
  /// Shapes: k and v (N, keyHeads·D).
  func append(_ k: Rows, _ v: Rows, at first: Int) {
    precondition(k.count == v.count && k.columns == values.columns && v.columns == k.columns)
    precondition(first >= 0 && first + k.count <= capacity, "tokens that there is room for")
    values.rows(first..<first + v.count).copy(from: v)
    let size = values.columns / keys.count
    for head in 0..<keys.count {
      let part = k.columns(head * size..<(head + 1) * size)
      // A head's columns of rows that are there, into panels with room for the capacity.
      unsafe pef_append_panels_f32(
        keys(ofHead: head).pointer, first, part.pointer, part.stride, part.count, size)
    }
  }
}

extension Attention {
  /// The queries of the last tokens, of which `first` is the first, against all keys of a cache.
  ///
  /// Shapes: q and o (N, heads·D). The numbers are those of `forward` over all tokens at once.
  func forward(
    q: Rows, _ cache: KeyValueCache, first: Int, into o: Rows, _ work: Workspace
  ) {
    precondition(q.columns == heads * headSize && o.columns == q.columns && o.count == q.count)
    precondition(q.stride == o.stride && first + q.count <= cache.capacity, "rows of one distance")
    precondition(cache.values.columns == keyHeads * headSize, "a cache for such heads")
    work.team.forEach(heads) { worker, head in
      let group = head / (heads / keyHeads)
      let columns = head * headSize..<(head + 1) * headSize
      let scratch = work.scratch(of: worker)
      precondition(scratch.columns >= scratchCount(length: 0), "room for blocks of scores")
      // The columns of a head of rows that have been checked, and a cache with room for the tokens.
      var task = unsafe pef_attention(
        q: q.columns(columns).pointer, k: cache.keys(ofHead: group).pointer,
        v: cache.values.columns(group * headSize..<(group + 1) * headSize).pointer,
        q_row: q.stride, k_row: cache.values.stride, count: first + q.count, size: headSize,
        window: window ?? 0, scaling: scaling)
      unsafe pef_attention_cached_f32(
        &task, first, o.columns(columns).pointer, scratch.pointer)
    }
  }
}
