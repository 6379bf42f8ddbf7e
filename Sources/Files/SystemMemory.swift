import Glibc

/// The machine's memory.
package enum SystemMemory {
  /// The bytes that a program can have without others being put aside: `MemAvailable` of
  /// /proc/meminfo; nil where the system does not tell.
  package static var availableByteCount: Int? {
    value(of: "MemAvailable:", in: "/proc/meminfo")
  }

  /// The bytes that this process has in memory: `VmRSS` of /proc/self/status; nil where the system
  /// does not tell.
  package static var residentByteCount: Int? { value(of: "VmRSS:", in: "/proc/self/status") }

  private static func value(of key: String, in path: String) -> Int? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    // The call writes no more than the array has.
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe read(descriptor, $0.baseAddress, $0.count)
    }
    let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    for line in text.split(separator: "\n") {
      let words = line.split { $0 == " " || $0 == "\t" }
      if words.count == 3, words[0] == key { return Int(words[1]).map { $0 * 1024 } }
    }
    return nil
  }
}
