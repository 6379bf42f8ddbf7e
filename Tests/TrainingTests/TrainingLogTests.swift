import Files
import Fixtures
import JSON
import Testing

@testable import Training

@Suite struct TrainingLogTests {
  private func entry(_ step: Int) -> JSON { .object([.init("step", .number(step))]) }

  @Test func aRunThatGoesOnDropsWhatComesAgain() throws {
    let scratch = try Scratch()
    let log = try TrainingLog(in: scratch.path, upTo: 0)
    for step in 1...4 { try log.append(entry(step)) }
    let again = try TrainingLog(in: scratch.path, upTo: 2)
    try again.append(entry(3))
    #expect(try scratch.text(TrainingLog.name) == "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n")
  }

  @Test func aLineThatAKillHasCutIsDropped() throws {
    let scratch = try Scratch()
    _ = try scratch.write(TrainingLog.name, "{\"step\":1}\n{\"step\":2}\n{\"st")
    _ = try TrainingLog(in: scratch.path, upTo: 2)
    #expect(try scratch.text(TrainingLog.name) == "{\"step\":1}\n{\"step\":2}\n")
  }

  /// Evaluations have lines, too: the fifth line may be of the third step.
  @Test func aLineThatIsDamagedIsNotDropped() throws {
    let scratch = try Scratch()
    _ = try scratch.write(
      TrainingLog.name, "{\"step\":1}\n{\"step\":1}\n{\"step\":2}\n{\"st\n{\"step\":3}\n")
    #expect {
      try TrainingLog(in: scratch.path, upTo: 3)
    } throws: {
      "\($0)".contains("line 4: ")
    }
  }

  @Test(arguments: [0, 5]) func anotherFileIsNoLog(step: Int) throws {
    let scratch = try Scratch()
    let path = try scratch.write(TrainingLog.name, "notes\n")
    #expect {
      try TrainingLog(in: scratch.path, upTo: step)
    } throws: {
      ($0 as? PeftoolError)?.path == path && "\($0)".contains("line 1: ")
    }
  }
}
