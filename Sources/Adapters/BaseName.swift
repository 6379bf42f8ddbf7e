import Checkpoints
import Files

/// What a model is called: the last part of a path, or of a name on a hub.
///
/// A copy in the hub's cache is called as the model and not by its revision:
/// `models--OWNER--NAME/snapshots/REVISION`. The case of letters does not count.
struct BaseName: Equatable {
  /// As it is written.
  let text: String

  /// Nil where a path does not tell, as `.` does not.
  init?(_ path: String) {
    let parent = Folder.parent(of: path)
    var name = Folder.name(of: path)
    if Folder.name(of: parent) == "snapshots" {
      name = Folder.name(of: Folder.parent(of: parent))
      guard name.hasPrefix("models--") else { return nil }
      let bytes = Array(name.utf8)
      let start = bytes.indices.last { place in
        place >= 2 && bytes[place - 2..<place].elementsEqual("--".utf8)
      }
      name = String(decoding: bytes[(start ?? 0)...], as: UTF8.self)
    }
    guard !["", ".", "..", "/"].contains(name) else { return nil }
    text = name
  }

  static func == (left: BaseName, right: BaseName) -> Bool {
    left.text.lowercased() == right.text.lowercased()
  }
}

extension Operand {
  /// What the user should know where the adapter names another model than the folder that was given;
  /// nil where one of the two is not known.
  func note(onBase base: BaseModel?) -> String? {
    guard let named = adapter.baseName.flatMap(BaseName.init),
      let given = base?.checkpoint.directory.flatMap(BaseName.init), named != given
    else { return nil }
    return "\(path.printable): made for \(named.text.printable), and the base is "
      + given.text.printable
  }
}
