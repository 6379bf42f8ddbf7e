/// A precision that BLAS and LAPACK compute in: Float (their `s`) or Double (their `d`).
///
/// The requirements are LAPACK's routines by their own names, thinly: matrices by columns, sizes of
/// 32 bits, `info` as the result. A `workCount` of -1 asks for the size of `work`, which its first
/// element then holds. Callers want `Matrix`, `product`, `QR` and `SVD` instead.
package protocol BLASScalar: BinaryFloatingPoint, Sendable {
  /// c ← op(a)·op(b), by rows: op(a) rows × inner, op(b) inner × columns.
  ///
  /// Each stride is what separates two rows of the matrix as it is stored.
  static func gemm(
    _ transposing: Transposition, rows: Int32, columns: Int32, inner: Int32,
    _ a: UnsafePointer<Self>, strideA: Int32, _ b: UnsafePointer<Self>, strideB: Int32,
    _ c: UnsafeMutablePointer<Self>, strideC: Int32)

  /// b ← aᵀ, by rows: a rows × columns.
  static func omatcopy(rows: Int32, columns: Int32, _ a: [Self], _ b: inout [Self])

  /// a ← R and below it the reflectors that make Q; a rows × columns.
  static func geqrf(
    rows: Int32, columns: Int32, _ a: inout [Self], tau: inout [Self], work: inout [Self],
    workCount: Int32
  ) -> Int32

  /// a ← the first columns of the Q that `geqrf` has left in it.
  static func orgqr(
    rows: Int32, columns: Int32, reflectors: Int32, _ a: inout [Self], tau: [Self],
    work: inout [Self], workCount: Int32
  ) -> Int32

  /// The thin SVD of a, which is lost; without vectors where `u` and `vt` are empty.
  static func gesdd(
    rows: Int32, columns: Int32, _ a: inout [Self], s: inout [Self], u: inout [Self],
    vt: inout [Self], work: inout [Self], workCount: Int32, integers: inout [Int32]
  ) -> Int32
}

/// A size as BLAS takes it.
func blasCount(_ count: Int) -> Int32 {
  precondition(count <= Int32.max, "a size of 32 bits")
  return Int32(count)
}

/// Calls a LAPACK routine with as much workspace as it asks for; gives its `info`.
func withWorkspace<Scalar: BLASScalar>(
  _ call: (_ work: inout [Scalar], _ workCount: Int32) -> Int32
) -> Int32 {
  var work: [Scalar] = [0]
  _ = call(&work, -1)
  // A Float has 24 bits: LAPACK's answer may have been rounded down to one.
  work = [Scalar](repeating: 0, count: Int(work[0].nextUp.rounded(.up)))
  let info = call(&work, blasCount(work.count))
  precondition(info >= 0, "arguments that LAPACK takes")
  return info
}
