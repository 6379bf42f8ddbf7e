package import Files
import JSON

/// A question with answers to choose from.
package struct Question: Equatable, Sendable {
  /// What stands before each answer.
  package let prompt: String
  /// The answers.
  package let choices: [String]
  /// The place of the right one among them.
  package let answer: Int
  /// The number of the line, from 1.
  package let line: Int
}

/// Questions of a file with a JSON object a line: `{"prompt", "choices", "answer"}`.
///
/// `answer` is the place of the right choice, from 0, or its text. Other members have no effect;
/// blank lines are none.
package struct QuestionLines {
  private var values: JSONLineReader

  /// The most answers of a question.
  package static let maximumChoiceCount = 1000

  /// The questions of an input from here on.
  package init(_ input: DataInput) {
    values = JSONLineReader(input)
  }

  /// Whether the first line of an input is a question, as far as its members tell.
  ///
  /// - Throws: `io`, `unsupported` for a line that is too long.
  package static func isFirst(of input: DataInput) throws(PeftoolError) -> Bool {
    var lines = LineReader(input)
    while let line = try lines.next() {
      if line.isBlank { continue }
      // What is no JSON is told of by whoever reads the examples.
      guard let json = try? JSON(parsing: line.bytes, limits: JSONLineReader.limits) else {
        return false
      }
      return json["choices"] != nil
    }
    return false
  }

  /// The next question; nil at the end.
  ///
  /// - Throws: `damaged` for a line that is no JSON or no question, with its number and, where it
  ///   breaks JSON's rules, the place of the byte; `unsupported` for a line that is too long or has
  ///   too many values; `io`.
  package mutating func next() throws(PeftoolError) -> Question? {
    try values.next { (json, line) throws(PeftoolError) in try Self.question(json, line) }
  }

  private static func question(_ json: JSON, _ line: Int) throws(PeftoolError) -> Question {
    let prompt = try json.string(at: "prompt")
    var choices: [String] = []
    let values = try json.array(at: "choices")
    guard (1...maximumChoiceCount).contains(values.count) else {
      throw PeftoolError(
        .damaged, "choices has \(values.count) entries, expected 1 to \(maximumChoiceCount)")
    }
    for (place, value) in values.enumerated() {
      let choice = try value.string(named: "choices[\(place)]")
      guard !choice.isEmpty else { throw value.unfit("choices[\(place)]", "a text") }
      choices.append(choice)
    }
    guard let value = json["answer"] else { throw PeftoolError(.damaged, "has no answer") }
    var answer: Int?
    if case .string(let text) = value {
      answer = choices.firstIndex { $0.isExactly(text) }
    } else {
      let place = try value.int(named: "answer")
      answer = choices.indices.contains(place) ? place : nil
    }
    guard let answer else {
      throw value.unfit("answer", "one of the choices, or its place, 0 to \(choices.count - 1)")
    }
    return Question(prompt: prompt, choices: choices, answer: answer, line: line)
  }
}
