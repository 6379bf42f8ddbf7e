/// Where a module stands in a model: its layer, and its path without the layer's number.
package struct ModulePlace: Sendable {
  /// The number of the layer; nil for what is in none.
  package let layer: Int?
  /// What stands before the number: the list of layers.
  package let container: String
  /// What stands behind the number, or the whole path of a module outside of layers.
  package let kind: String

  /// A number larger than this is no layer's, and would make a picture too wide.
  private static let maximumLayerCount = 1000

  /// Takes a path apart at its first number.
  package init(_ module: String) {
    let parts = module.split(separator: ".")
    guard let place = parts.firstIndex(where: { Int($0) != nil }), let number = Int(parts[place]),
      (0..<Self.maximumLayerCount).contains(number)
    else {
      (layer, container, kind) = (nil, "", module)
      return
    }
    layer = number
    container = parts[..<place].joined(separator: ".")
    kind = parts[(place + 1)...].joined(separator: ".")
  }
}
