import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// Where a linear layer meets the stream that all layers of a model of the Llama family read, through
/// a norm, and add to.
///
/// h = γ ∘ x·√H / ‖x‖ is what it reads of a stream x of width H, ε apart.
struct HiddenStream: Sendable {
  /// The path of the norm through which its inputs come; nil where they are no part of the stream.
  let norm: String?
  /// Whether its outputs are added to the stream.
  let isAdded: Bool

  /// The models whose layers are wired so, by `model_type`.
  static let modelTypes = ["llama", "mistral", "qwen2", "qwen3"]

  /// What a module's path tells; nil for one that such a model has not.
  init?(of module: String) {
    let parts = module.split(separator: ".")
    let layer = parts.dropLast(2).joined(separator: ".")
    switch parts.last {
    case "q_proj", "k_proj", "v_proj": (norm, isAdded) = (layer + ".input_layernorm", false)
    case "gate_proj", "up_proj": (norm, isAdded) = (layer + ".post_attention_layernorm", false)
    case "o_proj", "down_proj": (norm, isAdded) = (nil, true)
    case "lm_head": (norm, isAdded) = ("model.norm", false)
    default: return nil
    }
  }
}

/// How the hidden stream of one model becomes that of another: x_t = c·Rᵀ·x_s.
///
/// R is what brings the embeddings of the tokens that both have nearest to each other, ‖E_s·R − E_t‖,
/// of all matrices whose rows, or columns where these are more, are orthonormal: the polar factor of
/// E_sᵀ·E_t (Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem"). c is the
/// number that brings c·E_s·R nearest to E_t.
///
/// Arithmetic is f64. Memory: E_sᵀ·E_t, what its decomposition takes, and a block of rows of each.
struct StreamMap: Sendable {
  /// R, (width of the old stream, width of the new).
  let r: Matrix<Double>
  /// c = ⟨E_s·R, E_t⟩ / ‖E_s·R‖², more than 0.
  let scale: Double
  /// ⟨E_s·R, E_t⟩ / (‖E_s‖·‖E_t‖), 0 to 1.
  let alignment: Double
  /// The tokens that it was found by.
  let tokenCount: Int

  /// The rows of an embedding that are read at a time.
  private static let blockCount = 1024
  /// Directions with less of the largest one's share are none.
  private static let leastShare = 1e-10

  /// Finds it by the embeddings, (vocabulary, width).
  ///
  /// - Parameter tokens: the rows that stand for the same tokens.
  /// - Throws: `different` where the tokens do not span the narrower stream; `io`, `damaged` where a
  ///   value is not finite; as `SVD`.
  init(
    from source: StoredTensor, to target: StoredTensor, tokens: [Transfer.SharedToken], threads: Int
  ) throws(PeftoolError) {
    var sum = Matrix<Double>(rows: source.columnCount, columns: target.columnCount)
    var squares = (source: 0.0, target: 0.0)
    let blocks = stride(from: 0, to: tokens.count, by: Self.blockCount).map {
      tokens[$0..<min($0 + Self.blockCount, tokens.count)]
    }
    for block in blocks {
      let rows = try (
        source: source.matrix(rows: block.map(\.source)),
        target: target.matrix(rows: block.map(\.target))
      )
      squares.source += rows.source.elements.squaredNorm
      squares.target += rows.target.elements.squaredNorm
      let products = product(rows.source, rows.target, transposing: .left, threads: threads)
      sum.elements = zip(sum.elements, products.elements).map(+)
    }
    let svd = try SVD(sum)
    let least = min(sum.rows, sum.columns)
    let floor = (svd.singularValues.first ?? 0) * Self.leastShare
    let rank = svd.singularValues.count { $0 > floor }
    guard rank == least, least > 0 else {
      throw PeftoolError(
        .different,
        "the embeddings of the \(tokens.count) tokens that both models have span \(rank) of "
          + "\(least) directions, and all are needed to turn one stream into the other",
        path: target.path)
    }
    r = product(svd.u, svd.vt)
    let agreement = svd.singularValues.reduce(0, +)
    alignment = min(1, agreement / (squares.source * squares.target).squareRoot())
    var kept = squares.source
    if r.rows > r.columns {
      // Of a stream that gets narrower a part is lost.
      kept = 0
      for block in blocks {
        let rows = try source.matrix(rows: block.map(\.source))
        kept += product(rows, r, threads: threads).elements.squaredNorm
      }
    }
    scale = agreement / kept
    tokenCount = tokens.count
  }
}

extension StoredTensor {
  /// Some rows, in the order given.
  ///
  /// - Throws: as `values(rows:)`.
  fileprivate func matrix(rows: [Int]) throws(PeftoolError) -> Matrix<Double> {
    var elements: [Double] = []
    elements.reserveCapacity(rows.count * columnCount)
    var start = 0
    while start < rows.count {
      // What follows each other in the file is read at once.
      var end = start + 1
      while end < rows.count, rows[end] == rows[end - 1] + 1 { end += 1 }
      elements += try values(rows: rows[start]..<rows[end - 1] + 1)
      start = end
    }
    return Matrix(rows: rows.count, columns: columnCount, elements: elements)
  }
}
