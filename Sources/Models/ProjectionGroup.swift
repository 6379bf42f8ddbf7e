import CKernels
import Checkpoints
import LinearAlgebra
import Tensors

/// Linear layers of one input, computed together: q, k and v, or gate and up.
///
/// A tile of a weight is widened, the adapter's update added, and the tile used for all tokens
/// while it is in the cache: the update costs 2·rank operations an element of the weight, not a
/// pass over the activations. Each number of a result is the sum of chains of fused multiply-adds
/// over 256 inputs (backward: outputs) each, whatever the tiles and threads.
struct ProjectionGroup: Sendable {
  let projections: [Projection]

  /// The inputs (backward: the outputs) that a tile spans.
  static let tileDepth = Int(PEF_DEPTH)
  /// The most outputs (backward: inputs) that a tile spans; a multiple of a panel's width.
  static let tileWidth = 192
  /// The most inputs that a tile of a weight's gradient spans.
  ///
  /// A part of dy is laid out anew for each tile, so this one is wide; its panels (384 KiB) still
  /// stay in a second cache of 1 MiB.
  static let gradientWidth = 384
  /// The tokens of a piece of work that is cut by tokens.
  static let tokenCount = 64

  /// The rows of a weight that are widened at a time: so many (16 KiB) stay in the first cache
  /// until they are laid out.
  static let widenedCount = Int(PEF_PANEL)

  /// The floats of scratch that a thread needs: a tile's panels, and what is widened for it, or
  /// the panels of a gradient's tile.
  static let scratchCount = max(
    tileDepth * tileWidth + widenedCount * max(tileDepth, tileWidth), tileDepth * gradientWidth)

  var inputs: Int { projections[0].inputs }

  /// The width of tiles for so many columns in all: as many tiles for each thread, so many at
  /// least, each as wide as `most` at most.
  static func width(
    _ columns: Int, _ threads: Int, most: Int = tileWidth, rounds: Int = 2
  ) -> Int {
    let rounds = max(rounds, (columns + threads * most - 1) / (threads * most))
    return width(columns, parts: threads * rounds)
  }

  /// The width of so many tiles, of whole panels.
  private static func width(_ columns: Int, parts: Int) -> Int {
    let panel = Int(PEF_PANEL)
    let panels = (columns + panel - 1) / panel
    return max(1, (panels + parts - 1) / max(1, parts)) * panel
  }

  /// outputs = x·W'ᵀ + bias, or outputs += that.
  ///
  /// Shapes: x (N, inputs), an output (N, its outputs). A layer with DoRA cannot be added: its gain
  /// is applied to the whole.
  func forward(_ x: Rows, into outputs: [Rows], adding: Bool = false, _ work: Workspace) {
    if let dropout = work.dropout, hasDropout {
      return forward(x, into: outputs, adding: adding, dropping: dropout, work)
    }
    let tiles = tiles(threads: work.team.count)
    work.team.forEach(tiles.count) { worker, item in
      let (place, rows) = tiles[item]
      projections[place].forward(
        x, rows: rows, into: outputs[place].columns(rows), adding: adding,
        depth: Self.tileDepth, work.scratch(of: worker))
    }
  }

  /// All outputs of all layers, in tiles; those of a layer are as wide as each other, but the last.
  func tiles(threads: Int) -> [(place: Int, rows: Range<Int>)] {
    let most = Self.width(projections.reduce(0) { $0 + $1.outputs }, threads)
    return projections.indices.flatMap { place in
      let outputs = projections[place].outputs
      let width = Self.width(outputs, parts: (outputs + most - 1) / most)
      return (0..<outputs).cut(into: width).map { (place, $0) }
    }
  }

  /// Adds the gradients of adapters and trained weights, and gives dx = Σ dy·W'.
  ///
  /// Shapes: x and dx (N, inputs), a dy and a y (N, its outputs). `ys` are the outputs of the forward
  /// pass, which DoRA's magnitude needs; a dy of a layer with DoRA is multiplied by its gain.
  func backward(_ x: Rows, _ dys: [Rows], ys: [Rows?], into dx: Rows?, _ work: Workspace) {
    if let dropout = work.dropout, hasDropout {
      return backward(x, dys, into: dx, dropping: dropout, work)
    }
    scale(dys, ys, work)
    let products = lowRankProducts(x, dys, work)
    let pieces = pieces(needsInput: dx != nil, threads: work.team.count)
    work.team.forEach(pieces.count) { worker, item in
      switch pieces[item] {
      case .input(let columns):
        guard let dx else { return }
        let target = dx.columns(columns)
        for (place, projection) in projections.enumerated() {
          projection.backward(
            dys[place], columns: columns, into: target, adding: place > 0, depth: Self.tileDepth,
            work.scratch(of: worker))
        }
      case .a(let place, let columns):
        guard let adapter = projections[place].adapter else { return }
        adapter.appliedGradient.columns(columns).multiply(
          transposed: products[place].du, x.columns(columns), adding: true)
      case .b(let place, let columns):
        guard let adapter = projections[place].adapter else { return }
        adapter.b.gradient.columns(columns).multiply(
          transposed: products[place].u, dys[place].columns(columns), adding: true)
        adapter.addBiasGradient(dys[place], columns: columns)
      case .weights(let columns):
        addWeightGradients(dys, x, columns: columns, work.scratch(of: worker))
      case .rows(let place, let part):
        projections[place].weight.addRowGradients(of: part, dys[place], x)
      case .bias(let place):
        projections[place].trainedBias?.gradient.addRows(of: dys[place])
      }
    }
  }

  /// A piece of the work of a backward pass.
  enum Piece {
    /// Columns of dx.
    case input(Range<Int>)
    /// Columns of the gradient of a layer's A, and of B and what goes with its outputs.
    case a(Int, Range<Int>)
    case b(Int, Range<Int>)
    /// Columns of the gradients of all weights that are trained whole.
    case weights(Range<Int>)
    /// Trained rows of a layer's weight, and the gradient of its bias.
    case rows(Int, Range<Int>)
    case bias(Int)
  }

  /// All pieces, those first that are large as a rule.
  func pieces(needsInput: Bool, threads: Int) -> [Piece] {
    var pieces: [Piece] = []
    if projections.contains(where: { $0.weight.whole != nil }) {
      let width = Self.width(inputs, threads, most: Self.gradientWidth, rounds: 1)
      pieces += (0..<inputs).cut(into: width).map { .weights($0) }
    }
    if needsInput {
      pieces += (0..<inputs).cut(into: Self.width(inputs, threads)).map { .input($0) }
    }
    for (place, projection) in projections.enumerated() where projection.adapter != nil {
      if projection.trainsA {
        pieces += (0..<inputs).cut(into: Self.tileWidth).map { .a(place, $0) }
      }
      pieces += (0..<projection.outputs).cut(into: Self.tileWidth).map { .b(place, $0) }
    }
    for (place, projection) in projections.enumerated() where projection.weight.isTrained {
      pieces += (0..<projection.weight.trainedRowCount).cut(into: 1).map { .rows(place, $0) }
      if projection.trainedBias != nil { pieces.append(.bias(place)) }
    }
    return pieces
  }

  /// dW += dyᵀ·x of all weights that are trained whole, some columns of them: those of x are laid
  /// out once for all.
  func addWeightGradients(
    _ dys: [Rows], _ x: Rows, columns: Range<Int>, _ scratch: Rows
  ) {
    for tokens in (0..<x.count).cut(into: Self.tileDepth) {
      let panels = Panels(copying: x.rows(tokens).columns(columns), in: scratch)
      for (place, projection) in projections.enumerated() {
        projection.weight.whole?.gradient.columns(columns).multiply(
          transposed: dys[place].rows(tokens), panels, adding: true)
      }
    }
  }

  /// DoRA: dm, and dy times the gain.
  private func scale(_ dys: [Rows], _ ys: [Rows?], _ work: Workspace) {
    let pieces = projections.indices.filter { projections[$0].adapter?.magnitude != nil }
      .flatMap { place in
        (0..<projections[place].outputs).cut(into: Self.tileWidth).map { (place, $0) }
      }
    work.team.forEach(pieces.count) { _, item in
      let (place, columns) = pieces[item]
      guard let adapter = projections[place].adapter, let magnitude = adapter.magnitude,
        let y = ys[place]
      else { preconditionFailure("DoRA's gradient needs the layer's output") }
      magnitude.addGradient(
        scaling: dys[place].columns(columns), by: adapter.gains.columns(columns),
        y.columns(columns), columns: columns, bias: projections[place].bias?.columns(columns))
    }
  }

  /// For each layer with an adapter u = s·A·x and, where A is trained, du = s·Bᵀ·dy, (N, rank).
  private func lowRankProducts(
    _ x: Rows, _ dys: [Rows], _ work: Workspace
  ) -> [(u: Rows, du: Rows)] {
    var products: [(u: Rows, du: Rows)] = []
    var panels: [(a: Panels, b: Panels)?] = []
    var start = 0
    for projection in projections {
      let rank = projection.adapter?.rank ?? 0
      products.append(
        (work.lowRank(x.count, rank, at: start), work.lowRank(x.count, rank, at: start + rank)))
      start += 2 * rank
      panels.append(projection.adapter.map { ($0.panelsOfA(), $0.panelsOfB()) })
    }
    let pieces = projections.indices.filter { panels[$0] != nil }.flatMap { place in
      (0..<x.count).cut(into: Self.tokenCount).map { (place, $0) }
    }
    work.team.forEach(pieces.count) { _, item in
      let (place, tokens) = pieces[item]
      guard let (a, b) = panels[place], let adapter = projections[place].adapter else { return }
      products[place].u.rows(tokens).multiply(x.rows(tokens), a)
      guard projections[place].trainsA else { return }
      let du = products[place].du.rows(tokens)
      du.multiply(dys[place].rows(tokens), b)
      du.scale(by: adapter.scaling)
    }
    return products
  }
}

extension Projection {
  /// Some outputs of all tokens.
  fileprivate func forward(
    _ x: Rows, rows: Range<Int>, into y: Rows, adding: Bool, depth: Int, _ scratch: Rows
  ) {
    var isAdding = adding
    let magnitude = adapter?.magnitude
    precondition(magnitude == nil || !adding, "a gain is applied to the whole")
    var squares = [Double](repeating: 0, count: magnitude == nil ? 0 : rows.count)
    for columns in (0..<inputs).cut(into: depth) {
      let (widened, rest) = Self.split(scratch, width: columns.count)
      let panels = Panels(depth: columns.count, columns: rows.count, in: rest)
      for part in rows.cut(into: ProjectionGroup.widenedCount) {
        let tile = tile(rows: part, columns: columns, in: widened)
        let first = part.lowerBound - rows.lowerBound
        if magnitude != nil {
          for row in 0..<part.count {
            squares[first + row] += tile.withSpan(row: row) {
              Float.sumOfSquares($0.span, at: 0, count: $0.count)
            }
          }
        }
        panels.transpose(tile, at: first)
      }
      y.multiply(x.columns(columns), panels, adding: isAdding)
      isAdding = true
    }
    if let magnitude, let adapter {
      for (place, row) in rows.enumerated() {
        let norm = Float(squares[place].squareRoot())
        adapter.norms[0, row] = norm
        adapter.gains[0, row] = magnitude.values[0, row] / norm
      }
    }
    finish(y, rows: rows, gains: magnitude == nil ? nil : adapter?.gains)
  }

  /// y times the gains, if there are any, plus the biases; some outputs.
  func finish(_ y: Rows, rows: Range<Int>, gains: Rows? = nil) {
    if gains != nil || bias != nil {
      y.scaleColumns(by: gains?.columns(rows), plus: bias?.columns(rows))
    }
    if let own = adapter?.scaledBias { y.scaleColumns(by: nil, plus: own.columns(rows)) }
  }

  /// dx = dy·W', or dx += that, some inputs of all tokens.
  fileprivate func backward(
    _ dy: Rows, columns: Range<Int>, into dx: Rows, adding: Bool, depth: Int, _ scratch: Rows
  ) {
    var isAdding = adding
    for rows in (0..<outputs).cut(into: depth) {
      let (widened, rest) = Self.split(scratch, width: columns.count)
      let panels = Panels(depth: rows.count, columns: columns.count, in: rest)
      for part in rows.cut(into: ProjectionGroup.widenedCount) {
        let tile = tile(rows: part, columns: columns, in: widened)
        panels.copy(tile, at: part.lowerBound - rows.lowerBound)
      }
      dx.multiply(dy.columns(rows), panels, adding: isAdding)
      isAdding = true
    }
  }

  /// Room for the rows that are widened, of a width, and the rest.
  private static func split(_ scratch: Rows, width: Int) -> (widened: Rows, rest: Rows) {
    let count = ProjectionGroup.widenedCount * width
    return (scratch.columns(0..<count), scratch.columns(count..<scratch.columns))
  }
}

extension LoRA {
  /// The bias' gradient, some columns of it: s·Σ dy.
  func addBiasGradient(_ dy: Rows, columns: Range<Int>) {
    guard let bias else { return }
    let sums = Rows(1, columns.count)
    sums.addRows(of: dy.columns(columns))
    sums.scale(by: scaling)
    bias.gradient.columns(columns).add(sums)
  }
}

extension TrainableParameter {
  /// DoRA's dm += Σ dy·(y − bias) / m, some columns of it, and then dy times the gains.
  ///
  /// y − bias is m/norm·(V·x). A few tokens at a time: they are still in the cache when they are
  /// scaled.
  fileprivate func addGradient(
    scaling dy: Rows, by gains: Rows, _ y: Rows, columns: Range<Int>, bias: Rows?
  ) {
    let sums = Rows(1, columns.count)
    for tokens in (0..<dy.count).cut(into: 32) {
      sums.addColumnProducts(dy.rows(tokens), y.rows(tokens), offsets: bias)
      dy.rows(tokens).scaleColumns(by: gains, plus: nil)
    }
    for (place, column) in columns.enumerated() {
      gradient[0, column] += sums[0, place] / values[0, column]
    }
  }
}
