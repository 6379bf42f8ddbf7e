import Files
import JSON

/// Where modules lie along a model's layers, from 0 for the first layer to 1 for the last: mergekit's
/// t, i / (L − 1), and 1 where there is one layer.
///
/// A module's layer is the number behind the first part of its path that is called as stacks of
/// layers are, or else the first number. Each stack, such as those of an encoder and a decoder, has
/// layers of its own. Without a layer an embedding lies at 0 and any other module at 1.
struct LayerPositions: Sendable {
  /// The layers of each stack, by what stands before their numbers.
  private let layerCounts: [ExactName: Int]

  private static let stackNames: Set = ["layers", "layer", "h", "block", "blocks"]
  /// Numbers of more digits are no layers.
  private static let maximumDigitCount = 6

  /// Counts the layers of modules by their paths: to the highest of them, or so many as are said.
  ///
  /// - Throws: `different` where a path lies beyond the layers that are said.
  init(of paths: [String], layerCount: Int?) throws(PeftoolError) {
    var counts: [ExactName: Int] = [:]
    for path in paths {
      guard let layer = Self.layer(of: path) else { continue }
      if let layerCount, layer.index >= layerCount {
        throw PeftoolError(
          .different,
          "layers is \(layerCount), and \(path.printable) lies in layer \(layer.index), from 0 on")
      }
      counts[layer.stack] = layerCount ?? max(counts[layer.stack] ?? 0, layer.index + 1)
    }
    layerCounts = counts
  }

  /// The layers of the longest stack.
  var layerCount: Int { layerCounts.values.max() ?? 0 }

  /// The place of a module.
  func position(of path: String, _ kind: LowRankAdapter.Kind) -> Double {
    guard let layer = Self.layer(of: path), let count = layerCounts[layer.stack] else {
      return kind == .embedding ? 0 : 1
    }
    return count > 1 ? Double(layer.index) / Double(count - 1) : 1
  }

  /// The stack and the number of a module's layer; nil where it has none.
  static func layer(of path: String) -> (stack: ExactName, index: Int)? {
    let parts = path.split(separator: ".", omittingEmptySubsequences: false)
    let numbers = parts.map { part in
      part.count <= maximumDigitCount && part.utf8.allSatisfy { (48...57).contains($0) }
        ? Int(part) : nil
    }
    let places = parts.indices.filter { numbers[$0] != nil }
    let named = places.first { $0 > 0 && stackNames.contains(String(parts[$0 - 1])) }
    guard let place = named ?? places.first, let index = numbers[place] else { return nil }
    return (ExactName(parts[..<place].joined(separator: ".")), index)
  }
}
