import Foundation

/// A fresh folder in which the real binary runs; gone when the value goes.
struct Workplace: ~Copyable {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("peftool-test-\(UUID().uuidString)").resolvingSymlinksInPath()
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
  }

  deinit {
    try? FileManager.default.removeItem(at: folder)
  }

  /// The path of something in the folder, whether it is there or not.
  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  /// The bytes of a file in the folder.
  func bytes(_ name: String) throws -> Data {
    try Data(contentsOf: folder.appendingPathComponent(name))
  }

  /// Writes a file; folders on its way are made.
  func write(_ name: String, _ content: Data) throws {
    let file = folder.appendingPathComponent(name)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try content.write(to: file)
  }

  func write(_ name: String, _ text: String) throws {
    try write(name, Data(text.utf8))
  }

  /// What lies in the folder, hidden files too.
  var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() }
  }

  /// Runs peftool here.
  func run(_ arguments: String..., input: Data = Data()) throws -> Run {
    try run(arguments, input: input)
  }

  /// Runs peftool here.
  func run(_ arguments: [String], input: Data = Data()) throws -> Run {
    try Run.program(Run.peftool, arguments, in: folder, input: input)
  }

  /// Runs a line of bash here, in which `peftool` is the binary under test.
  func shell(_ line: String) throws -> Run {
    let prologue = "peftool() { command '\(Run.peftool)' \"$@\"; }; "
    return try Run.program("/bin/bash", ["-c", prologue + line], in: folder, input: Data())
  }
}

/// How a run of a program ended.
struct Run {
  /// As a shell shows it: 128 + the signal's number where one ended it.
  let status: Int32
  let output: Data
  /// What it wrote to standard error.
  let errors: String

  /// What it wrote to standard output.
  var text: String { String(decoding: output, as: UTF8.self) }
  /// The same with its lines joined, as where a note is folded depends on the length of its paths.
  var unfoldedText: String { text.replacing(#/\n */#, with: " ") }

  /// The binary under test: `$PEFTOOL`, or the one built with the tests.
  static let peftool: String = {
    if let path = ProcessInfo.processInfo.environment["PEFTOOL"] { return path }
    let tests = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    return tests.deletingLastPathComponent().appendingPathComponent("peftool").path
  }()

  /// Runs a program to its end.
  static func program(_ path: String, _ arguments: [String], in folder: URL, input: Data) throws
    -> Run
  {
    // Files, not pipes: nobody has to read them while the program runs.
    let streams = try ["in", "out", "err"].map { name in
      let file = FileManager.default.temporaryDirectory
        .appendingPathComponent("peftool-\(name)-\(UUID().uuidString)")
      try (name == "in" ? input : Data()).write(to: file)
      return file
    }
    defer { for file in streams { try? FileManager.default.removeItem(at: file) } }

    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.currentDirectoryURL = folder
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["LC_ALL": "C.UTF-8", "COLUMNS": "80"]) { $1 }
    process.standardInput = try FileHandle(forReadingFrom: streams[0])
    process.standardOutput = try FileHandle(forWritingTo: streams[1])
    process.standardError = try FileHandle(forWritingTo: streams[2])
    try process.run()
    process.waitUntilExit()
    let isKilled = process.terminationReason == .uncaughtSignal
    return Run(
      status: process.terminationStatus + (isKilled ? 128 : 0),
      output: try Data(contentsOf: streams[1]),
      errors: String(decoding: try Data(contentsOf: streams[2]), as: UTF8.self))
  }
}

/// The repository that the tests were built from.
enum Repository {
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  /// The path of a sample, such as `bases/llama-f32`.
  static func sample(_ name: String) -> String {
    root.appendingPathComponent("Samples").appendingPathComponent(name).path
  }
}
