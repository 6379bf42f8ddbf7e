import JSON

/// The tensors of a checkpoint that are in memory already, for models of it that differ in what
/// their adapters make of it.
///
/// They stay as they are in the file: no model that shares them is trained. It belongs to one
/// thread.
package final class SharedTensors {
  /// The matrices that have been read, by their names.
  var matrices: [ExactName: FrozenWeight] = [:]
  /// The vectors, in f32.
  var vectors: [ExactName: Rows] = [:]

  /// None yet.
  package init() {}
}
