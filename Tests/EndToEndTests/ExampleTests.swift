import Foundation
import Testing

/// A command that a document shows, with what it prints.
struct Example: Sendable, CustomTestStringConvertible {
  var command: String
  /// `…` stands for anything, also for several lines.
  var output: String

  var testDescription: String { command }

  /// The examples of a document: blocks marked `console`, a command after each `$ `, which goes on
  /// after a line that ends in `\`.
  static func all(in markdown: String) -> [Example] {
    var examples: [Example] = []
    var isInside = false
    for line in markdown.components(separatedBy: "\n") {
      if line.hasPrefix("```") {
        isInside = line == "```console"
      } else if isInside, line.hasPrefix("$ ") {
        examples.append(Example(command: String(line.dropFirst(2)), output: ""))
      } else if isInside, let last = examples.indices.last {
        if examples[last].command.hasSuffix("\\") {
          examples[last].command += "\n" + line
        } else {
          examples[last].output += line + "\n"
        }
      }
    }
    return examples
  }

  /// Whether a command printed what the document shows, which ends its line as a terminal does.
  func matches(_ printed: String) -> Bool {
    var rest = Substring(printed.isEmpty || printed.hasSuffix("\n") ? printed : printed + "\n")
    var pieces = output.components(separatedBy: "…")[...]
    guard let first = pieces.popFirst(), rest.hasPrefix(first) else { return false }
    rest.removeFirst(first.count)
    guard let last = pieces.popLast() else { return rest.isEmpty }
    for piece in pieces {
      guard let found = rest.range(of: piece) else { return false }
      rest = rest[found.upperBound...]
    }
    return rest.hasSuffix(last)
  }
}

/// The models and adapters that the help speaks of, each with the sample that stands for it.
private let standIns = [
  "Llama-3.2-1B": "bases/llama-bf16",
  "Llama-3.2-3B": "int4/llama", "Llama-3.2-3B-GPTQ": "int4/llama-gptq",
  "my-adapter": "adapters/lora",
  "my-lora": "adapters/lora",
  "my-dora": "adapters/dora",
  "my-loha": "adapters/loha",
  "my-fine-tune": "bases/llama-f32",
  "math": "adapters/task-a",
  "code": "adapters/task-b",
  "a": "adapters/task-a",
  "b": "adapters/task-b",
  "c": "adapters/task-c",
  "lora": "adapters/lora",
  "dora-a": "adapters/dora",
  "dora-b": "adapters/task-dora",
  "model.gguf": "gguf/tiny-llama.gguf",
  "model.safetensors": "bases/llama-f16/model.safetensors",
  "pytorch_model.bin": "torch/zip.pt",
  "merged": "bases/llama-bf16",
  "merged.safetensors": "merged/lora.safetensors",
  "expected": "bases/llama-bf16",
  "quantized": "quantized/llama-nf4-double",
  "tiny-chat": "generation/tiny-chat",
  "SmolLM2-135M": "generation/tiny-chat",
  "train.jsonl": "generation/pairs.jsonl",
  "more.jsonl": "generation/pairs.jsonl",
  "tiny-sailor": "generation/tiny-sailor",
  "story.txt": "generation/story.txt",
  "pairs.jsonl": "generation/pairs.jsonl",
  "questions.jsonl": "generation/questions.jsonl",
  "kohya-adapter.safetensors": "kohya/dora.safetensors",
  "tokenizer.json": "tokenizers/llama3.json",
]

@Suite struct ExampleTests {
  @Test(arguments: ["README.md", "Samples/README.md"])
  func theDocumentShowsWhatHappens(path: String) throws {
    let place = try Workplace()
    try FileManager.default.createSymbolicLink(
      at: place.folder.appendingPathComponent("Samples"),
      withDestinationURL: Repository.root.appendingPathComponent("Samples"))
    // Examples may go on with what those before them wrote.
    for example in Example.all(in: try Repository.text(path)) {
      let run = try place.shell(example.command)
      #expect(run.status == 0, "\(example.command): \(run.errors)")
      #expect(example.matches(run.text), "\(example.command) printed:\n\(run.text)")
    }
  }

  @Test func theHelpShowsWhatWorks() throws {
    let pages = try FileManager.default.contentsOfDirectory(
      at: Repository.root.appendingPathComponent("man"), includingPropertiesForKeys: nil)
    for page in pages where page.pathExtension == "1" {
      let place = try Workplace()
      for (name, sample) in standIns {
        try FileManager.default.copyItem(
          atPath: Repository.sample(sample), toPath: place.path(name))
      }
      try place.write("merge.yaml", "adapters: [{path: math}, {path: code}]")
      try place.write("prompts.txt", "one\ntwo\n")
      try place.write(
        "prompts.jsonl", "{\"prompt\": \"Once\", \"adapter\": \"tiny-sailor\"}\n")
      let text = try String(contentsOf: page, encoding: .utf8)
      // What goes on where a run was broken off would find none here.
      for line in text.components(separatedBy: "\n")
      where line.hasPrefix("  peftool ") && !line.contains(" --resume") {
        if let output = line.firstMatch(of: /[ ]-o ([a-z.]+)/)?.1 {
          try? FileManager.default.removeItem(atPath: place.path(String(output)))
        }
        // 1 where the answer is no.
        let run = try place.shell(line)
        #expect(run.status <= 1, "\(line): \(run.errors)")
      }
    }
  }

  @Test func anExampleMatchesItsOutputOnly() {
    let example = Example(command: "", output: "one…\nthree\n")
    #expect(example.matches("one\ntwo\nthree\n"))
    #expect(!example.matches("one\nthree\nfour\n"))
    #expect(!example.matches("two\nthree\n"))
    #expect(!Example(command: "", output: "one\n").matches("one\ntwo\n"))
    let examples = Example.all(in: "```console\n$ a \\\nb\nc\n```\n$ d\n")
    #expect(examples.map(\.command) == ["a \\\nb"])
    #expect(examples.map(\.output) == ["c\n"])
  }
}
