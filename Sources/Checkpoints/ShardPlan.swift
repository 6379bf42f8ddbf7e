package import Files
package import JSON

/// How tensors are spread over shards, as huggingface_hub's
/// `split_state_dict_into_shards_factory` does it.
package struct ShardPlan: Equatable, Sendable {
  /// For each shard the places of its tensors in the list given, in that order.
  package let shards: [[Int]]
  /// The sum of the tensors' bytes.
  package let totalByteCount: Int

  /// Fills one shard after the other up to a size, in the order given.
  ///
  /// A tensor larger than that gets a shard of its own, which comes before the shard that is being
  /// filled then; so huggingface_hub does.
  package init(byteCounts: [Int], maximumByteCount: Int) {
    var shards: [[Int]] = []
    var current: [Int] = []
    var currentByteCount = 0
    for (place, byteCount) in byteCounts.enumerated() {
      if byteCount > maximumByteCount {
        shards.append([place])
        continue
      }
      // Both are at most the maximum, which is at most 2⁶³ − 1: the difference cannot overflow.
      if currentByteCount > maximumByteCount - byteCount {
        shards.append(current)
        current = []
        currentByteCount = 0
      }
      current.append(place)
      currentByteCount += byteCount
    }
    if !current.isEmpty { shards.append(current) }
    self.shards = shards
    totalByteCount = byteCounts.reduce(0, +)
  }

  /// The name of a model's only file.
  package static let singleName = "model.safetensors"
  /// The name of a model's index.
  package static let indexName = "model.safetensors.index.json"

  /// The shards' file names: `model.safetensors` for one, `model-00001-of-00003.safetensors` for
  /// more.
  package var fileNames: [String] {
    if shards.count == 1 { return [Self.singleName] }
    return (1...max(1, shards.count)).prefix(shards.count).map {
      "model-\(Self.fiveDigits($0))-of-\(Self.fiveDigits(shards.count)).safetensors"
    }
  }

  /// The index file's text, as transformers writes it: `metadata` sorted by key and `weight_map`
  /// by name, with Python's `json.dumps(indent=2, sort_keys=True)` and a line feed.
  ///
  /// - Parameter totalParameters: the model's number of parameters, which transformers 5 writes.
  package func indexText(names: [String], totalParameters: Int?) -> String {
    var metadata: [JSON.Member] = []
    if let totalParameters {
      metadata.append(.init("total_parameters", .number(totalParameters)))
    }
    metadata.append(.init("total_size", .number(totalByteCount)))
    let map = zip(shards, fileNames).flatMap { shard, fileName in
      shard.map { JSON.Member(names[$0], .string(fileName)) }
    }
    return Self.indexText(metadata: .object(metadata), weightMap: map)
  }

  /// The text of an index with the given metadata, as transformers writes it.
  package static func indexText(metadata: JSON, weightMap: [JSON.Member]) -> String {
    JSON.object([.init("metadata", metadata), .init("weight_map", .object(weightMap))])
      .text(indent: 2, sortedKeys: true, isASCII: true) + "\n"
  }

  private static func fiveDigits(_ number: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
  }

  /// A size as users write it, `5GB` or `500 MB`, in bytes; units are powers of 1000, as
  /// huggingface_hub's.
  ///
  /// - Throws: `unsupported` where it is no positive number with one of the units.
  package static func byteCount(_ text: String) throws(PeftoolError) -> Int {
    let units: [(String, Double)] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)]
    let upper = text.uppercased()
    for (unit, factor) in units where upper.hasSuffix(unit) {
      let digits = String(
        upper.dropLast(2).drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
      guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2E }),
        let value = Double(digits), value * factor >= 1, value * factor < 0x1p63
      else { break }
      return Int(value * factor)
    }
    throw PeftoolError(
      .unsupported, "\"\(text.printable)\" is no size, expected one such as 5GB or 500MB")
  }
}
