import ArgumentParser
import Files
import Foundation
import JSON
import Models
import Testing

@testable import Commands

private func sample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/\(name)").path
}

@Suite struct FinetuneJobTests {
  private func job(_ options: [String], free: Int?) throws -> FinetuneJob {
    let command = try FinetuneCommand.parse(
      [
        sample("generation/tiny-chat"), "--data", sample("generation/pairs.jsonl"), "-o",
        sample("none"), "--threads", "1",
      ] + options)
    return try FinetuneJob(command, freeByteCount: free)
  }

  @Test func tooLittleMemoryIsSaidBeforeTheStart() throws {
    let error = #expect(throws: PeftoolError.self) {
      try job(["--checkpoint-activations", "off"], free: 1 << 20)
    }
    #expect(error?.kind == .unsupported)
    #expect(error?.reason.hasSuffix("or --checkpoint-activations on takes less") == true)
    let last = #expect(throws: PeftoolError.self) {
      try job(["--checkpoint-activations", "on"], free: 1 << 20)
    }
    #expect(last?.reason.hasSuffix("a smaller --batch-size or --max-length takes less") == true)
  }

  @Test func activationsAreComputedTwiceWhereMemoryIsShort() throws {
    let plenty = try job([], free: 1 << 30).plan
    #expect(plenty.keeping == .everything)
    // More than is needed with them computed twice, less than to keep them.
    let twice = try job(["--checkpoint-activations", "on"], free: nil).plan
    #expect(twice.memory.pass < plenty.memory.pass)
    let free = (twice.memory.pass + plenty.memory.pass) / 2 + plenty.memory.trained
    #expect(try job([], free: free).plan.keeping == .inputs)
    #expect(try job([], free: nil).plan.keeping == .everything)
  }

  /// The optimizer's time comes to that of the passes, and with GaLore that of its subspaces.
  @Test func aDryRunTellsTheTimeOfWholeSteps() throws {
    func plan(_ method: String) throws -> FinetunePlan {
      try job(["--method", method, "--max-steps", "300"], free: nil).measuredPlan()
    }
    let (full, galore) = (try plan("full"), try plan("galore"))
    for plan in [full, galore] {
      #expect(plan.secondsBesidePasses > 0)
      let tokens = try plan.json.double(at: "tokens")
      let passes = 300 * tokens / (try #require(plan.tokensPerSecond))
      let seconds = try plan.json.double(at: "seconds")
      #expect(abs(seconds - passes - plan.secondsBesidePasses) < 1e-6 * seconds)
    }
  }

  /// Three examples are no more rows, whatever is asked for.
  @Test func aBatchIsNoMoreThanThereIs() throws {
    let plan = try job(["--batch-size", "1000000"], free: 1 << 30).plan
    #expect(plan.tokensPerBatch == 3 * plan.longest)
  }
}
