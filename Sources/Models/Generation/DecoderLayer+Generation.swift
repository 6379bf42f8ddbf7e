// The forward pass over the last tokens of a text, with the keys and values of those before.
extension DecoderLayer {
  /// What the passes of a model's layers leave and use again, for so many tokens.
  struct GenerationMemory: Sendable {
    /// (N, hidden) each.
    let x, h: Rows
    /// (N, heads·D) and (N, keyHeads·D).
    let q, k, v, o: Rows
    /// Before Qwen3's norms.
    let raw: (q: Rows, k: Rows)?
    /// (N, F) each.
    let gate, up, m: Rows
    /// ρ of a norm, of tokens or heads.
    let rho: Rows

    /// The memory for the first tokens.
    func first(_ count: Int) -> GenerationMemory {
      let tokens = 0..<count
      return GenerationMemory(
        x: x.rows(tokens), h: h.rows(tokens), q: q.rows(tokens), k: k.rows(tokens),
        v: v.rows(tokens), o: o.rows(tokens),
        raw: raw.map { ($0.q.rows(tokens), $0.k.rows(tokens)) }, gate: gate.rows(tokens),
        up: up.rows(tokens), m: m.rows(tokens), rho: rho)
    }
  }

  /// Memory for the passes over so many tokens.
  func makeGenerationMemory(_ count: Int) -> GenerationMemory {
    let (q, k) = (attention.heads * attention.headSize, attention.keyHeads * attention.headSize)
    let hidden = inputNorm.weight.columns
    let inner = gates.projections[0].outputs
    return GenerationMemory(
      x: Rows(count, hidden), h: Rows(count, hidden), q: Rows(count, q), k: Rows(count, k),
      v: Rows(count, k), o: Rows(count, q),
      raw: headNorms == nil ? nil : (Rows(count, q), Rows(count, k)), gate: Rows(count, inner),
      up: Rows(count, inner), m: Rows(count, inner), rho: Rows(1, count * attention.heads))
  }

  /// The output in place of the input, which `memory.x` holds.
  ///
  /// - Parameters:
  ///   - cache: takes the keys and values of the tokens.
  ///   - first: the number of the first token in the text.
  ///   - positions: its place in the tables of `rotary`, and those of the others.
  func forward(
    _ memory: GenerationMemory, _ cache: KeyValueCache, first: Int, rotary: RotaryEmbedding,
    positions: [Int32], _ work: Workspace
  ) {
    let count = memory.x.count
    let size = attention.headSize
    let rho = memory.rho.columns(0..<count)
    inputNorm.forward(memory.x, into: memory.h, rho: rho, work)
    let (q, k) = memory.raw.map { ($0.q, $0.k) } ?? (memory.q, memory.k)
    attentionInputs.apply(memory.h, into: [q, k, memory.v], work)
    if let headNorms, let raw = memory.raw {
      let rho = (
        q: memory.rho.columns(0..<count * attention.heads),
        k: memory.rho.columns(0..<count * attention.keyHeads)
      )
      headNorms.q.forward(byHead(raw.q), into: byHead(memory.q), rho: rho.q, work)
      headNorms.k.forward(byHead(raw.k), into: byHead(memory.k), rho: rho.k, work)
    }
    rotary.rotate(memory.q, headSize: size, positions: positions, work)
    rotary.rotate(memory.k, headSize: size, positions: positions, work)
    cache.append(memory.k, memory.v, at: first)
    attention.forward(q: memory.q, cache, first: first, into: memory.o, work)
    attentionOutput.add(of: memory.o, to: memory.x, own: memory.h, work)

    outputNorm.forward(memory.x, into: memory.h, rho: rho, work)
    gates.apply(memory.h, into: [memory.gate, memory.up], work)
    SwiGLU.forward(memory.gate, memory.up, into: memory.m, work)
    down.add(of: memory.m, to: memory.x, own: memory.h, work)
  }
}

extension ProjectionGroup {
  /// outputs = x·W'ᵀ + bias, or outputs += that, for however many tokens.
  func apply(_ x: Rows, into outputs: [Rows], adding: Bool = false, _ work: Workspace) {
    if x.count <= Self.fewTokens {
      forwardFew(x, into: outputs, adding: adding, work)
    } else {
      forward(x, into: outputs, adding: adding, work)
    }
  }

  /// sum += the only layer's output; `own` is room for that.
  fileprivate func add(of x: Rows, to sum: Rows, own: Rows, _ work: Workspace) {
    let hasGain = projections.contains { $0.adapter?.magnitude != nil }
    guard hasGain, x.count > Self.fewTokens else {
      apply(x, into: [sum], adding: true, work)
      return
    }
    forward(x, into: [own], work)
    work.forTokens(sum.count) { _, tokens in sum.rows(tokens).add(own.rows(tokens)) }
  }
}
