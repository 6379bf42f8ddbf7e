import Files
import Patterns
import YAML

extension RecipeReader {
  /// A weight or a density: a number, numbers along the layers, or either by filter.
  ///
  /// - Parameter range: what each number has to lie in; nil for any.
  /// - Throws: `damaged` with line and key.
  func parameter(
    _ value: YAML, _ key: String, _ range: ClosedRange<Double>?
  ) throws(PeftoolError) -> Parameter {
    guard case .sequence(let elements) = value.content, case .mapping? = elements.first?.content
    else {
      return Parameter([
        Parameter.Rule(
          filter: nil, values: try numbers(value, key, range), origin: origin(value, key))
      ])
    }
    var rules: [Parameter.Rule] = []
    for (place, element) in elements.enumerated() {
      let here = "\(key)[\(place)]"
      let members = try element.mapping(here)
      if let last = rules.last, last.filter == nil {
        throw element.error(
          "\(here) never counts, as \(key)[\(place - 1)] has no filter and is for all modules")
      }
      rules.append(try rule(element, members, here, range))
    }
    return Parameter(rules)
  }

  /// One entry with its filter; without one it is for all modules.
  private func rule(
    _ element: YAML, _ members: [YAML.Member], _ place: String, _ range: ClosedRange<Double>?
  ) throws(PeftoolError) -> Parameter.Rule {
    var filter: Glob?
    var values: [Double]?
    for member in members {
      let key = "\(place).\(member.key)"
      switch member.key {
      case "filter":
        let pattern = try member.value.string(key)
        do throws(PeftoolError) {
          filter = try Glob(pattern)
        } catch {
          throw member.value.error("\(key): \(error.reason)")
        }
      case "value": values = try numbers(member.value, key, range)
      default: throw unknown(member, "\(place).", ["filter", "value"])
      }
    }
    guard let values else { throw element.error("\(place).value is missing") }
    return Parameter.Rule(filter: filter, values: values, origin: origin(element, place))
  }

  /// A number, or a list of some.
  private func numbers(
    _ value: YAML, _ key: String, _ range: ClosedRange<Double>?
  ) throws(PeftoolError) -> [Double] {
    switch value.content {
    case .sequence(let elements):
      guard !elements.isEmpty else { throw value.unfit(key, "a number at least") }
      var numbers: [Double] = []
      for (place, element) in elements.enumerated() {
        numbers.append(try number(element, "\(key)[\(place)]", range))
      }
      return numbers
    case .mapping: throw value.unfit(key, "a number, or a list of numbers or of filter and value")
    default: return [try number(value, key, range)]
    }
  }

  private func origin(_ value: YAML, _ key: String) -> Parameter.Origin {
    Parameter.Origin(path: path, line: value.line, key: key)
  }
}
