import CLinux
import Glibc

/// An output that is whole or absent: built beside its final name, then renamed to it.
///
/// The temporary is `.NAME.peftool-XXXXXX` in the same folder, locked (`flock`) while this process
/// lives; the next run to the same name removes those that nobody holds. Every file is synced
/// before the rename and the folder after it. Dropped without a commit, it leaves nothing behind.
package struct StagedOutput: ~Copyable {
  /// What the output is.
  package enum Kind: Sendable { case file, directory }

  /// The final path.
  package let path: String
  private let kind: Kind
  private let isForced: Bool
  private let temporary: String
  private let lock: Int32
  private var files: [OutputFile] = []
  private var isCommitted = false

  /// Claims the name: what could go wrong later with it goes wrong now.
  ///
  /// - Throws: `io` where something is there already and `force` is false, or where the folder
  ///   cannot be written to.
  package init(_ kind: Kind, at path: String, force: Bool) throws(PeftoolError) {
    self.path = path.trimmingTrailingSlashes
    self.kind = kind
    isForced = force
    try Self.checkReplaceable(self.path, kind: kind, force: force)
    try Self.sweep(beside: self.path)
    (temporary, lock) = try Self.claim(kind, beside: self.path)
  }

  deinit {
    guard !isCommitted else { return }
    // What cannot be removed now is removed by the next run to the same name.
    Interruption.resign(temporary) { try? removeTree(temporary) }
    close(lock)
  }

  /// A new file of the given length: the output itself, or a file in the output folder.
  ///
  /// - Throws: `io` where it cannot be created, or the disk has not the room.
  package mutating func createFile(
    _ name: String? = nil, byteCount: Int
  ) throws(PeftoolError) -> OutputFile {
    let (place, final) =
      name.map { ("\(temporary)/\($0)", "\(path)/\($0)") } ?? (temporary, path)
    let descriptor = try systemCall("cannot create", path: final) {
      // A single file has been created with its lock.
      unsafe open(place, O_WRONLY | O_CLOEXEC | (name == nil ? 0 : O_CREAT | O_EXCL), 0o666)
    }
    let file = OutputFile(descriptor: descriptor, path: final, isStream: false)
    files.append(file)
    try file.reserve(byteCount: byteCount)
    return file
  }

  /// Syncs every file and gives the output its name, in one step for whoever looks.
  ///
  /// - Throws: `io`; nothing is left behind then.
  package consuming func commit() throws(PeftoolError) {
    for file in files { try file.sync() }
    if kind == .directory {
      try systemCall("cannot write to the disk", path: path) { fsync(lock) }
    }
    let (temporary, path) = (temporary, path)
    let replaced = try exchange()
    if replaced { try removeTree(temporary) }
    Interruption.resign(temporary) {}
    isCommitted = true
    close(lock)
    let parent = path.parentPath
    let folder = try systemCall("cannot open", path: parent) {
      unsafe open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    }
    defer { close(folder) }
    try systemCall("cannot write to the disk", path: parent) { fsync(folder) }
  }

  /// Gives the temporary the final name; true where the old output now has the temporary's.
  private func exchange() throws(PeftoolError) -> Bool {
    var isReplaced = false
    try Interruption.resign(temporary) { () throws(PeftoolError) in
      if unsafe pef_rename_new(temporary, path) == 0 { return }
      guard [EEXIST, EINVAL, ENOSYS, ENOTEMPTY].contains(errno) else {
        throw .system("cannot rename", path: path)
      }
      let isThere = try FileKind(at: path, followingLinks: false) != nil
      guard isForced || !isThere else { throw Self.exists(path) }
      if isThere, unsafe pef_rename_exchange(temporary, path) == 0 {
        isReplaced = true
        return
      }
      // A file system without either call: over a file rename is one step all the same; a folder
      // must first go, so that a reader may find nothing for a moment.
      if isThere, kind == .directory { try removeTree(path) }
      try systemCall("cannot rename", path: path) { unsafe rename(temporary, path) }
    }
    if isReplaced { Interruption.register(temporary) }
    return isReplaced
  }

  private static func exists(_ path: String) -> PeftoolError {
    PeftoolError(.io, "exists already; --force replaces it", path: path)
  }

  /// Refuses what is there without `force`, and with it whatever does not look like an output.
  private static func checkReplaceable(
    _ path: String, kind: Kind, force: Bool
  ) throws(PeftoolError) {
    guard let found = try FileKind(at: path) else { return }
    guard force else { throw exists(path) }
    switch (kind, found) {
    case (.file, .regular): return
    case (.directory, .directory):
      let names = try directoryEntries(path)
      guard
        names.isEmpty
          || names.contains(where: { $0 == "config.json" || $0.hasSuffix(".safetensors") })
      else {
        throw PeftoolError(
          .io, "holds no model; --force replaces only a model folder", path: path)
      }
    case (.file, _):
      throw PeftoolError(.io, "is no regular file; --force replaces only a file", path: path)
    case (.directory, _):
      throw PeftoolError(.io, "is no folder; --force replaces a folder with a folder", path: path)
    }
  }

  private static func prefix(_ path: String) -> String { ".\(path.lastComponent).peftool-" }

  /// Removes what runs that were killed have left behind.
  private static func sweep(beside path: String) throws(PeftoolError) {
    let parent = path.parentPath
    for name in try directoryEntries(parent) where name.hasPrefix(prefix(path)) {
      let stale = "\(parent)/\(name)"
      let descriptor = unsafe open(stale, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)
      guard descriptor >= 0 else { continue }
      defer { close(descriptor) }
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { try removeTree(stale) }
    }
  }

  /// Creates a temporary of a new name and locks it.
  private static func claim(
    _ kind: Kind, beside path: String
  ) throws(PeftoolError) -> (path: String, lock: Int32) {
    while true {
      let letters = (0..<6).compactMap { _ in "abcdefghijklmnopqrstuvwxyz0123456789".randomElement()
      }
      let temporary = "\(path.parentPath)/\(prefix(path))\(String(letters))"
      Interruption.register(temporary)
      do throws(PeftoolError) {
        if kind == .directory {
          try systemCall("cannot create", path: path) { unsafe mkdir(temporary, 0o777) }
        }
        let flags = kind == .file ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY | O_DIRECTORY
        let lock = try systemCall("cannot create", path: path) {
          unsafe open(temporary, flags | O_CLOEXEC, 0o666)
        }
        // A sweep may hold the lock, and remove the name, in the moment before this.
        _ = flock(lock, LOCK_EX)
        if try FileKind(at: temporary, followingLinks: false) != nil { return (temporary, lock) }
        close(lock)
      } catch {
        Interruption.resign(temporary) {}
        throw error
      }
    }
  }
}
