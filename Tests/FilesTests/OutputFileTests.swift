@testable import Files
import Dispatch
import Fixtures
import Foundation
import Synchronization
import Testing

@Suite struct OutputFileTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// A file of `count` bytes that a test can tell the order of.
  private func input(_ name: String, count: Int) throws -> InputFile {
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    return try InputFile(opening: scratch.write(name, bytes))
  }

  private func withOutput(
    byteCount: Int, _ body: (OutputFile) throws -> Void
  ) throws -> [UInt8] {
    var output = try StagedOutput(.file, at: scratch.path("out"), force: false)
    try body(output.createFile(byteCount: byteCount))
    try output.commit()
    return try scratch.bytes("out")
  }

  @Test func aFileTakesItsBytesInAnyOrder() throws {
    let bytes = try withOutput(byteCount: 400_000) { file in
      DispatchQueue.concurrentPerform(iterations: 4) { place in
        let part = [UInt8](repeating: UInt8(place), count: 100_000)
        #expect(throws: Never.self) {
          try file.write(part.span.bytes, at: (3 - place) * 100_000)
        }
      }
    }
    let expected = [3, 2, 1, 0].flatMap { [UInt8](repeating: $0, count: 100_000) }
    #expect(bytes == expected)
  }

  @Test(arguments: [0, 1, 4095, 4096, 1_000_001, (8 << 20) + 5])
  func aRangeOfAnotherFileIsCopied(count: Int) throws {
    let source = try input("in", count: count + 10)
    let bytes = try withOutput(byteCount: count + 3) { file in
      try file.copy(7..<7 + count, of: source, to: 3)
    }
    #expect(try bytes == [0, 0, 0] + source.bytes(7..<7 + count))
  }

  @Test(.enabled(if: FileManager.default.isWritableFile(atPath: "/dev/shm")))
  func aCopyFromAnotherFileSystemIsTheSame() throws {
    let path = "/dev/shm/peftool-test-\(UUID().uuidString)"
    try Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 / 7) })
      .write(to: URL(fileURLWithPath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    let source = try InputFile(opening: path)
    let bytes = try withOutput(byteCount: 2_999_999) { file in
      try file.copy(1..<3_000_000, of: source, to: 0)
    }
    #expect(try bytes == source.bytes(1..<3_000_000))
  }

  @Test func aCopyOfAFileThatWasCutShortIsAnError() throws {
    let source = try input("in", count: 100)
    truncate(scratch.path("in"), 60)
    #expect(
      throws: PeftoolError(
        .damaged, "the file ends here, 30 bytes short; it was changed while it was read",
        offset: 60, path: scratch.path("in"))
    ) { try withOutput(byteCount: 90) { try $0.copy(0..<90, of: source, to: 0) } }
    #expect(try scratch.names() == ["in"])
  }
}

@Suite struct StreamTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// A stream into a file of the scratch folder, which the operating system closes at the end.
  private func stream(_ flags: Int32 = O_WRONLY) throws -> OutputFile {
    let descriptor = open(try scratch.write("stream", ""), flags | O_APPEND | O_CLOEXEC)
    try #require(descriptor >= 0)
    return OutputFile(descriptor: descriptor, path: "standard output", isStream: true)
  }

  /// Does two things in two threads, as Dispatch would not promise, and gives their errors.
  private func both(
    _ first: @escaping @Sendable () throws(PeftoolError) -> Void,
    _ second: @escaping @Sendable () throws(PeftoolError) -> Void
  ) -> [PeftoolError?] {
    let errors = Mutex<[PeftoolError?]>([nil, nil])
    let group = DispatchGroup()
    for (place, body) in [first, second].enumerated() {
      group.enter()
      Thread.detachNewThread {
        do throws(PeftoolError) {
          try body()
        } catch {
          errors.withLock { $0[place] = error }
        }
        group.leave()
      }
    }
    group.wait()
    return errors.withLock { $0 }
  }

  @Test func writersWaitForTheirTurn() throws {
    let stream = try stream()
    @Sendable func write(partsFrom first: Int) throws(PeftoolError) {
      for part in stride(from: first, to: 20, by: 2) {
        // The odd parts are ready before those that come first.
        if first == 0 { usleep(1000) }
        let bytes = [UInt8](repeating: UInt8(ascii: "a") + UInt8(part), count: part + 1)
        try stream.write(bytes.span.bytes, at: part * (part + 1) / 2)
      }
    }
    let errors = both(
      { () throws(PeftoolError) in try write(partsFrom: 0) },
      { () throws(PeftoolError) in try write(partsFrom: 1) })
    #expect(errors == [nil, nil])
    let expected = (0..<20).flatMap { part in
      [UInt8](repeating: UInt8(ascii: "a") + UInt8(part), count: part + 1)
    }
    #expect(try scratch.bytes("stream") == expected)
  }

  @Test func nothingWaitsForATurnOfNoBytes() throws {
    let stream = try stream()
    try stream.write(([1, 2] as [UInt8]).span.bytes, at: 0)
    try stream.write([UInt8]().span.bytes, at: 0)
    try stream.write([UInt8]().span.bytes, at: 100)
    try stream.write(([3] as [UInt8]).span.bytes, at: 2)
    #expect(try scratch.bytes("stream") == [1, 2, 3])
  }

  @Test func abandoningLetsWaitersGo() throws {
    let stream = try stream()
    let errors = both(
      { () throws(PeftoolError) in try stream.write(([1] as [UInt8]).span.bytes, at: 5) },
      { () throws(PeftoolError) in
        usleep(10_000)
        stream.abandon()
      })
    #expect(errors == [PeftoolError(.interrupted, "the stream was given up"), nil])
    #expect(throws: PeftoolError(.interrupted, "the stream was given up")) {
      try stream.write(([1] as [UInt8]).span.bytes, at: 0)
    }
    #expect(try scratch.bytes("stream") == [])
  }

  @Test func aFailedWriteLetsWaitersGo() throws {
    let stream = try stream(O_RDONLY)
    let errors = both(
      { () throws(PeftoolError) in try stream.write(([1] as [UInt8]).span.bytes, at: 5) },
      { () throws(PeftoolError) in
        usleep(10_000)
        try stream.write(([1] as [UInt8]).span.bytes, at: 0)
      })
    #expect(
      errors == [
        PeftoolError(.interrupted, "the stream was given up"),
        PeftoolError(.io, "cannot write: Bad file descriptor", path: "standard output"),
      ])
  }

  @Test func aCopyIntoAStreamHasItsTurn() throws {
    let stream = try stream()
    let source = try InputFile(
      opening: scratch.write("in", (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 / 5) }))
    try stream.write(([9] as [UInt8]).span.bytes, at: 0)
    try stream.copy(1..<3_000_000, of: source, to: 1)
    #expect(try scratch.bytes("stream") == [9] + source.bytes(1..<3_000_000))
  }
}
