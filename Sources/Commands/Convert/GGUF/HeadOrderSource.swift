import Checkpoints
import Files
import Tensors

/// A GGUF model with the rows of each head in transformers' order.
///
/// llama.cpp's converter puts the rows of attn_q and attn_k in another order, because ggml turns
/// neighbouring rows and transformers the two halves of a head: row 2i of a head becomes row i here,
/// and row 2i + 1 row i + rows / 2.
///
/// Memory: the heads that a range touches, twice.
struct HeadOrderSource: TensorSource {
  let stored: any TensorSource
  /// The rows of a head, for the tensors whose rows change places.
  let headRowCounts: [String: Int]

  var path: String { stored.path }
  var files: [InputFile] { stored.files }
  var origins: [any TensorSource] { get throws(PeftoolError) { [stored] } }
  var tensors: [TensorInfo] { stored.tensors }
  var metadata: [(key: String, value: String)] { stored.metadata }

  func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? {
    headRowCounts[tensor.name] == nil ? stored.place(of: tensor) : nil
  }

  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let rowCount = headRowCounts[tensor.name], !range.isEmpty else {
      return try stored.read(tensor, bytes: range, into: &buffer)
    }
    let rowByteCount = tensor.dtype.byteCount(of: tensor.shape.dropFirst().reduce(1, *))
    let headByteCount = rowCount * rowByteCount
    let first = range.lowerBound / headByteCount * headByteCount
    let end = ((range.upperBound - 1) / headByteCount + 1) * headByteCount
    var heads = Block(byteCount: end - first)
    var bytes = heads.mutableBytes(end - first)
    try stored.read(tensor, bytes: first..<end, into: &bytes)
    var apart = Block(byteCount: end - first)
    heads.deinterleave(rows: rowCount, rowByteCount: rowByteCount, into: &apart)
    apart.copy(range.lowerBound - first..<range.upperBound - first, into: &buffer)
  }
}
