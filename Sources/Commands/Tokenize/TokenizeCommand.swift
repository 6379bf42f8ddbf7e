import ArgumentParser
import Files
import JSON
import Tokenizers

/// `peftool tokenize`: text to tokens and back.
struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize",
    abstract: "Shows the tokens that a model's tokenizer makes of a text, or the text of tokens.",
    discussion: """
      Prints the numbers of the tokens on one line, as MODEL's tokenizer.json says: those that the \
      library tokenizers gives, with the special tokens around the text that the file asks for. \
      Without TEXT, or where it is -, standard input is the text, all of it; it has to be UTF-8.

        peftool tokenize tokenizer.json 'The quick brown fox'
        peftool tokenize tokenizer.json --lines < prompts.txt
        peftool tokenize tokenizer.json --decode '432 608 302'

      --decode: TEXT is numbers with white space between them, and their text is printed as it is, \
      without a line's end after it unless to a terminal. With --no-special-tokens special tokens \
      are left out.

      --lines and --null: each line of standard input, or each text with a byte of zero after it, \
      is a text, or with --decode numbers, of its own. Each has its own line of numbers, or its own \
      text with the same end as it came with.

      Of tokenizers the kind BPE is known, which Llama, Mistral, Qwen, SmolLM, GPT-2 and their like \
      have: Formats/tokenizer-json.md. What is not known is refused by name, never passed over. \
      Truncation and padding that the file may speak of are not done.

      Exit status: 0 done; 2 not possible. Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "A tokenizer.json, or a folder with one.", completion: .file())
  var model: String

  @Argument(help: "The text; with --decode numbers of tokens.")
  var text: String?

  @Flag(help: "Make text of tokens.")
  var decode = false

  @Flag(help: "No special tokens around the text; with --decode none in it.")
  var noSpecialTokens = false

  @Flag(help: "What each text of standard input ends with, where there are several.")
  var ends: TextEnd?

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func validate() throws {
    if ends != nil, text != nil, text != "-" {
      throw ValidationError("--lines and --null are for standard input, not for TEXT")
    }
  }

  func run() throws {
    let path = Folder.isFolder(model) ? Folder.path(model, "tokenizer.json") : model
    let tokenizer = try Tokenizer(contentsOf: path)
    var output = StandardOutput()
    var rows: [JSON] = []
    try forEachText { (bytes) throws(PeftoolError) in
      let ids =
        decode
        ? try Self.numbers(bytes)
        : try tokenizer.encode(bytes: bytes, addingSpecialTokens: !noSpecialTokens)
      let text =
        decode
        ? try tokenizer.decode(ids, skippingSpecialTokens: noSpecialTokens)
        : String(decoding: bytes, as: UTF8.self)
      if json {
        rows.append(Self.row(text, ids, tokenizer))
      } else if decode {
        try output.write(text)
        try output.write(ends?.text ?? (StandardOutput.terminalWidth == nil ? "" : "\n"))
      } else {
        try output.write(ids.map(String.init).joined(separator: " ") + "\n")
      }
    }
    if json {
      let report = JSON.object([.init("path", .string(path)), .init("texts", .array(rows))])
      try output.write(report.text(indent: 2) + "\n")
    }
    try output.finish()
  }

  private var isFromInput: Bool { text == nil || text == "-" }

  /// Calls `body` with each text; what it throws has the place in standard input added.
  private func forEachText(
    _ body: ([UInt8]) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    if let text, !isFromInput { return try body(Array(text.utf8)) }
    let bytes = try StandardInput.bytes(atMost: Tokenizer.maximumTextByteCount)
    guard let ends else {
      do throws(PeftoolError) {
        return try body(bytes)
      } catch {
        throw error.at(path: StandardInput.name)
      }
    }
    let texts = bytes.split(separator: ends.byte, omittingEmptySubsequences: false)
      .dropLast(bytes.isEmpty || bytes.last == ends.byte ? 1 : 0)
    for (number, text) in texts.enumerated() {
      do throws(PeftoolError) {
        try body(Array(text))
      } catch {
        // Of standard output it says so itself.
        if error.path != nil { throw error }
        throw PeftoolError(
          error.kind, "\(ends.noun) \(number + 1): \(error.reason)",
          offset: error.offset.map { text.startIndex + $0 }, path: StandardInput.name)
      }
    }
  }

  private static func numbers(_ bytes: [UInt8]) throws(PeftoolError) -> [Int32] {
    var numbers: [Int32] = []
    for word in bytes.split(whereSeparator: Self.isSpace) {
      let text = String(decoding: word, as: UTF8.self)
      guard let number = Int32(text) else {
        throw PeftoolError(.damaged, "'\(text.printable)' is no number of a token")
      }
      numbers.append(number)
    }
    return numbers
  }

  private static func isSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || (0x09...0x0D).contains(byte)
  }

  private static func row(_ text: String, _ ids: [Int32], _ tokenizer: Tokenizer) -> JSON {
    .object([
      .init("text", .string(text)),
      .init("ids", .array(ids.map { .number(Int($0)) })),
      .init("tokens", .array(ids.map { .string(tokenizer.token($0) ?? "") })),
    ])
  }
}

/// What a text of several in one stream ends with.
enum TextEnd: String, EnumerableFlag {
  case lines
  case null

  /// The byte, which is not part of the text.
  var byte: UInt8 { self == .lines ? UInt8(ascii: "\n") : 0 }

  /// What messages call a text.
  var noun: String { self == .lines ? "line" : "text" }

  /// The same as text.
  var text: String { self == .lines ? "\n" : "\0" }

  static func help(for value: TextEnd) -> ArgumentHelp? {
    switch value {
    case .lines: "Each line of standard input is a text of its own."
    case .null: "Each text of standard input ends with a byte of zero."
    }
  }
}
