import Examples
import Files
import Foundation
import JSON

/// The path of a sample of data.
func dataSample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/data/\(name)").path
}

/// The byte-level BPE of `Samples/data/tokenizer.json`, done plainly.
struct SmallTokenizer: Sendable {
  private let ids: [String: Int32]
  private let ranks: [[Int32]: (rank: Int, merged: Int32)]
  private let special: [(text: String, id: Int32)]
  private let bytes: [Int32]

  init() throws {
    let file = try JSON(opening: dataSample("tokenizer.json"))
    var ids: [String: Int32] = [:]
    for member in try file.object(at: "model", "vocab") {
      ids[member.key] = Int32(try member.value.int(named: member.key))
    }
    var ranks: [[Int32]: (Int, Int32)] = [:]
    for (rank, merge) in try file.array(at: "model", "merges").enumerated() {
      let pair = try merge.array(named: "merge").map { try $0.string(named: "merge") }
      ranks[pair.compactMap { ids[$0] }] = (rank, ids[pair[0] + pair[1]] ?? -1)
    }
    special = try file.array(at: "added_tokens").map {
      (try $0.string(at: "content"), Int32(try $0.int(at: "id")))
    }
    // GPT-2's characters for bytes: those that print stand for themselves, the others follow at 256.
    var next: UInt32 = 256
    bytes = (0..<256).map { (byte: UInt32) -> Int32 in
      let prints = (33...126).contains(byte) || (161...172).contains(byte) || byte >= 174
      if !prints { next += 1 }
      return ids[String(Character(Unicode.Scalar(prints ? byte : next - 1) ?? "?"))] ?? -1
    }
    (self.ids, self.ranks) = (ids, ranks)
  }

  func encode(_ text: String, _ addingSpecialTokens: Bool) -> [Int32] {
    var found: [Int32] = addingSpecialTokens ? [0] : []
    var rest = Array(text.utf8)[...]
    var plain: [Int32] = []
    while let byte = rest.first {
      if let (token, id) = special.first(where: { rest.starts(with: $0.text.utf8) }) {
        found += merged(plain) + [id]
        plain = []
        rest = rest.dropFirst(token.utf8.count)
      } else {
        plain.append(bytes[Int(byte)])
        rest = rest.dropFirst()
      }
    }
    return found + merged(plain)
  }

  private func merged(_ plain: [Int32]) -> [Int32] {
    var tokens = plain
    while true {
      let pairs = tokens.indices.dropLast().compactMap { place in
        ranks[[tokens[place], tokens[place + 1]]].map {
          (place: place, rank: $0.rank, id: $0.merged)
        }
      }
      guard let best = pairs.min(by: { ($0.rank, $0.place) < ($1.rank, $1.place) }) else {
        return tokens
      }
      tokens.replaceSubrange(best.place...best.place + 1, with: [best.id])
    }
  }

  var vocabularySize: Int { ids.count }

  /// How many bytes a token stands for.
  func byteCount(_ id: Int32) -> Int? {
    special.first { $0.id == id }?.text.utf8.count ?? ids.first { $0.value == id }?.key.count
  }

  func encoder(eos: String? = "</s>") throws -> TokenEncoder {
    try TokenEncoder(eos: eos.map { ($0, 1) }, vocabularySize: vocabularySize) { encode($0, $1) }
  }
}

/// What makes examples of the samples' tokens.
func exampleTokenizer(
  _ template: String? = "chatml", maximum: Int = 1 << 20, truncates: Bool = false,
  trainsOnPrompt: Bool = false, eos: String? = "</s>"
) throws -> ExampleTokenizer {
  ExampleTokenizer(
    encoder: try SmallTokenizer().encoder(eos: eos),
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
