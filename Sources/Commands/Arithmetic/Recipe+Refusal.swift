import Adapters

extension Recipe {
  /// Why what it says does not go together; nil where it does.
  ///
  /// - Parameter name: what the user knows a key by, such as a flag.
  func refusal(_ name: (String) -> String) -> String? {
    let settings = settings
    let method = settings.method
    let here = "\(name("method")) \(method.rawValue)"
    for (key, isGiven, isUsed) in [
      ("density", hasDensity, method.hasDensity),
      ("gamma", gamma != nil, method == .breadcrumbs),
      ("epsilon", epsilon != nil, method == .della),
      ("majority-sign", majority != nil, method.electsSigns),
      ("seed", seed != nil, method.isRandom || method.isDense || method == .svd),
    ] where isGiven && !isUsed {
      return "\(name(key)) does not go with \(here)"
    }
    if method.hasDensity, !hasDensity {
      return "\(here) needs \(name("density")), the share that is kept"
    }
    if method.isApart, rank != nil {
      return "\(here) keeps the rank; peftool resize changes it afterwards"
    }
    // Densities by module are looked at when the modules are known.
    guard method.hasDensity, let value = density?.constant, value < 1 else {
      return nil
    }
    return adapters.contains { $0.density != nil } ? nil : settings.refusal(ofDensity: value)
  }
}
