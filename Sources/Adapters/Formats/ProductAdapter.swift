import Checkpoints
import Files
import JSON
import LinearAlgebra
import Tensors

/// LoHa and LoKr adapters of PEFT as what they are, low-rank pairs of a higher rank.
///
/// LoHa is s·(w1_a·w1_b) ⊙ (w2_a·w2_b): of a rank r it is the pair of rank r² whose rows of B are the
/// Kronecker products of the rows of w1_a and w2_a, and whose columns of A are those of w1_b and
/// w2_b. LoKr is s·w1 ⊗ w2, each whole or a product: with w1 = b1·a1 and w2 = b2·a2 it is the pair
/// b1 ⊗ b2, a1 ⊗ a2. Products are f64, rounded once to f32.
///
/// Sources: `make_weight` of PEFT's `loha/layer.py`, `make_kron` of its `lokr/layer.py`. Memory: a
/// pair when it is read.
enum ProductAdapter {
  /// Reads an adapter; nil where it is of neither kind.
  ///
  /// - Throws: `damaged` where tensors are missing or do not fit each other, `unsupported` for those
  ///   of convolutions.
  static func read(_ path: String) throws(PeftoolError) -> LowRankAdapter? {
    let folder = try Adapter.folder(of: path)
    let checkpoint = try Checkpoint(opening: folder, preferringAdapter: true)
    guard let json = try checkpoint.adapterConfig, case .string(let type)? = json["peft_type"],
      let kind = Kind(rawValue: type)
    else { return nil }
    let configuration: AdapterConfiguration
    do throws(PeftoolError) {
      configuration = try AdapterConfiguration(asLoRA(json))
    } catch {
      throw error.at(path: checkpoint.adapterConfigPath)
    }
    var paths: [String] = []
    var parts: [ExactName: [String: StoredTensor]] = [:]
    for info in checkpoint.tensors {
      let stored = StoredTensor(info, in: checkpoint.source)
      guard info.name.hasPrefix(AdapterKey.prefix), let dot = info.name.lastIndex(of: "."),
        let part = kind.part(String(info.name[info.name.index(after: dot)...]))
      else {
        throw stored.at(
          PeftoolError(.unsupported, "is no part of \(kind.name) that peftool knows"))
      }
      guard info.dtype.isComputable, info.shape.count == 2, info.elementCount > 0 else {
        throw stored.at(
          PeftoolError(
            .unsupported,
            "is \(info.dtype.rawValue) of shape \(info.shape.shapeText), expected a matrix of numbers"
          ))
      }
      let module = String(info.name[..<dot].dropFirst(AdapterKey.prefix.count))
      if parts[ExactName(module)] == nil { paths.append(module) }
      parts[ExactName(module), default: [:]][part] = stored
    }
    var tensors = ComputedTensors(of: [checkpoint.source])
    var pairs: [(path: String, a: TensorInfo, b: TensorInfo, scaling: Double)] = []
    for path in paths {
      let factors = Factors(
        module: path, kind: kind, parts: parts[ExactName(path)] ?? [:],
        rank: try configuration.rank(of: path))
      let pair = try kind.pair(of: factors)
      // Both have the rank of their own factors, not of the pair.
      let scaling = try configuration.scaling(of: path, keptRank: 0)
      pairs.append(
        (
          path, tensors.append("\(path).a", shape: pair.aShape, computing: pair.a),
          tensors.append("\(path).b", shape: pair.bShape, computing: pair.b), scaling
        ))
    }
    var modules: [LowRankAdapter.Module] = []
    for pair in pairs {
      var module = try LowRankAdapter.Module(
        pair.path, a: AdapterTensor(pair.a, in: tensors), b: AdapterTensor(pair.b, in: tensors),
        magnitude: nil,
        scaling: { (rank) throws(PeftoolError) in (pair.scaling, pair.scaling * Double(rank)) })
      module.storedNames = parts[ExactName(pair.path)]?.values.map(\.info.name)
      modules.append(module)
    }
    var adapter = try LowRankAdapter(modules)
    adapter.baseName = configuration.baseName
    adapter.positions = StretchedPositions(try checkpoint.modelConfig)
    if case .string(let task)? = json["task_type"] { adapter.task = task }
    adapter.notes = [
      "\(path.printable) is of \(kind.name), and taken as LoRA of rank \(kind.rankText)"
    ]
    return adapter
  }

  /// The configuration as LoRA's, which calls alpha otherwise.
  private static func asLoRA(_ json: JSON) -> JSON {
    let names = [
      ("r", "r"), ("alpha", "lora_alpha"), ("rank_pattern", "rank_pattern"),
      ("alpha_pattern", "alpha_pattern"), ("base_model_name_or_path", "base_model_name_or_path"),
    ]
    return .object(
      [.init("peft_type", .string(Method.lora.rawValue))]
        + names.compactMap { name, new in json[name].map { .init(new, $0) } })
  }
}

extension ProductAdapter {
  /// The two methods, by PEFT's `peft_type`.
  enum Kind: String {
    case loHa = "LOHA"
    case loKr = "LOKR"

    var name: String { self == .loHa ? "LoHa" : "LoKr" }
    var rankText: String { self == .loHa ? "r²" : "up to that of w1 times that of w2" }

    /// What a tensor is, by the end of its name; nil where it is of no use here.
    func part(_ end: String) -> String? {
      let prefix = self == .loHa ? "hada_" : "lokr_"
      guard end.hasPrefix(prefix) else { return nil }
      let part = String(end.dropFirst(prefix.count))
      let known = self == .loHa ? ["w1_a", "w1_b", "w2_a", "w2_b"] : Self.kroneckerParts
      return known.contains(part) ? part : nil
    }

    private static let kroneckerParts = ["w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b"]

    /// How the pair of a module is computed.
    ///
    /// - Throws: `damaged` where a factor is missing, or one does not fit another.
    func pair(of factors: Factors) throws(PeftoolError) -> ComputedPair {
      let first = try factors.pair("w1")
      let second = try factors.pair("w2")
      try factors.check(first, second)
      switch self {
      case .loHa:
        guard first.rows == second.rows, first.columns == second.columns else {
          throw factors.misfit("w1 and w2 are of different shapes")
        }
        return ComputedPair(
          aShape: [first.rank * second.rank, first.columns],
          bShape: [first.rows, first.rank * second.rank],
          a: { () throws(PeftoolError) in
            try Kronecker.ofColumns(first.right(), second.right())
          },
          b: { () throws(PeftoolError) in try Kronecker.ofRows(first.left(), second.left()) })
      case .loKr:
        return ComputedPair(
          aShape: [first.rank * second.rank, first.columns * second.columns],
          bShape: [first.rows * second.rows, first.rank * second.rank],
          a: { () throws(PeftoolError) in try Kronecker.whole(first.right(), second.right()) },
          b: { () throws(PeftoolError) in try Kronecker.whole(first.left(), second.left()) })
      }
    }
  }

  /// A pair that is computed when it is read.
  struct ComputedPair {
    let aShape: [Int]
    let bShape: [Int]
    let a: @Sendable () throws(PeftoolError) -> [Float]
    let b: @Sendable () throws(PeftoolError) -> [Float]
  }

  /// The tensors of a module.
  struct Factors {
    let module: String
    let kind: Kind
    let parts: [String: StoredTensor]
    /// The rank that the configuration says.
    let rank: Int

    /// A factor of the product: whole or in two.
    func pair(_ name: String) throws(PeftoolError) -> FactorPair {
      if let left = parts["\(name)_a"], let right = parts["\(name)_b"], parts[name] == nil {
        guard right.rowCount == rank else {
          throw right.at(
            PeftoolError(
              .different, "has rank \(right.rowCount), the configuration says \(rank)"))
        }
        guard left.columnCount == right.rowCount else {
          throw misfit("\(name)_a and \(name)_b are of different ranks")
        }
        return FactorPair(stored: (left, right))
      }
      guard let whole = parts[name], parts["\(name)_a"] == nil, parts["\(name)_b"] == nil else {
        throw misfit("\(name) is not all there")
      }
      return FactorPair(whole: whole)
    }

    /// Refuses a pair that is beyond all memory.
    ///
    /// - Throws: `unsupported`.
    func check(_ first: FactorPair, _ second: FactorPair) throws(PeftoolError) {
      let rank = first.rank.multipliedReportingOverflow(by: second.rank)
      guard !rank.overflow, rank.partialValue <= LowRankAdapter.maximumRank else {
        throw PeftoolError(
          .unsupported,
          "\(module.printable) as a low-rank pair has more than \(LowRankAdapter.maximumRank) ranks",
          path: parts.values.first?.path)
      }
      for (left, right) in [(first.rows, second.rows), (first.columns, second.columns)] {
        let size = left.multipliedReportingOverflow(by: kind == .loKr ? right : 1)
        guard !size.overflow, size.partialValue <= Self.maximumSize else {
          throw misfit("its weight has a side of more than \(Self.maximumSize) elements")
        }
      }
    }

    private static let maximumSize = 1 << 24

    func misfit(_ what: String) -> PeftoolError {
      let path = parts.values.first?.path
      return PeftoolError(.damaged, "\(module.printable): \(what)", path: path)
    }
  }

  /// A matrix as left·right, of which one is the identity where it is stored whole.
  struct FactorPair: Sendable {
    let rows: Int
    let columns: Int
    let rank: Int
    private let storedLeft: StoredTensor?
    private let storedRight: StoredTensor?

    init(stored: (left: StoredTensor, right: StoredTensor)) {
      rows = stored.left.rowCount
      columns = stored.right.columnCount
      rank = stored.right.rowCount
      storedLeft = stored.left
      storedRight = stored.right
    }

    init(whole: StoredTensor) {
      rows = whole.rowCount
      columns = whole.columnCount
      rank = min(rows, columns)
      storedLeft = columns <= rows ? whole : nil
      storedRight = columns <= rows ? nil : whole
    }

    func left() throws(PeftoolError) -> Matrix<Double> { try matrix(storedLeft, rows, rank) }
    func right() throws(PeftoolError) -> Matrix<Double> { try matrix(storedRight, rank, columns) }

    private func matrix(
      _ stored: StoredTensor?, _ rows: Int, _ columns: Int
    ) throws(PeftoolError) -> Matrix<Double> {
      if let stored {
        return Matrix(rows: rows, columns: columns, elements: try stored.values(Double.self))
      }
      var identity = Matrix<Double>(rows: rows, columns: columns)
      for place in 0..<rows { identity[place, place] = 1 }
      return identity
    }
  }
}

/// Kronecker products, rounded to f32.
private enum Kronecker {
  /// X ⊗ Y.
  static func whole(_ x: Matrix<Double>, _ y: Matrix<Double>) -> [Float] {
    var elements: [Float] = []
    elements.reserveCapacity(x.elements.count * y.elements.count)
    for i in 0..<x.rows {
      for k in 0..<y.rows { append(&elements, row(x, i), row(y, k)) }
    }
    return elements
  }

  /// Row i is X_i ⊗ Y_i.
  static func ofRows(_ x: Matrix<Double>, _ y: Matrix<Double>) -> [Float] {
    var elements: [Float] = []
    elements.reserveCapacity(x.rows * x.columns * y.columns)
    for i in 0..<x.rows { append(&elements, row(x, i), row(y, i)) }
    return elements
  }

  /// Row (i, k) is X_i ⊙ Y_k, so that column j is the product of columns j.
  static func ofColumns(_ x: Matrix<Double>, _ y: Matrix<Double>) -> [Float] {
    var elements: [Float] = []
    elements.reserveCapacity(x.rows * y.rows * x.columns)
    for i in 0..<x.rows {
      for k in 0..<y.rows {
        for (left, right) in zip(row(x, i), row(y, k)) { elements.append(Float(left * right)) }
      }
    }
    return elements
  }

  private static func row(_ matrix: Matrix<Double>, _ row: Int) -> ArraySlice<Double> {
    matrix.elements[row * matrix.columns..<(row + 1) * matrix.columns]
  }

  private static func append(
    _ elements: inout [Float], _ x: ArraySlice<Double>, _ y: ArraySlice<Double>
  ) {
    for left in x {
      for right in y { elements.append(Float(left * right)) }
    }
  }
}
