import COpenBLAS

extension Float: BLASScalar {
  package static func gemm(
    _ transposing: Transposition, rows: Int32, columns: Int32, inner: Int32,
    _ a: UnsafePointer<Float>, strideA: Int32, _ b: UnsafePointer<Float>, strideB: Int32,
    _ c: UnsafeMutablePointer<Float>, strideC: Int32
  ) {
    // The caller answers for its pointers.
    unsafe OpenBLAS.loaded.functions.cblas_sgemm(
      Int32(PEF_ROW_MAJOR), transposing.ofLeft, transposing.ofRight, rows, columns, inner, 1, a,
      strideA, b, strideB, 0, c, strideC)
  }

  package static func omatcopy(rows: Int32, columns: Int32, _ a: [Float], _ b: inout [Float]) {
    precondition(a.count == Int(rows) * Int(columns) && b.count == a.count, "whole matrices")
    // Both arrays have the count just checked, and live through the call.
    unsafe OpenBLAS.loaded.functions.cblas_somatcopy(
      Int32(PEF_ROW_MAJOR), Int32(PEF_TRANSPOSED), rows, columns, 1, a, columns, &b, rows)
  }

  package static func geqrf(
    rows: Int32, columns: Int32, _ a: inout [Float], tau: inout [Float], work: inout [Float],
    workCount: Int32
  ) -> Int32 {
    precondition(a.count == Int(rows) * Int(columns), "a whole matrix")
    precondition(tau.count == min(rows, columns), "a factor a reflector")
    precondition(work.count >= max(1, workCount), "the workspace that is told of")
    var info: Int32 = 0
    var (rows, columns, count) = (rows, columns, workCount)
    var stride = max(1, rows)
    // The counts are those just checked, and all live through the call.
    unsafe OpenBLAS.loaded.functions.sgeqrf_(
      &rows, &columns, &a, &stride, &tau, &work, &count, &info)
    return info
  }

  package static func orgqr(
    rows: Int32, columns: Int32, reflectors: Int32, _ a: inout [Float], tau: [Float],
    work: inout [Float], workCount: Int32
  ) -> Int32 {
    precondition(a.count >= Int(rows) * Int(columns), "a whole matrix")
    precondition(tau.count == reflectors, "a factor a reflector")
    precondition(work.count >= max(1, workCount), "the workspace that is told of")
    var info: Int32 = 0
    var (rows, columns, reflectors, count) = (rows, columns, reflectors, workCount)
    var stride = max(1, rows)
    // The counts are those just checked, and all live through the call.
    unsafe OpenBLAS.loaded.functions.sorgqr_(
      &rows, &columns, &reflectors, &a, &stride, tau, &work, &count, &info)
    return info
  }

  package static func gesdd(
    rows: Int32, columns: Int32, _ a: inout [Float], s: inout [Float], u: inout [Float],
    vt: inout [Float], work: inout [Float], workCount: Int32, integers: inout [Int32]
  ) -> Int32 {
    let least = min(rows, columns)
    let isWithoutVectors = u.isEmpty && vt.isEmpty
    precondition(a.count == Int(rows) * Int(columns) && s.count == least, "whole matrices")
    precondition(isWithoutVectors || u.count == Int(rows) * Int(least), "room for U")
    precondition(isWithoutVectors || vt.count == Int(least) * Int(columns), "room for Vᵀ")
    precondition(work.count >= max(1, workCount), "the workspace that is told of")
    precondition(integers.count >= 8 * Int(least), "the workspace that gesdd needs")
    var info: Int32 = 0
    var job = CChar(UInt8(ascii: isWithoutVectors ? "N" : "S"))
    var (rows, columns, count) = (rows, columns, workCount)
    var (stride, strideU, strideVT) = (max(1, rows), max(1, rows), max(1, least))
    // The counts are those just checked, and all live through the call. `job` has one character.
    unsafe OpenBLAS.loaded.functions.sgesdd_(
      &job, &rows, &columns, &a, &stride, &s, &u, &strideU, &vt, &strideVT, &work, &count,
      &integers, &info, 1)
    return info
  }
}
