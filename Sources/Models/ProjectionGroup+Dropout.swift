import Checkpoints
import LinearAlgebra
import Tensors

// Linear layers whose adapters leave out some of their inputs: x̃ = x ∘ mask, a mask a layer.
//
// LoRA: y = x·Wᵀ + s·x̃·Aᵀ·Bᵀ, the factors one after the other. DoRA, with V = W + s·B·A, n the norms
// of its rows and g = m / n: y = x·Wᵀ + x̃·Eᵀ with E = g∘V − W, as PEFT has it (`lora/dora.py`: the
// base's share of what is left out stays as it is). That takes a second product with the weight,
// and a third for m's gradient.
extension ProjectionGroup {
  /// Whether an adapter leaves something out in training.
  var hasDropout: Bool { projections.contains { $0.dropsInputs } }

  /// The inputs of which something is left out, over all layers.
  var maskedInputs: Int { projections.reduce(0) { $0 + ($1.dropsInputs ? $1.inputs : 0) } }

  /// The floats of scratch that a thread needs: a tile and its panels, the tile once more, some
  /// tokens' inputs, and a product for all tokens.
  static func droppingScratchCount(tokens: Int) -> Int {
    3 * tileDepth * tileWidth + tokenCount * tileDepth + tokens * tileWidth
  }

  /// As `forward`.
  func forward(
    _ x: Rows, into outputs: [Rows], adding: Bool, dropping dropout: Dropout, _ work: Workspace
  ) {
    let masks = masks(x.count, dropout, work)
    findGains(work)
    let products = lowRankInputs(x, masks, work)
    let tiles = tiles(threads: work.team.count)
    work.team.forEach(tiles.count) { worker, item in
      let (place, rows) = tiles[item]
      let input = DroppedInput(x: x, mask: masks[place], u: products[place])
      projections[place].forward(
        input, rows: rows, into: outputs[place].columns(rows), adding: adding,
        DroppingScratch(work.scratch(of: worker)))
    }
  }

  /// As `backward`; the outputs of the forward pass are not needed.
  func backward(
    _ x: Rows, _ dys: [Rows], into dx: Rows?, dropping dropout: Dropout, _ work: Workspace
  ) {
    let masks = masks(x.count, dropout, work)
    let products = lowRankInputs(x, masks, work)
    let derivatives = lowRankOutputs(dys, work)
    let inputs = projections.indices.map {
      DroppedInput(x: x, mask: masks[$0], u: products[$0])
    }
    let pieces = pieces(needsInput: dx != nil, threads: work.team.count)
    work.team.forEach(pieces.count) { worker, item in
      let scratch = DroppingScratch(work.scratch(of: worker))
      switch pieces[item] {
      case .input(let columns):
        guard let dx else { return }
        for (place, projection) in projections.enumerated() {
          projection.backward(
            dys[place], inputs[place], du: derivatives[place], columns: columns,
            into: dx.columns(columns), adding: place > 0, scratch)
        }
      case .a(let place, let columns):
        guard let adapter = projections[place].adapter, let du = derivatives[place] else { return }
        let gradient = adapter.appliedGradient.columns(columns)
        inputs[place].forEach(columns, scratch) { tokens, x in
          gradient.multiply(transposed: du.rows(tokens), x, adding: true)
        }
      case .b(let place, let columns):
        projections[place].addOutputGradients(dys[place], inputs[place], rows: columns, scratch)
      case .weights(let columns):
        addWeightGradients(dys, x, columns: columns, work.scratch(of: worker))
      case .rows(let place, let part):
        projections[place].weight.addRowGradients(of: part, dys[place], x)
      case .bias(let place):
        projections[place].trainedBias?.gradient.addRows(of: dys[place])
      }
    }
  }

  /// The masks of the layers that have one, (N, inputs).
  private func masks(_ count: Int, _ dropout: Dropout, _ work: Workspace) -> [Rows?] {
    var start = 0
    let masks = projections.map { projection -> Rows? in
      guard projection.dropsInputs else { return nil }
      defer { start += projection.inputs }
      return work.mask(count, projection.inputs, at: start)
    }
    forEachAdapter(count, work) { _, place, tokens in
      guard let mask = masks[place] else { return }
      dropout.fill(
        mask, tokens: tokens, module: projections[place].name,
        probability: projections[place].adapter?.dropout ?? 0)
    }
    return masks
  }

  /// u = s·A·x̃ of each layer with an adapter, (N, rank).
  private func lowRankInputs(_ x: Rows, _ masks: [Rows?], _ work: Workspace) -> [Rows?] {
    let products = lowRankRows(x.count, 0, work)
    let panels = projections.map { $0.adapter?.panelsOfA() }
    forEachAdapter(x.count, work) { worker, place, tokens in
      guard let u = products[place]?.rows(tokens), let panels = panels[place] else { return }
      let scratch = DroppingScratch(work.scratch(of: worker))
      let input = DroppedInput(x: x.rows(tokens), mask: masks[place]?.rows(tokens), u: nil)
      for columns in (0..<inputs).cut(into: Self.tileDepth) {
        input.forEach(columns, scratch) { part, x in
          u.rows(part).multiply(x, panels.rows(columns), adding: columns.lowerBound > 0)
        }
      }
    }
    return products
  }

  /// du = s·Bᵀ·dy of each layer with an adapter, of DoRA s·Bᵀ·(g∘dy), (N, rank).
  private func lowRankOutputs(_ dys: [Rows], _ work: Workspace) -> [Rows?] {
    let count = dys[0].count
    let products = lowRankRows(count, 1, work)
    let panels = projections.map { projection in
      projection.adapter.map { $0.panelsOfB($0.magnitude == nil ? nil : $0.gains) }
    }
    forEachAdapter(count, work) { _, place, tokens in
      guard let du = products[place]?.rows(tokens), let panels = panels[place],
        let adapter = projections[place].adapter
      else { return }
      du.multiply(dys[place].rows(tokens), panels)
      du.scale(by: adapter.scaling)
    }
    return products
  }

  /// The first or the second of two places of memory for such products.
  private func lowRankRows(_ count: Int, _ number: Int, _ work: Workspace) -> [Rows?] {
    var start = 0
    return projections.map { projection in
      guard let rank = projection.adapter?.rank else { return nil }
      defer { start += 2 * rank }
      return work.lowRank(count, rank, at: start + number * rank)
    }
  }

  private func forEachAdapter(
    _ count: Int, _ work: Workspace,
    _ body: (_ worker: Int, _ place: Int, _ tokens: Range<Int>) -> Void
  ) {
    let pieces = projections.indices.filter { projections[$0].adapter != nil }.flatMap { place in
      (0..<count).cut(into: Self.tokenCount).map { (place, $0) }
    }
    work.team.forEach(pieces.count) { worker, item in
      body(worker, pieces[item].0, pieces[item].1)
    }
  }
}

/// A layer's input, what its adapter leaves out of it, and what comes of that.
private struct DroppedInput {
  let x: Rows
  /// Nil where nothing is left out.
  let mask: Rows?
  /// s·A·x̃.
  let u: Rows?

  /// Some columns of x̃, some tokens at a time.
  func forEach(
    _ columns: Range<Int>, _ scratch: DroppingScratch,
    _ body: (_ tokens: Range<Int>, _ x: Rows) -> Void
  ) {
    for tokens in (0..<x.count).cut(into: ProjectionGroup.tokenCount) {
      let own = x.rows(tokens).columns(columns)
      guard let mask else {
        body(tokens, own)
        continue
      }
      let dropped = scratch.inputs.reshaped(tokens.count, columns.count)
      dropped.multiply(own, elementwise: mask.rows(tokens).columns(columns))
      body(tokens, dropped)
    }
  }
}

/// A thread's memory.
private struct DroppingScratch {
  let tile, panels, other: Rows
  /// Some tokens' inputs.
  let inputs: Rows
  /// A product for all tokens.
  let product: Rows

  init(_ scratch: Rows) {
    let size = ProjectionGroup.tileDepth * ProjectionGroup.tileWidth
    let last = 3 * size + ProjectionGroup.tokenCount * ProjectionGroup.tileDepth
    tile = scratch.columns(0..<size)
    panels = scratch.columns(size..<2 * size)
    other = scratch.columns(2 * size..<3 * size)
    inputs = scratch.columns(3 * size..<last)
    product = scratch.columns(last..<scratch.columns)
  }
}

extension Projection {
  /// Whether its adapter leaves something out in training.
  fileprivate var dropsInputs: Bool { (adapter?.dropout ?? 0) > 0 }

  /// Some rows and columns of g∘(W + s·B·A) − W, of which `base` holds W's.
  private func fillChange(
    _ adapter: LoRA, rows: Range<Int>, columns: Range<Int>, base: Rows, into tile: Rows
  ) {
    tile.copy(from: base)
    adapter.add(0..<adapter.rank, rows: rows, columns: columns, to: tile)
    tile.scaleRows(by: adapter.gains.columns(rows), minus: base)
  }

  /// Some outputs of all tokens.
  fileprivate func forward(
    _ input: DroppedInput, rows: Range<Int>, into y: Rows, adding: Bool,
    _ scratch: DroppingScratch
  ) {
    var isAdding = adding
    for columns in (0..<inputs).cut(into: ProjectionGroup.tileDepth) {
      let tile = scratch.tile.reshaped(rows.count, columns.count)
      fillBase(rows: rows, columns: columns, into: tile)
      y.multiply(
        input.x.columns(columns), Panels(transposing: tile, in: scratch.panels), adding: isAdding)
      isAdding = true
      guard let adapter, adapter.magnitude != nil else { continue }
      let change = scratch.other.reshaped(rows.count, columns.count)
      fillChange(adapter, rows: rows, columns: columns, base: tile, into: change)
      let panels = Panels(transposing: change, in: scratch.panels)
      input.forEach(columns, scratch) { tokens, x in
        y.rows(tokens).multiply(x, panels, adding: true)
      }
    }
    if let adapter, adapter.magnitude == nil, let u = input.u {
      y.multiply(u, adapter.b.values.columns(rows), adding: true)
    }
    finish(y, rows: rows)
  }

  /// dx = dy·W + mask ∘ what the adapter adds, or dx += that, some inputs of all tokens.
  fileprivate func backward(
    _ dy: Rows, _ input: DroppedInput, du: Rows?, columns: Range<Int>, into dx: Rows, adding: Bool,
    _ scratch: DroppingScratch
  ) {
    let change = scratch.product.reshaped(dy.count, columns.count)
    let isDoRA = adapter?.magnitude != nil
    var isAdding = adding
    for rows in (0..<outputs).cut(into: ProjectionGroup.tileDepth) {
      let tile = scratch.tile.reshaped(rows.count, columns.count)
      fillBase(rows: rows, columns: columns, into: tile)
      dx.multiply(dy.columns(rows), Panels(copying: tile, in: scratch.panels), adding: isAdding)
      isAdding = true
      guard let adapter, isDoRA else { continue }
      let own = scratch.other.reshaped(rows.count, columns.count)
      fillChange(adapter, rows: rows, columns: columns, base: tile, into: own)
      change.multiply(
        dy.columns(rows), Panels(copying: own, in: scratch.panels), adding: rows.lowerBound > 0)
    }
    guard let adapter, let du else { return }
    if !isDoRA { change.multiply(du, adapter.appliedA.columns(columns)) }
    if let mask = input.mask {
      dx.addProduct(change, elementwise: mask.columns(columns))
    } else {
      for token in 0..<dx.count { dx.rows(token..<token + 1).add(change.rows(token..<token + 1)) }
    }
  }

  /// The gradients of B, m and the bias, some outputs of them.
  fileprivate func addOutputGradients(
    _ dy: Rows, _ input: DroppedInput, rows: Range<Int>, _ scratch: DroppingScratch
  ) {
    guard let adapter, let u = input.u else { return }
    let own = dy.columns(rows)
    let target = adapter.b.gradient.columns(rows)
    guard let magnitude = adapter.magnitude else {
      target.multiply(transposed: u, own, adding: true)
      adapter.addBiasGradient(dy, columns: rows)
      return
    }
    let product = Rows(adapter.rank, rows.count)
    product.multiply(transposed: u, own)
    product.scaleColumns(by: adapter.gains.columns(rows), plus: nil)
    for rank in 0..<adapter.rank {
      target.rows(rank..<rank + 1).add(product.rows(rank..<rank + 1))
    }
    // dm = Σ dy ∘ (V·x̃) / n.
    let output = scratch.product.reshaped(dy.count, rows.count)
    for columns in (0..<inputs).cut(into: ProjectionGroup.tileDepth) {
      let tile = scratch.tile.reshaped(rows.count, columns.count)
      fill(rows: rows, columns: columns, into: tile)
      let panels = Panels(transposing: tile, in: scratch.panels)
      input.forEach(columns, scratch) { tokens, x in
        output.rows(tokens).multiply(x, panels, adding: columns.lowerBound > 0)
      }
    }
    let sums = Rows(1, rows.count)
    sums.addColumnProducts(own, output, offsets: nil)
    for (place, row) in rows.enumerated() {
      magnitude.gradient[0, row] += sums[0, place] / adapter.norms[0, row]
    }
  }
}
