import CLinux
import Glibc

/// The machine's memory.
package enum SystemMemory {
  /// The bytes that a program can have without others being put aside: `MemAvailable` of
  /// /proc/meminfo, or what a container's limit leaves if that is less; nil where the system does
  /// not tell.
  package static var availableByteCount: Int? {
    let free = value(of: "MemAvailable:", in: "/proc/meminfo")
    // cgroup v2, as a container sees its own.
    let group = "/sys/fs/cgroup/memory."
    guard let limit = number(in: group + "max"), let used = number(in: group + "current") else {
      return free
    }
    return min(free ?? .max, max(0, limit - used))
  }

  /// The bytes that this process has in memory: `VmRSS` of /proc/self/status; nil where the system
  /// does not tell.
  package static var residentByteCount: Int? { value(of: "VmRSS:", in: "/proc/self/status") }

  /// Has every large piece of memory mapped by itself, so that it is the system's again once it is
  /// freed.
  ///
  /// glibc would raise what it calls large with each piece that is freed, up to 32 MiB, and take the
  /// later ones from a heap that seldom shrinks: half a gigabyte of it lay idle where a model of 2.2
  /// was quantized as it was read.
  package static func takeBackWhatIsFreed() { pef_map_large_memory(1 << 20) }

  private static func value(of key: String, in path: String) -> Int? {
    for line in (text(path) ?? "").split(separator: "\n") {
      let words = line.split { $0 == " " || $0 == "\t" }
      if words.count == 3, words[0] == key { return Int(words[1]).map { $0 * 1024 } }
    }
    return nil
  }

  /// The number that a file holds, and nothing else.
  private static func number(in path: String) -> Int? {
    text(path)?.split(separator: "\n").first.flatMap { Int($0) }
  }

  /// The beginning of a file; nil where it cannot be read.
  private static func text(_ path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    // The call writes no more than the array has.
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe read(descriptor, $0.baseAddress, $0.count)
    }
    return count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
  }
}
