import Files
import Glibc
import LinearAlgebra
import Synchronization
import Testing

@Suite struct ForEachBlockTests {
  @Test(arguments: [1, 2, 3, 8], [0, 1, 2, 7, 1000])
  func eachBlockIsTakenOnce(threads: Int, count: Int) throws {
    let taken = Mutex([Int]())
    try forEachBlock(count: count, threads: threads) { (queue, _) throws(PeftoolError) in
      while let block = queue.next() { taken.withLock { $0.append(block) } }
    }
    #expect(taken.withLock { $0.sorted() } == Array(0..<count))
  }

  @Test(arguments: [0, -1]) func withoutThreadsThereIsOne(threads: Int) throws {
    let taken = Mutex([Int]())
    try forEachBlock(count: 5, threads: threads) { (queue, _) throws(PeftoolError) in
      while let block = queue.next() { taken.withLock { $0.append(block) } }
    }
    #expect(taken.withLock { $0 } == [0, 1, 2, 3, 4])
  }

  @Test func oneWorkerTakesThemInOrder() throws {
    let taken = Mutex([Int]())
    try forEachBlock(count: 100, threads: 1) { (queue, _) throws(PeftoolError) in
      while let block = queue.next() { taken.withLock { $0.append(block) } }
    }
    #expect(taken.withLock { $0 } == Array(0..<100))
  }

  @Test(arguments: 0..<50)
  func theErrorIsThatOfTheLowestBlock(round: Int) {
    // Block 3 fails later than block 4.
    #expect(throws: PeftoolError(.io, "block 3")) {
      try forEachBlock(count: 64, threads: 4) { (queue, current) throws(PeftoolError) in
        while let block = queue.next() {
          current = block
          if block == 3 { usleep(200) }
          if block >= 3 { throw PeftoolError(.io, "block \(block)") }
        }
      }
    }
  }

  /// A stream's writer that waits for its turn is told to stop by the one that fails.
  @Test(arguments: [0, 200])
  func theErrorIsNotThatOfWhoWasToldToStop(delay: UInt32) {
    let taken = Atomic(0)
    #expect(throws: PeftoolError(.damaged, "block 1")) {
      try forEachBlock(count: 2, threads: 2) { (queue, current) throws(PeftoolError) in
        while let block = queue.next() {
          current = block
          taken.wrappingAdd(1, ordering: .relaxed)
          while taken.load(ordering: .relaxed) < 2 { sched_yield() }
          usleep(block == 0 ? delay : 200 - delay)
          throw block == 0
            ? PeftoolError(.interrupted, "given up") : PeftoolError(.damaged, "block 1")
        }
      }
    }
  }

  @Test func afterAFailureNoBlockIsHandedOut() {
    let taken = Atomic(0)
    #expect(throws: PeftoolError(.io, "block 0")) {
      try forEachBlock(count: 1_000_000, threads: 2) { (queue, current) throws(PeftoolError) in
        while let block = queue.next() {
          current = block
          taken.wrappingAdd(1, ordering: .relaxed)
          if block == 0 { throw PeftoolError(.io, "block 0") }
          usleep(100)
        }
      }
    }
    #expect(taken.load(ordering: .relaxed) < 10_000)
  }

  @Test func aBlockMayWaitForThoseBeforeIt() throws {
    let done = Atomic(0)
    try forEachBlock(count: 200, threads: 4) { (queue, _) throws(PeftoolError) in
      while let block = queue.next() {
        while done.load(ordering: .acquiring) != block { sched_yield() }
        done.wrappingAdd(1, ordering: .releasing)
      }
    }
    #expect(done.load(ordering: .relaxed) == 200)
  }

  @Test func thereIsAProcessor() {
    #expect(availableProcessorCount >= 1)
    #expect(availableProcessorCount <= sysconf(Int32(_SC_NPROCESSORS_CONF)))
  }
}
