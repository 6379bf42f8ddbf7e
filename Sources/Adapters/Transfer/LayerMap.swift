import JSON

/// Which layer of a model stands for each of another that has more of them or fewer:
/// l_s = l_t·(Λ_s − 1) / (Λ_t − 1), rounded, halves up, so that the first stands for the first and the
/// last for the last.
struct LayerMap: Sendable {
  /// For each layer of the new model that of the old.
  let sources: [Int]

  /// For models of so many layers.
  init(from sourceCount: Int, to targetCount: Int) {
    precondition(sourceCount > 0 && targetCount > 0, "a layer at least")
    sources = (0..<targetCount).map { layer in
      targetCount == 1
        ? 0 : (2 * layer * (sourceCount - 1) + targetCount - 1) / (2 * (targetCount - 1))
    }
  }

  /// The layers that stand for none.
  func unused(of sourceCount: Int) -> [Int] {
    let used = Set(sources)
    return (0..<sourceCount).filter { !used.contains($0) }
  }
}

extension LayerPositions {
  /// A module's path in another layer; as it is where it lies in none.
  static func path(_ path: String, inLayer index: Int) -> String {
    guard let layer = layer(of: path) else { return path }
    let head = layer.stack.string.isEmpty ? "" : layer.stack.string + "."
    let rest = path.dropFirst(head.count)
    return head + String(index) + rest[(rest.firstIndex(of: ".") ?? rest.endIndex)...]
  }
}
