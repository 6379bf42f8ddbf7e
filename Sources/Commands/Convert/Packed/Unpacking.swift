import Checkpoints
import Files
import LinearAlgebra
import Reports

/// A packed file made the files again that it was packed from, byte for byte.
///
/// Peak memory: the headers, some 100 bytes a block, and for each thread 3 blocks of 1 MiB; for
/// differences 5, with a packed base 7.
struct Unpacking: Sendable {
  private let packed: PackedFile
  /// The path of the base that the file names, where it is one of differences.
  var basePath: String? { packed.base?.name }
  /// The number of tensors.
  var tensorCount: Int { packed.tensors.count }
  /// The sizes of the files that are written.
  var byteCount: Int { written.reduce(0) { $0 + packed.contents.members[$1].byteCount } }
  /// Their names in the packed file.
  var names: [String] { written.map { packed.contents.members[$0].name } }
  /// What the user should know.
  let notes: [String]

  /// The bytes that are written and those of the base that are compared, for the progress.
  var workByteCount: Int { byteCount + packed.baseByteCount }

  private let destination: ModelOutput.Destination
  /// The places of the files that are written.
  private let written: [Int]

  /// A plan for an open file; nil where the destination cannot have the files as they were packed: a
  /// stream, and one file for several.
  init?(_ packed: PackedFile, to destination: ModelOutput.Destination) {
    let members = packed.contents.members
    switch destination {
    case .directory: written = Array(members.indices)
    case .file where packed.contents.tensorMembers.count == 1:
      written = members.indices.filter { members[$0].header != nil }
    case .file, .stream: return nil
    }
    let otherCount = members.count - written.count
    notes =
      otherCount == 0
      ? []
      : ["\(otherCount.text(of: "file")) beside the tensors stay behind: name a directory for all"]
    self.packed = packed
    self.destination = destination
  }

  /// Unpacks, and puts the output in its place.
  ///
  /// Of a file of differences the base's checksums are compared first.
  /// - Parameter progress: is told of bytes done, from any thread.
  /// - Throws: `io`, `damaged` where a block is not what was packed, `different` where the base is
  ///   another or an input changed meanwhile.
  func run(
    isForced: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    let threads = threads ?? availableProcessorCount
    let inputs = try packed.inputFiles
    let members = packed.contents.members
    switch destination {
    case .directory(let path):
      var output = try StagedOutput(
        .init(folderOf: written.map { members[$0].name }), at: path, force: isForced,
        apartFrom: inputs)
      try packed.checkBase(threads: threads, progress: progress)
      var files: [OutputFile] = []
      for member in written.map({ members[$0] }) {
        files.append(try output.createFile(member.name, byteCount: member.byteCount))
      }
      try write(files, threads: threads, progress)
      try output.commit()
    case .file(let path):
      var output = try StagedOutput(.file, at: path, force: isForced, apartFrom: inputs)
      try packed.checkBase(threads: threads, progress: progress)
      try write(
        [output.createFile(byteCount: byteCount)], threads: threads, progress)
      try output.commit()
    case .stream:
      preconditionFailure("a plan for files")
    }
  }

  /// Fills the files.
  private func write(
    _ files: [OutputFile], threads: Int, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    let contents = packed.contents
    var pass = OutputPass<(block: Int, piece: Int, file: Int)>()
    for (file, place) in written.enumerated() {
      let member = contents.members[place]
      pass.append(member.beginning, to: file, at: 0)
      for piece in member.pieces {
        for block in contents.pieces[piece].blocks { pass.append((block, piece, file)) }
      }
    }
    _ = try pass.run(
      into: files, threads: threads, progress: progress,
      worker: { Block(byteCount: PackedContents.blockByteCount) },
      perform: { (bytes, work) throws(PeftoolError) in
        let piece = contents.pieces[work.piece]
        let range = piece.range(ofBlock: work.block)
        var span = bytes.mutableBytes(range.count)
        try packed.readBlock(work.block, of: piece, into: &span)
        try files[work.file].write(bytes.bytes(range.count), at: range.lowerBound)
        progress(range.count)
      })
    try packed.verifyUnchanged()
  }
}
