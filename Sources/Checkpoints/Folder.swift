package import Files
import Glibc

/// Paths and listings of folders.
package enum Folder {
  /// The folder that a path's last component lies in, `.` for a bare name.
  package static func parent(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// A path's last component; slashes at the end do not count.
  package static func name(of path: String) -> String {
    let parts = path.utf8.split(separator: UInt8(ascii: "/"))
    return parts.last.flatMap { String($0) } ?? path
  }

  /// The path of a file in a folder.
  package static func path(_ folder: String, _ name: String) -> String {
    folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
  }

  /// Whether a path leads to a folder, links followed; false where nothing is there.
  package static func isFolder(_ path: String) -> Bool { mode(path) == S_IFDIR }

  /// Whether a path leads to a regular file, links followed; false where nothing is there.
  package static func isFile(_ path: String) -> Bool { mode(path) == S_IFREG }

  /// Whether anything of that name is there, a link that leads nowhere included.
  package static func exists(_ path: String) -> Bool {
    var status = stat()
    // lstat fills the one struct that it is given.
    return unsafe lstat(path, &status) == 0
  }

  private static func mode(_ path: String) -> mode_t {
    var status = stat()
    // stat fills the one struct that it is given.
    return unsafe stat(path, &status) == 0 ? status.st_mode & S_IFMT : 0
  }

  /// The names in a folder, without `.` and `..`, in order of their bytes.
  ///
  /// - Throws: `io` where it cannot be read.
  package static func names(in path: String) throws(PeftoolError) -> [String] {
    guard let stream = unsafe opendir(path) else {
      throw .system("cannot read the folder", path: path)
    }
    // The stream is closed once, after the last readdir.
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = unsafe readdir(stream) else { break }
      // d_name ends with a zero byte; the entry is valid until the next readdir.
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
      }
      if name != ".", name != ".." { names.append(name) }
    }
    guard errno == 0 else { throw .system("cannot read the folder", path: path) }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }
}
