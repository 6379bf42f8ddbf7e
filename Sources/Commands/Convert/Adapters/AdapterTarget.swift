import Adapters
import ArgumentParser

/// What `convert --to` makes of an adapter.
enum AdapterTarget: Equatable, ExpressibleByArgument {
  /// The same in another format.
  case format(AdapterFormat)
  /// LoRA of what is not, or DoRA of LoRA.
  case form(CombinationSettings.Form)

  init?(argument: String) {
    if let format = AdapterFormat(rawValue: argument) {
      self = .format(format)
    } else if let form = CombinationSettings.Form(rawValue: argument) {
      self = .form(form)
    } else {
      return nil
    }
  }

  static var allValueStrings: [String] {
    AdapterFormat.allCases.map(\.rawValue) + CombinationSettings.Form.allCases.map(\.rawValue)
  }

  /// Whether it is written as one file.
  var isFile: Bool { self == .format(.kohya) }
}

extension AdapterFormat: ExpressibleByArgument {}
