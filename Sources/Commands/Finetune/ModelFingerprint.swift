import Checkpoints
import Files
import JSON
import Tensors

/// What tells a model from another of its shape: a checksum of its configuration, and of its tensors'
/// names, types, shapes and first bytes.
struct ModelFingerprint {
  /// The sixteen digits of the checksum.
  let text: String

  /// The bytes of each tensor that are read.
  private static let byteCount = 4096

  /// Reads the beginning of each tensor.
  ///
  /// - Throws: `io`, `damaged`.
  init(_ checkpoint: Checkpoint) throws(PeftoolError) {
    var checksum = try Checksum()
    let config = Array((try checkpoint.modelConfig?.text(sortedKeys: true) ?? "").utf8)
    // Any bytes may be read as bytes.
    unsafe checksum.add(config.span.bytes)
    for tensor in checkpoint.tensors {
      let title = Array("\(tensor.name) \(tensor.dtype.rawValue) \(tensor.shape)".utf8)
      let count = min(tensor.byteCount, Self.byteCount)
      let bytes = try Bytes(count: count) { (bytes) throws(PeftoolError) in
        try checkpoint.source.read(tensor, bytes: 0..<count, into: &bytes)
      }
      // Any bytes may be read as bytes.
      unsafe checksum.add(title.span.bytes)
      checksum.add(bytes.span)
    }
    text = checksum.value.checksumText
  }
}
