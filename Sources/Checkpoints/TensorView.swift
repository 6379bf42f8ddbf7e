package import Files
package import Tensors

/// A source seen otherwise: some of its tensors are computed from what it has, the others are its
/// own.
package protocol TensorView: TensorSource {
  /// What it is a view of.
  var viewed: any TensorSource { get }

  /// Whether a tensor is computed when it is read.
  func isComputed(_ tensor: TensorInfo) -> Bool
}

extension TensorView {
  package var path: String { viewed.path }
  package var files: [InputFile] { viewed.files }
  package var origins: [any TensorSource] { get throws(PeftoolError) { [viewed] } }
  package var metadata: [(key: String, value: String)] { viewed.metadata }

  package func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? {
    isComputed(tensor) ? nil : viewed.place(of: tensor)
  }
}
