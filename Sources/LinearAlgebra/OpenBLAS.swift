import CLinux
import COpenBLAS
package import Files
import Glibc

/// OpenBLAS, which is loaded when it is first needed and then belongs to the process.
///
/// Linked, it would cost every verb its start-up and start threads of its own before `main`.
@safe
package struct OpenBLAS: @unchecked Sendable {
  // Threads share it: the pointers never change, and `init` refuses a build that cannot bear it.
  /// The functions by their own names, all of them found.
  private(set) var functions = unsafe pef_openblas()

  /// Loads OpenBLAS, if it is not yet loaded.
  ///
  /// A verb calls it before its first matrix, and before it starts threads: it changes the
  /// environment. All else here loads OpenBLAS too, but has no way to say that it cannot.
  ///
  /// - Throws: as `init` does, and the same each time.
  package static func prepare() throws(PeftoolError) { _ = try once.get() }

  /// OpenBLAS as the process has it.
  package static var loaded: OpenBLAS {
    guard case .success(let openBLAS) = once else {
      preconditionFailure("OpenBLAS.prepare() would have told why OpenBLAS cannot be loaded")
    }
    return openBLAS
  }

  // A Result, because a constant keeps what came of its making even where that failed.
  private static let once = Result { () throws(PeftoolError) in try OpenBLAS() }

  /// Loads OpenBLAS with one thread and the kernels that suit the processor.
  ///
  /// OpenBLAS chooses its kernels when it is loaded, and takes a processor newer than itself for
  /// an old one. Where it has, and OPENBLAS_CORETYPE is not set, it is unloaded and loaded once
  /// more with the variable set; where it cannot be unloaded, its choice stays.
  /// OPENBLAS_NUM_THREADS and OMP_NUM_THREADS become 1, whatever they were: `forEachBlock` makes
  /// the threads, and results must not depend on their number.
  ///
  /// - Throws: `unsupported` where the library or a function of it is missing, or where threads may
  ///   not share this build of it.
  package init(
    library: String = "libopenblas.so.0",
    for instructions: VectorInstructions = Self.vectorInstructions
  ) throws(PeftoolError) {
    Self.setVariable("OPENBLAS_NUM_THREADS", to: "1")
    // OpenMP has a number of threads of its own for each thread that calls it.
    Self.setVariable("OMP_NUM_THREADS", to: "1")
    try open(library)
    // The name is a literal; no other thread changes the environment.
    if unsafe getenv("OPENBLAS_CORETYPE") == nil,
      let coreType = instructions.betterCoreType(than: coreName)
    {
      Self.setVariable("OPENBLAS_CORETYPE", to: coreType)
      // Nobody else knows the functions yet.
      unsafe pef_openblas_close(&functions)
      try open(library)
    }
    // Built without threads it also lacks the locks around its buffers (USE_LOCKING).
    guard unsafe Int(functions.openblas_get_parallel()) != PEF_WITHOUT_THREADS else {
      throw PeftoolError(
        .unsupported,
        "OpenBLAS is built without threads, and several may not call it; install its build on "
          + "POSIX threads (Debian: libopenblas0-pthread)")
    }
  }

  private mutating func open(_ library: String) throws(PeftoolError) {
    // What dlerror(3) says lives until this thread calls one of its kind again.
    guard let reason = unsafe pef_openblas_open(library, &functions) else { return }
    throw PeftoolError(
      .unsupported,
      "OpenBLAS cannot be loaded: \(unsafe String(cString: reason)); install it "
        + "(Debian: libopenblas0)")
  }

  private static func setVariable(_ name: String, to value: String) {
    // Both strings are copied; no other thread reads the environment meanwhile.
    unsafe setenv(name, value, 1)
  }

  /// The processor whose kernels OpenBLAS uses, by its own name.
  package var coreName: String {
    // A constant string.
    unsafe functions.openblas_get_corename().map { unsafe String(cString: $0) } ?? ""
  }

  /// The threads that OpenBLAS computes on.
  package var threadCount: Int {
    // It takes nothing and touches nothing.
    unsafe Int(functions.openblas_get_num_threads())
  }

  /// What this processor has.
  package static var vectorInstructions: VectorInstructions {
    VectorInstructions(rawValue: Int(pef_vector_instructions())) ?? .older
  }
}
