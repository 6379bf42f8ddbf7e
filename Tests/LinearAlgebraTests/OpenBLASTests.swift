import Files
import Fixtures
import Glibc
import LinearAlgebra
import Synchronization
import Testing

@Suite struct OpenBLASTests {
  @Test(
    arguments: [
      (.avx512, "Prescott", "SkylakeX"), (.avx512, "Nehalem", "SkylakeX"),
      (.avx512, "Unknown", "SkylakeX"), (.avx512, "Haswell", "SkylakeX"),
      (.avx512, "Zen", "SkylakeX"), (.avx512, "SkylakeX", nil), (.avx512, "Cooperlake", nil),
      (.avx512, "SapphireRapids", nil), (.avx2, "Prescott", "Haswell"),
      (.avx2, "Sandybridge", "Haswell"), (.avx2, "Barcelona", "Haswell"), (.avx2, "Haswell", nil),
      (.avx2, "Zen", nil), (.avx2, "Excavator", nil), (.avx2, "SkylakeX", nil),
      (.older, "Prescott", nil), (.older, "Nehalem", nil), (.older, "Haswell", nil),
      (.older, "neoversen1", nil), (.avx512, "Lionscove", nil), (.avx2, "", nil),
    ] as [(VectorInstructions, String, String?)])
  func aBetterKernelIsAskedForWhereThereIsOne(
    instructions: VectorInstructions, coreName: String, coreType: String?
  ) {
    #expect(instructions.betterCoreType(than: coreName) == coreType)
  }

  @Test(arguments: VectorInstructions.allCases)
  func whatIsAskedForIsGoodEnough(instructions: VectorInstructions) {
    guard let coreType = instructions.betterCoreType(than: "Prescott") else { return }
    #expect(instructions.betterCoreType(than: coreType) == nil)
  }

  @Test func itIsLoadedOnce() throws {
    try OpenBLAS.prepare()
    try OpenBLAS.prepare()
    #expect(!OpenBLAS.loaded.coreName.isEmpty)
  }

  // What follows loads it anew, and so needs a process of its own.

  @Test(arguments: VectorInstructions.allCases)
  func itsKernelsSuitTheProcessor(instructions: VectorInstructions) async {
    await #expect(processExitsWith: .success) { [raw = instructions.rawValue as Int] in
      unsetenv("OPENBLAS_CORETYPE")
      let instructions = try #require(VectorInstructions(rawValue: raw))
      let openBLAS = try OpenBLAS(for: instructions)
      #expect(instructions.betterCoreType(than: openBLAS.coreName) == nil)
    }
  }

  @Test func theUsersKernelsAreLeft() async {
    await #expect(processExitsWith: .success) {
      setenv("OPENBLAS_CORETYPE", "Prescott", 1)
      _ = try OpenBLAS(for: .avx512)
      #expect(getenv("OPENBLAS_CORETYPE").map { String(cString: $0) } == "Prescott")
    }
  }

  @Test func itComputesOnOneThread() async {
    await #expect(processExitsWith: .success) {
      setenv("OPENBLAS_NUM_THREADS", "2", 1)
      setenv("OMP_NUM_THREADS", "2", 1)
      try OpenBLAS.prepare()
      #expect(OpenBLAS.loaded.threadCount == 1)
    }
  }

  @Test func whatIsMissingIsNamed() async {
    await #expect(processExitsWith: .success) {
      let error = PeftoolError(
        .unsupported,
        "OpenBLAS cannot be loaded: libnone.so.0: cannot open shared object file: No such file "
          + "or directory; install it (Debian: libopenblas0)")
      #expect(throws: error) { try OpenBLAS(library: "libnone.so.0") }
      #expect { try OpenBLAS(library: "libm.so.6") } throws: {
        "\($0)".hasSuffix(
          "undefined symbol: cblas_sgemm; install it (Debian: libopenblas0)")
      }
    }
  }

  /// All results of one thread's work.
  private static func work(_ seed: Int) throws(PeftoolError) -> [Double] {
    let matrix = Matrices.random(97, 61, seed: seed)
    let narrow = Matrix<Float>(matrix)
    let qr = QR(matrix)
    let svd = try SVD(matrix)
    let small = try SVD(narrow)
    let random = try RandomizedSVD(of: narrow, rank: 5, .init(seed: 1)).svd
    let low = try LowRankSVD.of(matrix, product(matrix, qr.q, transposing: .left))
    return qr.q.elements + qr.r.elements + svd.u.elements + svd.singularValues + svd.vt.elements
      + (small.u.elements + small.singularValues + small.vt.elements).map { Double($0) }
      + (random.u.elements + random.singularValues + random.vt.elements).map { Double($0) }
      + low.u.elements + low.singularValues + low.vt.elements
  }

  @Test func severalThreadsAtOnceGetTheSameBytes() throws {
    let alone = try (0..<4).map { try Self.work($0) }
    let different = Atomic(0)
    try forEachBlock(count: 32, threads: 8) { (queue, current) throws(PeftoolError) in
      while let block = queue.next() {
        current = block
        // NaN would differ from itself, and there is none.
        if try Self.work(block % 4) != alone[block % 4] {
          different.add(1, ordering: .relaxed)
        }
      }
    }
    #expect(different.load(ordering: .relaxed) == 0)
  }
}
