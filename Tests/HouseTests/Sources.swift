import Foundation

/// The repository's files, as the house rules look at them.
enum Repository {
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// Every Swift file under `Sources`, with its path from there and its lines.
  static func swiftSources() throws -> [(path: String, lines: [String])] {
    let folder = root.appendingPathComponent("Sources")
    let paths = try FileManager.default.subpathsOfDirectory(atPath: folder.path)
    return try paths.filter { $0.hasSuffix(".swift") }.sorted().map { path in
      let text = try String(contentsOf: folder.appendingPathComponent(path), encoding: .utf8)
      return (path, text.components(separatedBy: "\n"))
    }
  }

  /// Names at the top level that are no part of the project: what is built, and version control.
  private static let ignored: Set = [
    ".git", ".swiftpm", ".venv", ".pytest_cache", "Package.resolved",
  ]

  /// The names at the top level, sorted.
  static func topLevel() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: root.path)
      .filter { !ignored.contains($0) && !$0.hasPrefix(".build") }.sorted()
  }

  /// The paths of all files, sorted, without what running a script leaves.
  static func files() throws -> [String] {
    try topLevel().flatMap { name in
      let path = root.appendingPathComponent(name).path
      let below = try? FileManager.default.subpathsOfDirectory(atPath: path)
      return below.map { $0.map { "\(name)/\($0)" } } ?? [name]
    }.filter { !$0.contains("__pycache__") && !isFolder($0) }.sorted()
  }

  private static func isFolder(_ path: String) -> Bool {
    var isFolder: ObjCBool = false
    let full = root.appendingPathComponent(path).path
    let exists = FileManager.default.fileExists(atPath: full, isDirectory: &isFolder)
    return exists && isFolder.boolValue
  }

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }
}
