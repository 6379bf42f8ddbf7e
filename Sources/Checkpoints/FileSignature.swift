package import Files

/// What a file's first bytes say that it is.
package enum FileSignature: Equatable, Sendable {
  case safetensors
  /// What `torch.save` writes: a zip archive, or Python pickles.
  case torch
  case gguf
  /// What `convert` packs with zstd.
  case packed
  case json
  /// Something else: words for a message that begin with a verb.
  case other(String)

  /// Looks at the first bytes of a file.
  ///
  /// - Throws: `io` where it cannot be read.
  package init(of file: InputFile) throws(PeftoolError) {
    self.init(
      beginning: try file.bytes(0..<min(64, file.byteCount)), fileByteCount: file.byteCount,
      path: file.path)
  }

  /// Looks at a file's first bytes, up to 64 of them.
  ///
  /// A safetensors file begins with a length that fits the file and goes on with `{`. A damaged
  /// one may not; so that its reader can tell what is wrong, `{` or the name is enough where
  /// nothing else fits. Text cannot be taken for a length: it would be one of petabytes.
  package init(beginning bytes: [UInt8], fileByteCount: Int, path: String) {
    let space: [UInt8] = [0x20, 0x09, 0x0A, 0x0D]
    let brace = UInt8(ascii: "{")
    let length = bytes.littleEndian(at: 0, count: min(8, bytes.count))
    let afterLength = bytes.dropFirst(8).first { !space.contains($0) }
    if bytes.count > 8, length <= UInt64(fileByteCount - 8), afterLength == brace {
      self = .safetensors
    } else if Self.torchBeginnings.contains(where: bytes.starts(with:)) {
      self = .torch
    } else if bytes.starts(with: GGUFHeader.magic) {
      self = .gguf
    } else if bytes.starts(with: PackedContents.skippableMagic),
      bytes.dropFirst(8).starts(with: PackedContents.magic)
    {
      self = .packed
    } else if let known = Self.known.first(where: { bytes.starts(with: $0.bytes) }) {
      self = .other("is \(known.name)")
    } else if bytes.first(where: { !space.contains($0) }) == brace {
      self = .json
    } else if bytes.count >= 8, bytes.allSatisfy({ space.contains($0) || (0x20..<0x7F) ~= $0 }) {
      self = .other("is text")
    } else if bytes.count > 8 && bytes[8] == brace || path.hasSuffix(".safetensors") {
      self = .safetensors
    } else if bytes.isEmpty {
      self = .other("is empty")
    } else {
      let shown = bytes.prefix(8).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
      self = .other("begins with the bytes \(shown.joined(separator: " "))")
    }
  }

  /// A zip archive, and pickles of the protocols 2 to 5.
  private static let torchBeginnings: [[UInt8]] = [
    [0x50, 0x4B, 0x03, 0x04], [0x80, 0x02], [0x80, 0x03], [0x80, 0x04], [0x80, 0x05],
  ]

  private static let known: [(bytes: [UInt8], name: String)] = [
    ([0x28, 0xB5, 0x2F, 0xFD], "compressed with zstd, not read by peftool"),
    ([0x1F, 0x8B], "compressed with gzip, not read by peftool"),
    ([0x89, 0x48, 0x44, 0x46], "an HDF5 file, not read by peftool"),
    (
      Array("version https://git-lfs".utf8),
      "a Git LFS pointer to the real file (`git lfs pull` fetches it)"
    ),
  ]

  /// Whether a file's name is one that weights have, in any of the usual formats.
  package static func isWeightName(_ name: String) -> Bool {
    let endings = [
      ".safetensors", ".safetensors.zst", ".safetensors.index.json", ".bin.index.json", ".gguf",
      ".pt", ".pth", ".ckpt",
      ".h5", ".msgpack", ".onnx",
    ]
    return endings.contains(where: name.hasSuffix)
      || name.hasSuffix(".bin")
        && ["pytorch_model", "adapter_model", "model"].contains(where: name.hasPrefix)
  }
}
