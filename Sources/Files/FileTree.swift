import Glibc

/// What a path names, symbolic links followed.
package enum FileKind: Sendable {
  case regular, directory, other

  /// The kind, or nil where nothing is there.
  ///
  /// - Throws: `io` where the system will not tell.
  package init?(at path: String, followingLinks: Bool = true) throws(PeftoolError) {
    var status = stat()
    // stat and lstat fill the one struct that they are given.
    while unsafe (followingLinks ? stat(path, &status) : lstat(path, &status)) != 0 {
      switch errno {
      case EINTR: continue
      case ENOENT, ENOTDIR: return nil
      default: throw .system("cannot look at it", path: path)
      }
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: self = .regular
    case S_IFDIR: self = .directory
    default: self = .other
    }
  }
}

/// The folder's entries but `.` and `..`, sorted by their bytes.
///
/// - Throws: `io` where the folder cannot be read.
package func directoryEntries(_ path: String) throws(PeftoolError) -> [String] {
  guard let directory = unsafe opendir(path) else {
    throw .system("cannot read the folder", path: path)
  }
  defer { unsafe closedir(directory) }
  var names: [String] = []
  errno = 0
  while let entry = unsafe readdir(directory) {
    // d_name ends in a NUL inside the entry, which lives until the next readdir.
    let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
      unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
    }
    if name != ".", name != ".." { names.append(name) }
    errno = 0
  }
  guard errno == 0 else { throw .system("cannot read the folder", path: path) }
  return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}

/// Removes a file, a link, or a folder with all that is in it; what is not there is no error.
func removeTree(_ path: String) throws(PeftoolError) {
  // Folders are removed after what they hold: each is pushed again, marked, before its entries.
  var stack = [(path: path, isEmpty: false)]
  while let (path, isEmpty) = stack.popLast() {
    if unsafe isEmpty ? rmdir(path) == 0 : unlink(path) == 0 { continue }
    switch errno {
    case ENOENT: continue
    case EISDIR where !isEmpty, EPERM where !isEmpty:
      stack.append((path, true))
      for name in try directoryEntries(path) { stack.append(("\(path)/\(name)", false)) }
    default: throw .system("cannot remove it", path: path)
    }
  }
}

extension String {
  /// The path without slashes at its end.
  package var trimmingTrailingSlashes: String {
    var path = self[...]
    while path.count > 1, path.last == "/" { path = path.dropLast() }
    return String(path)
  }

  /// The folder that holds the path's last component: `.` for a bare name.
  package var parentPath: String {
    guard let slash = lastIndex(of: "/") else { return "." }
    return slash == startIndex ? "/" : String(self[..<slash])
  }

  /// The path's last component.
  package var lastComponent: String {
    guard let slash = lastIndex(of: "/") else { return self }
    return String(self[index(after: slash)...])
  }
}
