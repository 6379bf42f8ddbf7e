package import Files
import Tokenizers

/// What makes tokens with labels of examples.
package struct ExampleTokenizer: Sendable {
  /// How text becomes tokens.
  package let encoder: TokenEncoder
  /// How conversations become text; nil where the model has no known chat template.
  package let template: ChatTemplate?
  /// What is said of messages where there is none.
  private let refusal: PeftoolError
  /// The tokens that the template writes.
  package let tokens: SpecialTokens
  /// What the template is told.
  package let options: ChatTemplate.Options
  /// Whether prompts are learnt, too, and the turns of all.
  package let trainsOnPrompt: Bool
  /// The most tokens of an example, and what is done with longer ones.
  package let length: TokenExamples.Length

  /// What makes tokens of a model's examples; without a template, `refusal` is thrown for messages.
  package init(
    encoder: TokenEncoder, template: ChatTemplate?, withoutTemplate refusal: PeftoolError? = nil,
    tokens: SpecialTokens,
    options: ChatTemplate.Options = .init(), trainsOnPrompt: Bool = false,
    length: TokenExamples.Length
  ) {
    self.encoder = encoder
    self.template = template
    self.refusal =
      refusal
      ?? PeftoolError(
        .different,
        "has messages, and the model has no chat template; --chat-template names one: "
          + ChatTemplate.names.joined(separator: ", "))
    self.tokens = tokens
    self.options = options
    self.trainsOnPrompt = trainsOnPrompt
    self.length = length
  }

  /// An example's tokens, and the label of each.
  ///
  /// As TRL's `SFTTrainer` makes them: a text and a completion are ended with the eos token; prompt
  /// and completion are encoded as one text, in which the tokens that it has in common with the
  /// prompt alone are not learnt; of a conversation the assistant's turns are learnt, with the
  /// tokens that end them. What stands before a text is the tokenizer's matter, and in a
  /// conversation the template's.
  /// - Throws: `different` where no eos token or no chat template is known, as `ChatTemplate`, and
  ///   as the tokenizer.
  package func tokens(
    of content: Example.Content
  ) throws(PeftoolError) -> (ids: [Int32], labels: [Int32]) {
    switch content {
    case .text(let text):
      let ids = try encoder.ended(text)
      return (ids, ids)
    case .completion(let prompt, let completion):
      let ids = try encoder.ended(completion, behind: prompt)
      var labels = ids
      if !trainsOnPrompt {
        let given = commonPrefixCount(try encoder.encode(prompt, true), ids)
        for place in 0..<given { labels[place] = TokenExamples.ignored }
      }
      return (ids, labels)
    case .messages(let messages):
      guard let template else { throw refusal }
      let chat = try template.segments(messages, tokens: tokens, options: options)
      if trainsOnPrompt {
        let ids = try encoder.encode(chat.text, false)
        return (ids, ids)
      }
      let (ids, answers) = try encoder.encode(chat, turnEnd: template.turnEnd(tokens))
      var labels = [Int32](repeating: TokenExamples.ignored, count: ids.count)
      for answer in answers { for place in answer { labels[place] = ids[place] } }
      return (ids, labels)
    }
  }
}

extension TokenExamples {
  /// The most bytes of a plain text, all of which is in memory: what a tokenizer takes.
  package static let maximumTextByteCount = Tokenizer.maximumTextByteCount

  /// Adds all examples of a file, or of standard input.
  ///
  /// - Throws: as the readers of the formats and `ExampleTokenizer.tokens(of:)`, with the file and
  ///   the line; `damaged` where a file has no example.
  package mutating func append(
    _ input: DataInput, format: DataFormat, tokenizer: ExampleTokenizer
  ) throws(PeftoolError) {
    let (before, droppedBefore) = (count, droppedCount)
    switch format {
    case .jsonl:
      var examples = JSONLines(input)
      while let example = try examples.next() { try append(example, input, tokenizer) }
    case .csv:
      var examples = CSVExamples(input)
      while let example = try examples.next() { try append(example, input, tokenizer) }
    case .txt:
      let (bytes, start) = try input.all(limit: Self.maximumTextByteCount)
      do throws(PeftoolError) {
        try bytes.checkUTF8(baseOffset: start)
        if !bytes.isEmpty {
          let ids = try tokenizer.encoder.ended(String(decoding: bytes, as: UTF8.self))
          append(stream: ids, length: tokenizer.length)
        }
      } catch {
        throw error.at(path: input.path)
      }
    case .safetensors:
      throw PeftoolError(
        .unsupported, "numbers of tokens are read from a file and not from a stream",
        path: input.path)
    }
    guard count > before || droppedCount > droppedBefore else {
      throw PeftoolError(.damaged, "has no examples, expected at least one", path: input.path)
    }
  }

  private mutating func append(
    _ example: Example, _ input: DataInput, _ tokenizer: ExampleTokenizer
  ) throws(PeftoolError) {
    do throws(PeftoolError) {
      let (ids, labels) = try tokenizer.tokens(of: example.content)
      try append(ids, labels: labels, length: tokenizer.length)
    } catch {
      throw PeftoolError(error.kind, "line \(example.line): \(error.reason)", path: input.path)
    }
  }
}
