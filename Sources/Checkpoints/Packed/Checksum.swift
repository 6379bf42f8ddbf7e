import CXXHash
package import Files

/// The 64-bit checksum XXH3 of bytes that come part by part.
@safe
package struct Checksum: ~Copyable {
  // Made once and freed once; nil where the system has no memory for it.
  private let state: OpaquePointer?

  /// Of no bytes.
  ///
  /// - Throws: `io` where there is no memory.
  package init() throws(PeftoolError) {
    unsafe state = XXH3_createState()
    guard unsafe state != nil else {
      throw PeftoolError(.io, "no memory for a checksum")
    }
    unsafe XXH3_64bits_reset(state)
  }

  deinit { unsafe XXH3_freeState(state) }

  /// Adds the bytes that follow.
  package mutating func add(_ bytes: RawSpan) {
    // The pointer lives through the call, which reads no more than the count.
    _ = unsafe bytes.withUnsafeBytes {
      unsafe XXH3_64bits_update(state, $0.baseAddress, $0.count)
    }
  }

  /// The checksum of what has been added.
  package var value: UInt64 { unsafe XXH3_64bits_digest(state) }

  /// The checksum of bytes that are all there.
  package static func of(_ bytes: RawSpan) -> UInt64 {
    // As in `add`.
    unsafe bytes.withUnsafeBytes { unsafe XXH3_64bits($0.baseAddress, $0.count) }
  }
}

extension UInt64 {
  /// The sixteen digits that a checksum is shown with.
  package var checksumText: String {
    let digits = String(self, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
