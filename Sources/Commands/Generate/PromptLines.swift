import Examples
import Files
import JSON
import LinearAlgebra
import Reports

/// Prompts from standard input, a JSON object a line, and a line of JSON in answer to each.
struct PromptLines {
  let choice: AdapterChoice
  let form: PromptForm
  let seed: UInt64
  let team: ThreadTeam
  /// How a model goes on with a text.
  let generation: (LanguageModel) -> TextGeneration

  /// Answers all lines, each as soon as it is there; blank ones are none.
  ///
  /// - Throws: `different` at the end where lines were not answered; `io`.
  func answer() throws(PeftoolError) {
    let input = try DataInput(opening: DataInput.standardInputPath)
    var lines = LineReader(input)
    var (count, faultCount) = (0, 0)
    while let result = try lines.nextResult() {
      if case .success(let line) = result, line.isBlank { continue }
      count += 1
      var answer: [JSON.Member] = [.init("line", .number(lines.number))]
      do throws(PeftoolError) {
        answer += try self.answer(to: result.get())
      } catch {
        faultCount += 1
        answer.append(.init("error", .string("\(error)")))
      }
      try StandardOutput.print(JSON.object(answer).text() + "\n")
    }
    guard faultCount == 0 else {
      throw PeftoolError(
        .different,
        "\(faultCount) of \(count.text(of: "line")) could not be answered: \"error\" there says why",
        path: input.path)
    }
  }

  private func answer(to line: LineReader.Line) throws(PeftoolError) -> [JSON.Member] {
    let prompt = try Prompt(JSON(parsing: line.bytes))
    let language = try choice.language(prompt.adapter)
    let tokens = try form.tokens(of: prompt.text, language)
    let result = try generation(language).run(tokens, team: team) { _ in }
    return [.init("adapter", prompt.adapter.map { .string($0) } ?? .null)]
      + result.members(promptTokenCount: tokens.count, seed: seed)
  }
}

/// What a line asks for.
private struct Prompt {
  let text: String
  /// The name of the adapter; nil for none.
  let adapter: String?

  /// - Throws: `damaged` for what is no object with a prompt, and for other members: what they ask
  ///   for would not be done.
  init(_ json: JSON) throws(PeftoolError) {
    for member in try json.object(named: "the line")
    where !["prompt", "adapter"].contains(member.key) {
      throw PeftoolError(
        .damaged, "\"\(member.key.printable)\" is unknown, expected \"prompt\" and \"adapter\"")
    }
    text = try json.string(at: "prompt")
    adapter =
      switch json["adapter"] {
      case nil, .null: nil
      case let value?: try value.string(named: "adapter")
      }
  }
}
