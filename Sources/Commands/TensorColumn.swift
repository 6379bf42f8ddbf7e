import Adapters
import Files
import Reports

/// The column of a table that has tensors' names.
struct TensorColumn {
  private let prefix: String

  /// For a table of that width; nil for one in a pipe, whose names stay whole.
  ///
  /// In a terminal an adapter's names go without what they all begin with, to leave room for what
  /// tells them apart.
  init(isAdapter: Bool, tableWidth: Int?) {
    prefix = isAdapter && tableWidth != nil ? AdapterKey.prefix : ""
  }

  /// The column, its title telling what the names lack.
  var column: Table.Column {
    Table.Column(prefix.isEmpty ? "tensor" : "tensor (\(prefix)…)", isShortened: true)
  }

  /// A name as it stands in the column.
  func text(_ name: String) -> String {
    (name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : name).printable
  }
}
