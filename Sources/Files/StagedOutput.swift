import CLinux
import Glibc

/// An output that is whole or absent: built beside its final name, then renamed to it.
///
/// The temporary is `.NAME.peftool-XXXXXX` in the same folder, locked (`flock`) while this process
/// lives; the next run to the same name removes those that nobody holds. Every file is synced
/// before the rename and the folder after it. Dropped without a commit, it leaves nothing behind.
/// Where the final name is a link, the link is replaced and not what it leads to.
package struct StagedOutput: ~Copyable {
  /// What the output is.
  package enum Kind: Sendable { case file, modelFolder, adapterFolder }

  /// The final path.
  package let path: String
  private let kind: Kind
  private let isForced: Bool
  private let temporary: String
  private let lock: Int32
  /// The folder that the output stands in.
  private let folder: Int32
  private var files: [OutputFile] = []

  /// Claims the name: what could go wrong later with it goes wrong now.
  ///
  /// - Throws: `unsupported` where it is or holds one of the inputs; `io` where something is there
  ///   already and `force` is false, where that is nothing that `force` replaces, or where the
  ///   folder cannot be written to.
  package init(
    _ kind: Kind, at path: String, force: Bool, apartFrom inputs: [InputFile] = []
  ) throws(PeftoolError) {
    self.path = Folder.trimmed(path)
    self.kind = kind
    isForced = force
    try Self.check(kind, at: path, force: force, apartFrom: inputs)
    try Self.sweep(beside: self.path)
    let parent = Folder.parent(of: self.path)
    let folder = try systemCall("cannot open", path: parent) {
      unsafe open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    }
    do throws(PeftoolError) {
      (temporary, lock) = try Self.claim(kind, beside: self.path)
    } catch {
      close(folder)
      throw error
    }
    self.folder = folder
  }

  deinit {
    // After a commit nothing is there, or the output that was replaced. What cannot be removed now
    // is removed by the next run to the same name. Reading the temporary takes a descriptor, of
    // which none may be left but this one.
    close(folder)
    Interruption.resign(temporary) { try? Folder.remove(temporary) }
    close(lock)
  }

  /// A new file of the given length: the output itself, or a file in the output folder.
  ///
  /// A file that is appended to has the given length to begin with.
  /// - Throws: `io` where it cannot be created, or the disk has not the room.
  package mutating func createFile(
    _ name: String? = nil, byteCount: Int
  ) throws(PeftoolError) -> OutputFile {
    let (place, final) =
      name.map { (Folder.path(temporary, $0), Folder.path(path, $0)) } ?? (temporary, path)
    let descriptor = try systemCall("cannot create", path: final) {
      // A single file has been created with its lock.
      unsafe open(place, O_WRONLY | O_CLOEXEC | (name == nil ? 0 : O_CREAT | O_EXCL), 0o666)
    }
    let file = OutputFile(
      descriptor: descriptor, path: final, isStream: false, appendingFrom: byteCount)
    files.append(file)
    try file.reserve(byteCount: byteCount)
    return file
  }

  /// A new file in the output folder with the given bytes.
  ///
  /// - Throws: as `createFile` and `OutputFile.write`.
  package mutating func write(_ bytes: [UInt8], to name: String) throws(PeftoolError) {
    let file = try createFile(name, byteCount: bytes.count)
    // Any bytes may be read as bytes.
    try unsafe file.write(bytes.span.bytes, at: 0)
  }

  /// Syncs every file and gives the output its name, in one step for whoever looks.
  ///
  /// - Throws: `io`; nothing is left behind then, but for an output that is whole and whose name
  ///   may not outlast a power failure, or whose predecessor could not be removed.
  package consuming func commit() throws(PeftoolError) {
    for file in files { try file.sync() }
    if kind != .file {
      try systemCall("cannot write to the disk", path: path) { fsync(lock) }
    }
    try Interruption.holdOff { () throws(PeftoolError) in try rename() }
    try systemCall("cannot write to the disk", path: Folder.parent(of: path)) { fsync(folder) }
    try Folder.remove(temporary)
  }

  /// Gives the temporary the final name; an old output now has the temporary's.
  private borrowing func rename() throws(PeftoolError) {
    let (temporary, path) = (temporary, path)
    // What the system answers where a file system does not have the call.
    let unknown = [EINVAL, ENOSYS]
    if uninterrupted({ unsafe pef_rename_new(temporary, path) }) == 0 { return }
    guard errno == EEXIST || unknown.contains(errno) else {
      throw .system("cannot rename", path: path)
    }
    if Folder.exists(path) {
      // It may have got more than it had when this began.
      try Self.checkReplaceable(path, kind: kind, force: isForced)
      if uninterrupted({ unsafe pef_rename_exchange(temporary, path) }) == 0 { return }
      guard unknown.contains(errno) else { throw .system("cannot rename", path: path) }
      // Over a file a plain rename is one step all the same; a folder must first go, so that a
      // reader may find nothing for a moment.
      if kind != .file { try Folder.remove(path) }
    }
    try systemCall("cannot rename", path: path) { unsafe Glibc.rename(temporary, path) }
  }

  /// Finds what would go wrong with a name, and claims nothing.
  ///
  /// - Throws: as `init`, but for folders that cannot be written to.
  package static func check(
    _ kind: Kind, at path: String, force: Bool, apartFrom inputs: [InputFile] = []
  ) throws(PeftoolError) {
    try refuseInputs(inputs, at: path)
    // These cannot be renamed to, and a temporary beside `.` would lie in it.
    guard !["", ".", "..", "/"].contains(Folder.name(of: path)) else {
      throw PeftoolError(.io, "is no name for an output", path: path)
    }
    try checkReplaceable(Folder.trimmed(path), kind: kind, force: force)
    // Whether there is a folder for it.
    _ = try Folder.names(in: Folder.parent(of: path))
  }

  /// Refuses an output that is an input, or a folder that holds one.
  private static func refuseInputs(
    _ inputs: [InputFile], at path: String
  ) throws(PeftoolError) {
    for input in inputs where Folder.contains(path, input.path) {
      throw PeftoolError(
        .unsupported, "is or holds the input \(input.path.printable): name another output",
        path: path)
    }
  }

  private static func prefix(_ path: String) -> String { ".\(Folder.name(of: path)).peftool-" }

  /// Removes what runs that were killed have left behind, as far as that can be.
  private static func sweep(beside path: String) throws(PeftoolError) {
    let parent = Folder.parent(of: path)
    for name in try Folder.names(in: parent) where name.hasPrefix(prefix(path)) {
      let stale = Folder.path(parent, name)
      let descriptor = unsafe open(stale, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)
      guard descriptor >= 0 else { continue }
      defer { close(descriptor) }
      // What cannot be removed is in nobody's way.
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { try? Folder.remove(stale) }
    }
  }

  /// Creates a temporary of a new name and locks it.
  private static func claim(
    _ kind: Kind, beside path: String
  ) throws(PeftoolError) -> (path: String, lock: Int32) {
    let letters = Array("abcdefghijklmnopqrstuvwxyz0123456789")
    while true {
      let ending = String((0..<6).compactMap { _ in letters.randomElement() })
      let temporary = Folder.path(Folder.parent(of: path), prefix(path) + ending)
      Interruption.register(temporary)
      do throws(PeftoolError) {
        if let lock = try create(kind, temporary, for: path) { return (temporary, lock) }
      } catch {
        Interruption.resign(temporary) { try? Folder.remove(temporary) }
        throw error
      }
      Interruption.resign(temporary) {}
    }
  }

  /// Creates and locks a temporary; nil where the name is taken, or where another run's sweep has
  /// removed it before it was locked.
  private static func create(
    _ kind: Kind, _ temporary: String, for path: String
  ) throws(PeftoolError) -> Int32? {
    if kind != .file, uninterrupted({ unsafe mkdir(temporary, 0o777) }) != 0 {
      guard errno == EEXIST else { throw .system("cannot create", path: path) }
      return nil
    }
    let flags = kind == .file ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY | O_DIRECTORY
    let lock = uninterrupted { unsafe open(temporary, flags | O_CLOEXEC, 0o666) }
    guard lock >= 0 else {
      guard errno == (kind == .file ? EEXIST : ENOENT) else {
        throw .system("cannot create", path: path)
      }
      return nil
    }
    // This waits for a sweep that holds the lock.
    _ = uninterrupted { flock(lock, LOCK_EX) }
    if Folder.exists(temporary) { return lock }
    close(lock)
    return nil
  }
}
