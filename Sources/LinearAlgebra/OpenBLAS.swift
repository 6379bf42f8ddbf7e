import CLinux
import COpenBLAS
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
  package static func prepare() {
    useOneThread()
    // The environment is read while no thread of peftool's changes it.
    guard unsafe getenv("OPENBLAS_CORETYPE") == nil,
      let coreType = vectorInstructions.betterCoreType(than: coreName)
    else { return }
    // These are the arguments that the process was started with, ended by a null pointer.
    unsafe pef_restart(CommandLine.unsafeArgv, "OPENBLAS_CORETYPE", coreType)
  }

  /// Has OpenBLAS compute on the thread that calls it, and ends the threads it started with.
  ///
  /// These start when the library is loaded, before the signals are blocked that `Interruption`
  /// waits for, and would take them. To be called first of all, by every verb.
  package static func useOneThread() {
    // To set the number starts threads again that were ended.
    if openblas_get_num_threads() != 1 { openblas_set_num_threads(1) }
    // Only the build on POSIX threads has it. Its type is that of OpenBLAS's source, `int (void)`.
    guard let symbol = unsafe dlsym(nil, "blas_thread_shutdown_") else { return }
    let endThreads = unsafe unsafeBitCast(symbol, to: (@convention(c) () -> Int32).self)
    _ = endThreads()
  }

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
