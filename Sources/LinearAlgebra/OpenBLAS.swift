import CLinux
import COpenBLAS
package import Files
import Glibc

/// OpenBLAS's own settings, which belong to the process.
package enum OpenBLAS {
  /// Gets OpenBLAS ready: one thread, and the kernels that suit the processor.
  ///
  /// OpenBLAS chooses its kernels when it is loaded, and takes a processor newer than itself for
  /// an old one. Where it has, and OPENBLAS_CORETYPE is not set, the process starts anew with the
  /// variable set and so does not come back; the variable also keeps it from doing so twice. To be
  /// called before a verb opens files or starts threads. Where the process cannot start anew, it
  /// goes on with the kernels that it has.
  ///
  /// - Throws: `unsupported` where threads may not share this build of OpenBLAS.
  package static func prepare() throws(PeftoolError) {
    useOneThread()
    let parallel = Int(openblas_get_parallel())
    // Built without threads it also lacks the locks around its buffers (USE_LOCKING).
    guard parallel != PEF_WITHOUT_THREADS else {
      throw PeftoolError(
        .unsupported,
        "OpenBLAS is built without threads, and several may not call it; install its build on "
          + "POSIX threads (Debian: libopenblas0-pthread)")
    }
    // OpenMP has a number of threads of its own for each thread that calls it.
    let isOpenMPWide = parallel == PEF_OPENMP && variable("OMP_NUM_THREADS") != "1"
    if isOpenMPWide { restart(setting: "OMP_NUM_THREADS", to: "1") }
    if variable("OPENBLAS_CORETYPE") == nil,
      let coreType = vectorInstructions.betterCoreType(than: coreName)
    {
      restart(setting: "OPENBLAS_CORETYPE", to: coreType)
    }
    guard !isOpenMPWide else {
      throw PeftoolError(
        .unsupported, "OpenBLAS is built on OpenMP; set OMP_NUM_THREADS=1 and start peftool anew")
    }
  }

  private static func restart(setting variable: String, to value: String) {
    // No other thread reads or changes the environment.
    unsafe setenv(variable, value, 1)
    // These are the arguments that the process was started with, ended by a null pointer.
    unsafe pef_restart(CommandLine.unsafeArgv)
  }

  private static func variable(_ name: String) -> String? {
    // No other thread changes the environment while it is copied.
    unsafe getenv(name).map { unsafe String(cString: $0) }
  }

  /// Has OpenBLAS compute on the thread that calls it, and ends the threads it started with.
  ///
  /// These start when the library is loaded, before the signals are blocked that `Interruption`
  /// waits for, and would take them. To be called first of all, by every verb; what is computed
  /// here calls it too. It acts once.
  package static func useOneThread() { oneThread }

  // Threads must not end while they compute: so all wait for the first who comes here.
  private static let oneThread: Void = {
    openblas_set_num_threads(1)
    // Only the build on POSIX threads has it. Its type is that of OpenBLAS's source, `int (void)`.
    guard let symbol = unsafe dlsym(nil, "blas_thread_shutdown_") else { return }
    let endThreads = unsafe unsafeBitCast(symbol, to: (@convention(c) () -> Int32).self)
    _ = endThreads()
  }()

  /// The processor whose kernels OpenBLAS uses, by its own name.
  package static var coreName: String {
    // A constant string.
    unsafe String(cString: openblas_get_corename())
  }

  /// What this processor has.
  package static var vectorInstructions: VectorInstructions {
    VectorInstructions(rawValue: Int(pef_vector_instructions())) ?? .older
  }
}
