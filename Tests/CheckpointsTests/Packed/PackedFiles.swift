import Fixtures
import Tensors

@testable import Checkpoints

/// A packed file made in memory, a block at a time, as `convert` makes them.
struct PackedSample {
  var files: [(name: String, bytes: [UInt8], headerByteCount: Int)] = []
  var base: String?
  /// The base's bytes of a tensor, where it is to be a difference.
  var baseBytes: [String: [UInt8]] = [:]

  /// Adds a safetensors file of tensors with random bytes.
  mutating func add(
    _ name: String, _ tensors: [(name: String, dtype: DType, shape: [Int])], seed: Int = 1
  ) throws {
    var random = SplitMix64(seed: seed)
    let header = try SafetensorsHeader.encode(
      tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) }, metadata: nil)
    let count = header.fileByteCount - header.bytes.count
    let data = (0..<count).map { _ in UInt8.random(in: 0...63, using: &random) }
    files.append((name, header.bytes + data, header.bytes.count))
  }

  func contents() throws -> PackedContents {
    try PackedContents(
      files.map { ($0.name, $0.bytes.count, Array($0.bytes.prefix($0.headerByteCount))) },
      base: base)
  }

  /// The file's bytes: the header frame, and the blocks' frames.
  func packed() throws -> (bytes: [UInt8], headerByteCount: Int) {
    let contents = try contents()
    var packer = try BlockPacker()
    var entries: [PackedEntry] = []
    var frames: [UInt8] = []
    for block in 0..<contents.blockCount {
      let piece = contents.piece(ofBlock: block)
      let range = piece.range(ofBlock: block)
      let bytes = Array(files[piece.member].bytes[range])
      let start = range.lowerBound - piece.range.lowerBound
      let base = piece.tensor.flatMap { baseBytes[$0.name] }.map {
        Array($0[start..<start + range.count])
      }
      entries.append(
        try packer.pack(
          bytes.span.bytes, piece.tensor.map { BytePlanes($0.dtype) } ?? .none,
          base: base?.span.bytes, search: piece.tensor == nil ? .level(3) : .frequencies))
      frames += packer.frame.array
    }
    let header = try contents.header(entries)
    return (header + frames, header.count)
  }
}

extension RawSpan {
  /// A copy.
  var array: [UInt8] { withUnsafeBytes { Array($0) } }
}

/// Everything that a packed file holds, read block by block: the files again.
func unpacked(_ file: PackedFile) throws -> [[UInt8]] {
  try file.contents.members.map { member in
    var bytes = member.beginning
    for piece in file.contents.pieces[member.pieces] {
      for block in piece.blocks {
        var part = [UInt8](repeating: 0, count: piece.range(ofBlock: block).count)
        var span = part.mutableSpan
        var raw = span.mutableBytes
        try file.readBlock(block, of: piece, into: &raw)
        bytes += part
      }
    }
    return bytes
  }
}
