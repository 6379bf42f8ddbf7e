import Glibc

/// What a path names.
package enum FileKind: Sendable {
  case regular, directory, link, other

  /// The kind, or nil where nothing is there.
  ///
  /// A link is a kind of its own only where links are not followed.
  /// - Throws: `io` where the system will not tell.
  package init?(at path: String, followingLinks: Bool = true) throws(PeftoolError) {
    var status = stat()
    // stat and lstat fill the one struct that they are given.
    let result = uninterrupted {
      unsafe followingLinks ? stat(path, &status) : lstat(path, &status)
    }
    guard result == 0 else {
      if errno == ENOENT || errno == ENOTDIR { return nil }
      throw .system("cannot look at it", path: path)
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: self = .regular
    case S_IFDIR: self = .directory
    case S_IFLNK: self = .link
    default: self = .other
    }
  }
}
