import Files
import Reports

/// Memory that is asked after before it is taken: the system kills who takes more than there is.
enum MemoryRoom {
  /// Refuses what takes more than is free.
  ///
  /// - Parameters:
  ///   - what: what the memory is for, such as "the model".
  ///   - isBesideModel: whether the model is in memory already.
  ///   - wayOut: what takes less.
  /// - Throws: `unsupported`, with the path.
  static func check(
    _ byteCount: Int, for what: String, isBesideModel: Bool,
    free: Int? = SystemMemory.availableByteCount, wayOut: String?, path: String
  ) throws(PeftoolError) {
    guard let free, byteCount > free else { return }
    throw PeftoolError(
      .unsupported,
      "\(what) takes \(byteCount.byteText)\(isBesideModel ? " beside the model" : ""), and "
        + "\(max(0, free).byteText) are free" + (wayOut.map { ": \($0) takes less" } ?? ""),
      path: path)
  }
}
