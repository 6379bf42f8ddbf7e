import Examples
import Files
import Foundation
import Testing
import Tokenizers

/// The path of a sample of data.
func dataSample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/data/\(name)").path
}

/// The byte-level BPE of `Samples/data/tokenizer.json`.
let smallTokenizer: Tokenizer? = try? Tokenizer(contentsOf: dataSample("tokenizer.json"))

/// What makes examples of the samples' tokens.
func exampleTokenizer(
  _ template: String? = "chatml", maximum: Int = 1 << 20, truncates: Bool = false,
  trainsOnPrompt: Bool = false, eos: String? = "</s>"
) throws -> ExampleTokenizer {
  ExampleTokenizer(
    encoder: try TokenEncoder(#require(smallTokenizer), eos: eos),
    template: try template.map { (name) throws(PeftoolError) in try ChatTemplate(named: name) },
    tokens: SpecialTokens(bos: "<s>", eos: eos), trainsOnPrompt: trainsOnPrompt,
    length: .init(maximum: maximum, truncates: truncates))
}

/// An example's tokens with their labels.
struct Labelled: Equatable {
  var ids: [Int32]
  var labels: [Int32]
}

extension TokenExamples {
  /// Its examples one by one.
  var all: [Labelled] {
    (0..<count).map { Labelled(ids: Array(ids[range($0)]), labels: Array(labels[range($0)])) }
  }

  /// The examples of a text as it might stand in a file.
  static func read(
    _ text: String, _ format: DataFormat = .jsonl, _ tokenizer: ExampleTokenizer
  ) throws -> TokenExamples {
    var examples = TokenExamples()
    try examples.append(
      DataInput(Array(text.utf8), path: "f"), format: format, tokenizer: tokenizer)
    return examples
  }
}
