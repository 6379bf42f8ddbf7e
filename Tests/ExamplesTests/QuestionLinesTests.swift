import Files
import Testing

@testable import Examples

@Suite struct QuestionLinesTests {
  private func questions(_ text: String) throws -> [Question] {
    var lines = QuestionLines(DataInput(Array(text.utf8), path: "q.jsonl"))
    var questions: [Question] = []
    while let question = try lines.next() { questions.append(question) }
    return questions
  }

  private func reason(_ text: String) -> String {
    do {
      return "\(try questions(text))"
    } catch {
      return "\(error)"
    }
  }

  @Test func theAnswerIsAPlaceOrAText() throws {
    let found = try questions(
      """
      {"prompt": "a", "choices": ["x", "y"], "answer": 1, "more": null}

      {"prompt": "", "choices": ["x", "y"], "answer": "x"}
      """)
    #expect(
      found == [
        Question(prompt: "a", choices: ["x", "y"], answer: 1, line: 1),
        Question(prompt: "", choices: ["x", "y"], answer: 0, line: 3),
      ])
  }

  @Test func aFirstLineTellsWhetherTheyAreQuestions() throws {
    func isFirst(_ text: String) throws -> Bool {
      try QuestionLines.isFirst(of: DataInput(Array(text.utf8)))
    }
    #expect(try isFirst("\n{\"choices\": []}\n"))
    #expect(try !isFirst("{\"text\": \"choices\"}\n{\"choices\": []}"))
    #expect(try !isFirst("{"))
    #expect(try !isFirst(""))
  }

  @Test(arguments: [
    (#"{"choices": ["x"], "answer": 0}"#, "prompt"),
    (#"{"prompt": "a", "choices": [], "answer": 0}"#, "choices has 0 entries, expected 1 to 1000"),
    (#"{"prompt": "a", "choices": ["x", ""], "answer": 0}"#, "choices[1] is"),
    (#"{"prompt": "a", "choices": ["x", 2], "answer": 0}"#, "choices[1] is"),
    (#"{"prompt": "a", "choices": ["x"]}"#, "has no answer"),
    (#"{"prompt": "a", "choices": ["x"], "answer": 1}"#, "or its place, 0 to 0"),
    (#"{"prompt": "a", "choices": ["x"], "answer": -1}"#, "or its place, 0 to 0"),
    (#"{"prompt": "a", "choices": ["x"], "answer": "y"}"#, "one of the choices"),
    ("[", "line 1"),
  ])
  func whatIsNoQuestionIsRefused(line: String, expected: String) {
    let found = reason(line)
    #expect(found.hasPrefix("q.jsonl: ") && found.contains("line 1: "), "\(found)")
    #expect(found.contains(expected), "\(found)")
  }

  @Test func aQuestionHasAThousandChoicesAtMost() {
    func line(_ count: Int) -> String {
      let choices = Array(repeating: "\"x\"", count: count).joined(separator: ",")
      return "{\"prompt\": \"a\", \"choices\": [\(choices)], \"answer\": 0}"
    }
    #expect(!reason(line(1000)).contains("expected"))
    #expect(reason(line(1001)).contains("choices has 1001 entries, expected 1 to 1000"))
  }
}
