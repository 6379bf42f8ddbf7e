import Checkpoints
import Files
import Tensors

/// A GGUF model with the rows of each head in transformers' order.
///
/// llama.cpp's converter puts the rows of attn_q and attn_k in another order, because ggml turns
/// neighbouring rows and transformers the two halves of a head: row 2i of a head becomes row i here,
/// and row 2i + 1 row i + rows / 2. Each is read where it lies, so that the size of a head, which
/// the file names, costs nothing.
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
    var done = 0
    while done < range.count {
      let (row, start) = (range.lowerBound + done).quotientAndRemainder(dividingBy: rowByteCount)
      let count = min(rowByteCount - start, range.count - done)
      let (half, place) = (row % rowCount).quotientAndRemainder(dividingBy: rowCount / 2)
      let source = (row - row % rowCount + 2 * place + half) * rowByteCount + start
      var part = buffer._mutatingExtracting(done..<done + count)
      try stored.read(tensor, bytes: source..<source + count, into: &part)
      done += count
    }
  }
}
