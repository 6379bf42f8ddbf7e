/// One layer of a model of the Llama family.
///
/// h = norm₁(x); q, k, v = h·W; rotary positions on q and k; x₂ = x + attention(q, k, v)·W_o;
/// out = x₂ + SwiGLU(norm₂(x₂))·W_d. Qwen3 normalizes each head of q and k first.
package struct DecoderLayer: Sendable {
  let inputNorm: RMSNorm
  let attentionInputs: ProjectionGroup
  /// Qwen3's norms of the heads of q and k.
  let headNorms: (q: RMSNorm, k: RMSNorm)?
  let attention: Attention
  let attentionOutput: ProjectionGroup
  let outputNorm: RMSNorm
  let gates: ProjectionGroup
  let down: ProjectionGroup

  /// All linear layers, in the order of PEFT's names.
  var projections: [Projection] {
    attentionInputs.projections + attentionOutput.projections + gates.projections
      + down.projections
  }

  /// Its matrices that are trained whole.
  var trainedMatrices: [TrainableParameter] { projections.compactMap(\.weight.whole) }

  /// Its norms.
  private var norms: [RMSNorm] {
    [inputNorm, outputNorm] + (headNorms.map { [$0.q, $0.k] } ?? [])
  }

  /// Whether anything of it is trained.
  var isTrained: Bool {
    projections.contains(where: \.isTrained) || norms.contains { $0.trained != nil }
  }

  /// Whether a layer has the gain of DoRA.
  private static func hasGain(_ group: ProjectionGroup) -> Bool {
    group.projections.contains { $0.adapter?.magnitude != nil }
  }

  /// Whether what o_proj and down_proj give is kept by itself.
  var keepsOutputs: Bool { Self.hasGain(attentionOutput) || Self.hasGain(down) }

  /// What the forward pass leaves for the backward pass.
  struct Kept: Sendable {
    /// The input and the sum after attention, (N, hidden).
    let x, middle: Rows
    /// ρ of the two norms, (1, N).
    let rhos: (input: Rows, output: Rows)
    /// After rotation, (N, heads·D) and (N, keyHeads·D).
    let q, k, v: Rows
    /// Before Qwen3's norms, and their ρ, a head after the other.
    let raw: RawHeads?
    /// Attention's output, (N, heads·D), and its logarithms of sums, (heads, N).
    let o, lse: Rows
    /// Of the feed-forward layer, (N, F).
    let gate, up: Rows
    /// With DoRA what o_proj and down_proj have given, (N, hidden).
    let outputs: (attention: Rows, down: Rows)?
  }

  /// q and k before Qwen3's norms, with ρ of each head, (1, N·heads).
  struct RawHeads: Sendable {
    let q, k: Rows
    let qRho, kRho: Rows
    let headSize: Int
  }

  /// The text that is computed: where each token stands, and which are of one text.
  struct Texts {
    let positions: [Int32]
    let ranges: AttentionRanges
    let rotary: RotaryEmbedding
  }

  /// Memory that all layers use in turn.
  struct Scratch: Sendable {
    /// (N, hidden) each, in memory of their own.
    let h, dh: Rows
    /// (N, F) each; these and all below are in one storage.
    let m, dm: Rows
    /// (N, heads·D) each.
    let dq, dk, dv, dOut: Rows
    /// (N, keyHeads·D) each.
    let foldedK, foldedV: Rows
  }

  /// Memory for what is kept of so many tokens.
  ///
  /// - Parameter hasOutputs: whether one of the layers that use it keeps outputs.
  func makeKept(_ count: Int, hasOutputs: Bool) -> Kept {
    let (q, k) = (attention.heads * attention.headSize, attention.keyHeads * attention.headSize)
    let hidden = inputNorm.weight.columns
    let inner = gates.projections[0].outputs
    return Kept(
      x: Rows(count, hidden), middle: Rows(count, hidden),
      rhos: (Rows(1, count), Rows(1, count)), q: Rows(count, q), k: Rows(count, k),
      v: Rows(count, k),
      raw: headNorms == nil
        ? nil
        : RawHeads(
          q: Rows(count, q), k: Rows(count, k), qRho: Rows(1, count * attention.heads),
          kRho: Rows(1, count * attention.keyHeads), headSize: attention.headSize),
      o: Rows(count, q), lse: Rows(attention.heads, count), gate: Rows(count, inner),
      up: Rows(count, inner),
      outputs: hasOutputs ? (Rows(count, hidden), Rows(count, hidden)) : nil)
  }

  /// Memory for the passes over so many tokens.
  ///
  /// - Parameter floatCount: the floats that there is room for between two layers.
  func makeScratch(_ count: Int, atLeast floatCount: Int) -> Scratch {
    let (q, k) = (attention.heads * attention.headSize, attention.keyHeads * attention.headSize)
    let hidden = inputNorm.weight.columns
    let inner = gates.projections[0].outputs
    let widths = [inner, inner, q, q, q, q, k, k]
    // Each begins at a line of the cache.
    let lengths = widths.map { (count * $0 + 15) / 16 * 16 }
    let storage = Storage(max(floatCount, lengths.reduce(0, +)))
    var start = 0
    let rows = zip(widths, lengths).map { width, length in
      defer { start += length }
      return Rows(storage, start: start, count: count, columns: width, stride: width)
    }
    return Scratch(
      h: Rows(count, hidden), dh: Rows(count, hidden), m: rows[0], dm: rows[1], dq: rows[2],
      dk: rows[3], dv: rows[4], dOut: rows[5], foldedK: rows[6], foldedV: rows[7])
  }

  /// The output, (N, hidden), from `kept.x`.
  func forward(
    _ kept: Kept, _ texts: Texts, into output: Rows, _ scratch: Scratch, _ work: Workspace
  ) {
    inputNorm.forward(kept.x, into: scratch.h, rho: kept.rhos.input, work)
    let (q, k) = kept.raw.map { ($0.q, $0.k) } ?? (kept.q, kept.k)
    let outputs = keepsOutputs ? kept.outputs : nil
    attentionInputs.forward(scratch.h, into: [q, k, kept.v], work)
    normalizeHeads(kept, work)
    let size = attention.headSize
    texts.rotary.rotate(kept.q, headSize: size, positions: texts.positions, work)
    texts.rotary.rotate(kept.k, headSize: size, positions: texts.positions, work)
    attention.forward(
      q: kept.q, k: kept.k, v: kept.v, texts: texts.ranges, into: kept.o, lse: kept.lse, work)
    add(
      attentionOutput, of: kept.o, to: kept.x, own: outputs?.attention, into: kept.middle, work)

    outputNorm.forward(kept.middle, into: scratch.h, rho: kept.rhos.output, work)
    gates.forward(scratch.h, into: [kept.gate, kept.up], work)
    SwiGLU.forward(kept.gate, kept.up, into: scratch.m, work)
    add(down, of: scratch.m, to: kept.middle, own: outputs?.down, into: output, work)
  }

  /// From the output's gradient, which `d` holds, the input's in its place.
  ///
  /// - Parameter needsInput: whether something below is trained; without it `d` is lost.
  func backward(
    _ kept: Kept, _ texts: Texts, _ d: Rows, needsInput: Bool, _ scratch: Scratch,
    _ work: Workspace
  ) {
    let outputs = keepsOutputs ? kept.outputs : nil
    SwiGLU.forward(kept.gate, kept.up, into: scratch.m, work)
    backward(down, of: scratch.m, d, own: outputs?.down, into: scratch.dm, scratch, work)
    SwiGLU.backward(kept.gate, kept.up, dmThenDa: scratch.dm, db: scratch.m, work)
    outputNorm.forward(kept.middle, into: scratch.h, rho: kept.rhos.output, work)
    gates.backward(
      scratch.h, [scratch.dm, scratch.m], ys: [kept.gate, kept.up], into: scratch.dh, work)
    outputNorm.backward(
      scratch.dh, x: kept.middle, rho: kept.rhos.output, addingTo: d, work)

    backward(
      attentionOutput, of: kept.o, d, own: outputs?.attention, into: scratch.dOut, scratch, work)
    attention.backward(
      q: kept.q, k: kept.k, v: kept.v, o: kept.o, lse: kept.lse, dOut: scratch.dOut,
      texts: texts.ranges, into: scratch.dq, scratch.dk, scratch.dv, work)
    attention.fold(scratch.dk, into: scratch.foldedK, work)
    attention.fold(scratch.dv, into: scratch.foldedV, work)
    let size = attention.headSize
    for x in [scratch.dq, scratch.foldedK] {
      texts.rotary.rotate(
        x, headSize: size, positions: texts.positions, isInverse: true, work)
    }
    if headNorms == nil, Self.hasGain(attentionInputs) {
      // DoRA looks at what its layer has given, which was rotated after.
      for x in [kept.q, kept.k] {
        texts.rotary.undo(x, headSize: size, positions: texts.positions, work)
      }
    }
    let (dq, dk) = normalizeHeadsBackward(kept, scratch, work)
    inputNorm.forward(kept.x, into: scratch.h, rho: kept.rhos.input, work)
    let (q, k) = kept.raw.map { ($0.q, $0.k) } ?? (kept.q, kept.k)
    attentionInputs.backward(
      scratch.h, [dq, dk, scratch.foldedV], ys: [q, k, kept.v],
      into: needsInput || inputNorm.trained != nil ? scratch.dh : nil, work)
    guard needsInput || inputNorm.trained != nil else { return }
    inputNorm.backward(
      scratch.dh, x: kept.x, rho: kept.rhos.input, addingTo: needsInput ? d : nil, work)
  }

  /// sum = x + group(input).
  private func add(
    _ group: ProjectionGroup, of input: Rows, to x: Rows, own: Rows?, into sum: Rows,
    _ work: Workspace
  ) {
    if let own {
      group.forward(input, into: [own], work)
      work.forTokens(x.count) { _, tokens in
        sum.rows(tokens).copy(from: x.rows(tokens))
        sum.rows(tokens).add(own.rows(tokens))
      }
    } else {
      work.forTokens(x.count) { _, tokens in sum.rows(tokens).copy(from: x.rows(tokens)) }
      group.forward(input, into: [sum], adding: true, work)
    }
  }

  /// The gradient of `input` from that of the sum, which goes on as it is.
  private func backward(
    _ group: ProjectionGroup, of input: Rows, _ d: Rows, own: Rows?, into dInput: Rows,
    _ scratch: Scratch, _ work: Workspace
  ) {
    var dy = d
    if own != nil {
      // DoRA multiplies its gradient by the gain; the sum's stays.
      dy = scratch.dh
      work.forTokens(d.count) { _, tokens in dy.rows(tokens).copy(from: d.rows(tokens)) }
    }
    group.backward(input, [dy], ys: [own], into: dInput, work)
  }

  /// Each head of a row as a row.
  func byHead(_ x: Rows) -> Rows {
    x.reshaped(x.count * x.columns / attention.headSize, attention.headSize)
  }

  private func normalizeHeads(_ kept: Kept, _ work: Workspace) {
    guard let headNorms, let raw = kept.raw else { return }
    headNorms.q.forward(byHead(raw.q), into: byHead(kept.q), rho: raw.qRho, work)
    headNorms.k.forward(byHead(raw.k), into: byHead(kept.k), rho: raw.kRho, work)
  }

  /// The gradients before Qwen3's norms.
  private func normalizeHeadsBackward(
    _ kept: Kept, _ scratch: Scratch, _ work: Workspace
  ) -> (dq: Rows, dk: Rows) {
    guard let headNorms, let raw = kept.raw else { return (scratch.dq, scratch.foldedK) }
    // Attention's shares have been added up, and their memory is free.
    let dq = scratch.dOut
    let dk = scratch.dk.reshaped(kept.k.count, kept.k.columns)
    dq.clear()
    dk.clear()
    headNorms.q.backward(
      byHead(scratch.dq), x: byHead(raw.q), rho: raw.qRho, addingTo: byHead(dq), work)
    headNorms.k.backward(
      byHead(scratch.foldedK), x: byHead(raw.k), rho: raw.kRho, addingTo: byHead(dk), work)
    return (dq, dk)
  }
}

extension DecoderLayer.Kept {
  /// The memory for the first tokens, with another place for the input.
  func first(_ count: Int, x: Rows) -> DecoderLayer.Kept {
    let tokens = 0..<count
    let heads = (q: q.columns / (raw?.headSize ?? 1), k: k.columns / (raw?.headSize ?? 1))
    return DecoderLayer.Kept(
      x: x.rows(tokens), middle: middle.rows(tokens),
      rhos: (rhos.input.columns(tokens), rhos.output.columns(tokens)), q: q.rows(tokens),
      k: k.rows(tokens), v: v.rows(tokens),
      raw: raw.map {
        DecoderLayer.RawHeads(
          q: $0.q.rows(tokens), k: $0.k.rows(tokens),
          qRho: $0.qRho.columns(0..<count * heads.q), kRho: $0.kRho.columns(0..<count * heads.k),
          headSize: $0.headSize)
      }, o: o.rows(tokens), lse: lse.columns(tokens), gate: gate.rows(tokens),
      up: up.rows(tokens),
      outputs: outputs.map { ($0.attention.rows(tokens), $0.down.rows(tokens)) })
  }
}

extension DecoderLayer.Scratch {
  /// Other rows in the memory of all but `h` and `dh`, for when no layer is computed.
  func rows(of columns: Int, stride: Int, floatCount: Int) -> Rows {
    Rows(m.storage, start: 0, count: floatCount / stride, columns: columns, stride: stride)
  }

  /// The memory for the first tokens.
  func first(_ count: Int) -> DecoderLayer.Scratch {
    let tokens = 0..<count
    return DecoderLayer.Scratch(
      h: h.rows(tokens), dh: dh.rows(tokens), m: m.rows(tokens), dm: dm.rows(tokens),
      dq: dq.rows(tokens), dk: dk.rows(tokens), dv: dv.rows(tokens), dOut: dOut.rows(tokens),
      foldedK: foldedK.rows(tokens), foldedV: foldedV.rows(tokens))
  }
}
