import CKernels
import LinearAlgebra

/// Causal attention with grouped heads, a block of queries against a block of keys at a time.
struct Attention: Sendable {
  /// The heads of queries.
  let heads: Int
  /// The heads of keys and values, each for `heads / keyHeads` of queries.
  let keyHeads: Int
  /// The elements of a head.
  let headSize: Int
  /// How many keys a query sees, its own among them; nil for all.
  let window: Int?
  /// What scores are multiplied by.
  let scaling: Float

  /// The floats of scratch that a thread needs for texts of so many tokens.
  func scratchCount(length: Int) -> Int { pef_attention_scratch(length, headSize) }

  /// Shapes: q and o (N, heads·D), k and v (N, keyHeads·D), lse (heads, N); `texts` are ranges of
  /// the N tokens for each head, each of which sees itself alone.
  func forward(
    q: Rows, k: Rows, v: Rows, texts: AttentionRanges, into o: Rows, lse: Rows, _ work: Workspace
  ) {
    check(q: q, k: k, v: v, o: o, lse: lse)
    let pairs = texts.pairs(heads: heads)
    work.team.forEach(pairs.count) { worker, item in
      let (text, head) = pairs[item]
      // The rows of a text and the columns of a head are parts of what has been checked; the scratch
      // is as large as `scratchCount` says.
      var task = unsafe self.task(q, k, v, text, head)
      unsafe pef_attention_forward_f32(
        &task, part(o, text, head).pointer, lse.rows(head..<head + 1).columns(text).pointer,
        scratch(text, worker, work).pointer)
    }
  }

  /// dq, dk and dv from dOut; shapes as in `forward`, but dk and dv hold each query head's share,
  /// (N, heads·D), which `fold` adds up.
  func backward(
    q: Rows, k: Rows, v: Rows, o: Rows, lse: Rows, dOut: Rows, texts: AttentionRanges,
    into dq: Rows, _ dk: Rows, _ dv: Rows, _ work: Workspace
  ) {
    check(q: q, k: k, v: v, o: o, lse: lse)
    check(q: dq, k: k, v: v, o: dOut, lse: lse)
    check(q: dk, k: k, v: v, o: dv, lse: lse)
    precondition(o.stride == q.stride && dOut.stride == q.stride && dq.stride == q.stride)
    precondition(dk.stride == dv.stride, "rows of one distance")
    let pairs = texts.pairs(heads: heads)
    work.team.forEach(pairs.count) { worker, item in
      let (text, head) = pairs[item]
      // As in forward.
      var task = unsafe self.task(q, k, v, text, head)
      unsafe pef_attention_backward_f32(
        &task, part(o, text, head).pointer, lse.rows(head..<head + 1).columns(text).pointer,
        part(dOut, text, head).pointer, part(dq, text, head).pointer,
        part(dk, text, head).pointer, part(dv, text, head).pointer, dk.stride,
        scratch(text, worker, work).pointer)
    }
  }

  /// Adds the shares of the query heads of each key head: (N, heads·D) to (N, keyHeads·D).
  func fold(_ x: Rows, into y: Rows, _ work: Workspace) {
    precondition(x.count == y.count && x.columns == heads * headSize)
    precondition(y.columns == keyHeads * headSize, "a share for each head of keys")
    work.forTokens(x.count) { _, tokens in
      let (from, to) = (x.rows(tokens), y.rows(tokens))
      // The parts of rows that have been checked.
      unsafe pef_fold_heads_f32(
        to.pointer, to.stride, from.pointer, from.stride, tokens.count, keyHeads,
        heads / keyHeads, headSize)
    }
  }

  private func check(q: Rows, k: Rows, v: Rows, o: Rows, lse: Rows) {
    precondition(q.columns == heads * headSize, "a column a head's element")
    precondition(o.columns == q.columns, "likewise for outputs")
    precondition(k.columns == keyHeads * headSize && v.columns == k.columns, "likewise for keys")
    precondition(k.stride == v.stride && q.stride == o.stride, "rows of one distance")
    precondition(k.count == q.count && v.count == q.count && o.count == q.count, "a row a token")
    precondition(lse.count == heads && lse.columns == q.count, "a number a head and token")
  }

  private func part(_ x: Rows, _ text: Range<Int>, _ head: Int) -> Rows {
    x.rows(text).columns(head * headSize..<(head + 1) * headSize)
  }

  private func task(
    _ q: Rows, _ k: Rows, _ v: Rows, _ text: Range<Int>, _ head: Int
  ) -> pef_attention {
    let group = head / (heads / keyHeads)
    return unsafe pef_attention(
      q: part(q, text, head).pointer, k: part(k, text, group).pointer,
      v: part(v, text, group).pointer, q_row: q.stride, k_row: k.stride, count: text.count,
      size: headSize, window: window ?? 0, scaling: scaling)
  }

  private func scratch(_ text: Range<Int>, _ worker: Int, _ work: Workspace) -> Rows {
    let scratch = work.scratch(of: worker)
    precondition(scratch.columns >= scratchCount(length: text.count), "room for a text that long")
    return scratch
  }
}
