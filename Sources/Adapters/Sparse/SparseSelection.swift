package import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Tensors

/// A sparse adapter of whole changes: of each layer's the largest entries by magnitude.
///
/// The file is SHiRA's of PEFT, in which every layer has r·(in + out) entries for one r: as many
/// numbers as a LoRA of rank r has. Of an adapter's update s·B·A is formed in f32; of two models the
/// difference is taken in f64 and rounded to f32.
///
/// Peak memory: the result, and for each thread the change of a layer in f32 a few times.
package struct SparseSelection: AdapterArithmetic {
  /// How many entries a layer keeps.
  package enum Size: Equatable, Sendable {
    /// r·(in + out).
    case rank(Int)
    /// A share of all, rounded down; r is the least that has room for it in every layer, and what
    /// is left of the room are zeros.
    case density(Double)
  }

  private let source: any ChangeSource
  private let size: Size
  private let rank: Int
  /// What messages are about.
  private let path: String

  /// Plans what is kept of an adapter; of its tensors nothing is read.
  ///
  /// - Parameter base: the model that it is for, where one was given.
  /// - Throws: `unsupported` for what SHiRA has no place for.
  package init(_ operand: Operand, base: BaseModel?, keeping size: Size) throws(PeftoolError) {
    try self.init(AdapterChanges(operand, base: base), size, path: operand.path)
  }

  /// Plans what is kept of the difference of two models; of their tensors nothing is read.
  ///
  /// - Throws: as `Extraction` and the other.
  package init(
    base: BaseModel, tuned: BaseModel, _ options: Extraction.Options, keeping size: Size
  ) throws(PeftoolError) {
    var options = options
    options.isSparse = true
    let extraction = try Extraction(base: base, tuned: tuned, options)
    try self.init(ModelChanges(extraction), size, path: tuned.checkpoint.path)
  }

  private init(
    _ source: some ChangeSource, _ size: Size, path: String
  ) throws(PeftoolError) {
    // The file has places in 32 bits.
    for layer in source.layers where max(layer.rows, layer.columns) > Int32.max {
      throw PeftoolError(
        .unsupported, "\(layer.path.printable) has more than 2^31 rows or columns", path: path)
    }
    self.source = source
    self.size = size
    let rank =
      switch size {
      case .rank(let rank): rank
      case .density(let density):
        source.layers.map { layer in
          let numbers = layer.rows + layer.columns
          return (layer.keptCount(density) + numbers - 1) / numbers
        }.max() ?? 1
      }
    self.rank = max(1, rank)
    self.path = path
  }

  /// The adapter, or the two models.
  package var inputs: [ArithmeticInput] { source.inputs }
  /// Their tensors.
  package var sources: [any TensorSource] { source.sources }
  /// The bytes of the files that the result may be compared with.
  package var inputByteCount: Int { source.inputByteCount }
  /// What the user should know before anything is read.
  package var notes: [String] { source.notes }
  /// The bytes of the tensors that are read.
  package var byteCount: Int { source.byteCount }
  /// The dtypes of the adapter; none of models.
  package var adapterDTypes: Set<DType> { source.adapterDTypes }

  /// Finds the entries, a layer a thread at a time.
  ///
  /// - Throws: `io`, `damaged` where a value is not finite; `different` where nothing has changed, a
  ///   layer has fewer entries than are to be kept, or a number is too large for the dtype.
  package func files(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (files: AdapterFiles, results: [ModuleResult]) {
    let layers = source.layers
    let found = try mapBlocks(count: layers.count, threads: threads) {
      (place) throws(PeftoolError) in
      let layer = layers[place]
      let update = try source.change(of: place).map { (change, weightNorm) throws(PeftoolError) in
        try checkRoom(in: layer)
        let kept =
          switch size {
          case .rank: rank * (layer.rows + layer.columns)
          case .density(let density): layer.keptCount(density)
          }
        return try SparseUpdate(
          layer.path, of: change, keeping: kept, rank: rank, rankBefore: layer.rank,
          weightNorm: weightNorm, as: dtype)
      }
      progress(layer.byteCount)
      return update
    }
    let updates = found.compactMap(\.self)
    let saved = try source.saved(beside: found.map { $0 != nil })
    guard !updates.isEmpty else { throw source.nothing(beside: saved) }
    let adapter = SparseAdapter(
      rank: rank, updates: updates, saved: saved, baseName: source.baseName, task: source.task)
    var files = adapter.files(from: sources)
    files.positions = source.positions
    let wholeCount = Set(saved.map { ExactName($0.path) }).count
    if updates.count < layers.count {
      files.notes.append("layers without a sparse change: \(layers.count - updates.count)")
    }
    if wholeCount > 0 { files.notes.append("modules saved whole: \(wholeCount)") }
    return (files, updates.map(\.result))
  }

  private func checkRoom(in layer: ChangedLayer) throws(PeftoolError) {
    guard layer.largestRank < rank else { return }
    throw PeftoolError(
      .different,
      "\(layer.path.printable) has \(layer.rows * layer.columns) entries, and r·(in + out) would be "
        + "\(rank)·\(layer.rows + layer.columns): SHiRA has one r for all layers, expected "
        + "\(layer.largestRank) at most", path: path)
  }
}

extension ChangedLayer {
  /// The largest r of which the layer has entries.
  fileprivate var largestRank: Int { rows * columns / (rows + columns) }

  /// The share of the entries that is kept.
  fileprivate func keptCount(_ density: Double) -> Int { Int(density * Double(rows * columns)) }
}
