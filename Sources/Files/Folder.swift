import Glibc

/// Paths, and what lies in folders.
///
/// Paths are cut at the byte `/`: a `Character` may be a slash and a combining mark in one.
package enum Folder {
  private static let slash = UInt8(ascii: "/")

  /// The folder that a path's last component lies in, `.` for a bare name.
  ///
  /// Slashes at the path's end do not count.
  package static func parent(of path: String) -> String {
    let path = trimmed(path)
    guard let end = path.utf8.lastIndex(of: slash) else { return "." }
    return trimmed(String(path[..<path.utf8.index(after: end)]))
  }

  /// A path's last component, `/` for the root.
  ///
  /// Slashes at the path's end do not count.
  package static func name(of path: String) -> String {
    let path = trimmed(path)
    guard let end = path.utf8.lastIndex(of: slash), path.utf8.count > 1 else { return path }
    return String(path[path.utf8.index(after: end)...])
  }

  /// The path of a file in a folder.
  package static func path(_ folder: String, _ name: String) -> String {
    folder.utf8.last == slash ? folder + name : "\(folder)/\(name)"
  }

  /// The path without slashes at its end.
  package static func trimmed(_ path: String) -> String {
    var rest = path.utf8[...]
    while rest.count > 1, rest.last == slash { rest = rest.dropLast() }
    return String(Substring(rest))
  }

  /// Whether a path leads to a folder, links followed.
  ///
  /// False where the system will not tell: who opens it as a file then hears why.
  package static func isFolder(_ path: String) -> Bool {
    (try? FileKind(at: path)) == .directory
  }

  /// Whether anything of that name is there, a link that leads nowhere included.
  ///
  /// True where the system will not tell: who opens it then hears why.
  package static func exists(_ path: String) -> Bool {
    do throws(PeftoolError) {
      return try FileKind(at: path, followingLinks: false) != nil
    } catch {
      return true
    }
  }

  /// Whether `path` leads to the same as `folder`, or into it.
  ///
  /// False where `folder` is not there.
  package static func contains(_ folder: String, _ path: String) -> Bool {
    guard let wanted = identity(folder) else { return false }
    if identity(path) == wanted { return true }
    // realpath gives memory of its own, or NULL.
    guard let real = unsafe realpath(parent(of: path), nil) else { return false }
    var place = unsafe String(cString: real)
    unsafe free(real)
    while identity(place) != wanted {
      if place == "/" { return false }
      place = parent(of: place)
    }
    return true
  }

  private static func identity(_ path: String) -> [UInt]? {
    var status = stat()
    // stat fills the one struct that it is given.
    guard unsafe stat(path, &status) == 0 else { return nil }
    return [UInt(status.st_dev), UInt(status.st_ino)]
  }

  /// The names in a folder, without `.` and `..`, in order of their bytes.
  ///
  /// One that is no UTF-8 is made text with U+FFFD in it, which leads to no file.
  /// - Throws: `io` where it cannot be read.
  package static func names(in path: String) throws(PeftoolError) -> [String] {
    try entries(of: Array(path.utf8CString)).map(text)
      .sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// The names in a folder, without `.` and `..`, as the bytes that they are.
  private static func entries(of path: [CChar]) throws(PeftoolError) -> [[CChar]] {
    // A path ends with a zero byte here, as the system's calls want it.
    var opened = unsafe opendir(path)
    while unsafe opened == nil && errno == EINTR { unsafe opened = opendir(path) }
    guard let stream = unsafe opened else {
      throw .system("cannot read the folder", path: text(path))
    }
    // The stream is closed once, after the last readdir.
    defer { unsafe closedir(stream) }
    var names: [[CChar]] = []
    while true {
      errno = 0
      guard let entry = unsafe readdir(stream) else { break }
      // d_name ends with a zero byte; the entry is valid until the next readdir.
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        let start = unsafe UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self)
        return unsafe Array(UnsafeBufferPointer(start: start, count: strlen(start) + 1))
      }
      if ![".", ".."].contains(text(name)) { names.append(name) }
    }
    guard errno == 0 else { throw .system("cannot read the folder", path: text(path)) }
    return names
  }

  /// A path's bytes as text, with U+FFFD for those that are no UTF-8.
  private static func text(_ path: [CChar]) -> String {
    String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Brings what has been renamed or removed in a folder to the disk.
  ///
  /// - Throws: `io`.
  package static func sync(_ path: String) throws(PeftoolError) {
    let folder = try systemCall("cannot open", path: path) {
      unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    }
    defer { close(folder) }
    try systemCall("cannot write to the disk", path: path) { fsync(folder) }
  }

  /// The bytes that this user may still write into a folder's file system; nil where the system does
  /// not tell.
  package static func freeByteCount(at path: String) -> Int? {
    var facts = statvfs()
    // It writes the struct that it is given, and reads the path until its end.
    guard unsafe statvfs(path, &facts) == 0 else { return nil }
    let (bytes, isTooMuch) = Int(clamping: facts.f_bavail)
      .multipliedReportingOverflow(by: Int(clamping: facts.f_frsize))
    return isTooMuch ? .max : bytes
  }

  /// Removes a file, a link, or a folder with all that is in it; what is not there is no error.
  package static func remove(_ path: String) throws(PeftoolError) {
    // Folders are removed after what they hold: each is pushed again, marked, before its entries.
    // A name need not be UTF-8, and as text it would be another: paths are bytes here.
    var stack = [(path: Array(path.utf8CString), isEmpty: false)]
    while let (path, isEmpty) = stack.popLast() {
      let result = uninterrupted { unsafe isEmpty ? rmdir(path) : unlink(path) }
      if result == 0 { continue }
      switch errno {
      case ENOENT: continue
      case EISDIR where !isEmpty, EPERM where !isEmpty:
        // To read it takes a descriptor, of which none may be left: an empty folder needs none.
        if uninterrupted({ unsafe rmdir(path) }) == 0 { continue }
        stack.append((path, true))
        for name in try entries(of: path) {
          stack.append((path.dropLast() + [CChar(bitPattern: slash)] + name, false))
        }
      default: throw .system("cannot remove it", path: text(path))
      }
    }
  }
}
