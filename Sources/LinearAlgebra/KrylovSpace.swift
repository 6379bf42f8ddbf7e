import Files

/// An orthonormal basis Q that grows by blocks, and its image Mᵀ·Q.
struct KrylovSpace<Scalar: BLASScalar> {
  /// Q, (rows, columnCount).
  private var basis: Matrix<Scalar>
  /// Mᵀ·Q, (columns of M, columns that have an image).
  private(set) var images: Matrix<Scalar>
  /// The block that has no image yet.
  private(set) var last: Matrix<Scalar>
  /// The blocks that there are.
  private(set) var blockCount = 1

  /// A space of one block with orthonormal columns.
  init(_ block: Matrix<Scalar>) {
    basis = block
    last = block
    images = Matrix(rows: 0, columns: 0)
  }

  /// The dimension.
  var columnCount: Int { basis.columns }

  /// Takes the image of the last block.
  mutating func append(image: Matrix<Scalar>) {
    images = images.rows == 0 ? image : Matrix(joining: [images, image])
  }

  /// Takes the part of a block that is not in the space yet; of it the first `width` columns.
  ///
  /// - Returns: false where there is none but for rounding.
  mutating func append(block: Matrix<Scalar>, width: Int) -> Bool {
    var block = block.firstColumns(min(width, block.columns))
    let norms = block.columnNorms
    var rest = block
    rest.subtract(product(basis, product(basis, block, transposing: .left)))
    // What is left of a column by rounding alone would not be orthogonal to the space.
    let least = Double(Scalar.ulpOfOne) * 100
    let isNew = zip(rest.columnNorms, norms).map { $0 > least * $1 }
    guard isNew.contains(true) else { return false }
    block = block.columns(where: isNew)
    // Twice is enough: what the first time leaves of the space by rounding the second takes.
    for _ in 0..<2 {
      block.subtract(product(basis, product(basis, block, transposing: .left)))
      block = QR(block).q
    }
    last = block
    basis = Matrix(joining: [basis, block])
    blockCount += 1
    return true
  }

  /// The decomposition of Q·QᵀM; every block has its image.
  func decomposition() throws(PeftoolError) -> SVD<Scalar> {
    let qr = QR(images)
    // QᵀM = Rᵀ·Q'ᵀ.
    let core = try SVD(qr.r.transposed())
    return SVD(
      u: product(basis, core.u), singularValues: core.singularValues,
      vt: product(core.vt, qr.q, transposing: .right))
  }
}

extension Matrix {
  /// ‖M·e_j‖ of each column, in f64.
  fileprivate var columnNorms: [Double] {
    squares(elements, columns: columns).map { $0.squareRoot() }
  }

  /// The columns that are chosen.
  fileprivate func columns(where isChosen: [Bool]) -> Matrix {
    let transposed = transposed()
    return Matrix(
      stacking: isChosen.indices.filter { isChosen[$0] }.map { transposed.rows($0..<$0 + 1) }
    )
    .transposed()
  }
}

@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func squares<Scalar: BLASScalar>(_ elements: [Scalar], columns: Int) -> [Double] {
  var sums = [Double](repeating: 0, count: columns)
  for start in stride(from: 0, to: elements.count, by: max(1, columns)) {
    for column in 0..<columns {
      let value = Double(elements[start + column])
      sums[column] += value * value
    }
  }
  return sums
}
