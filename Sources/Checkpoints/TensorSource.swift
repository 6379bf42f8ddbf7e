package import Files
package import Tensors

/// Where tensors are read from: one file, or several that make up one checkpoint.
package protocol TensorSource: Sendable {
  /// The path that was opened, for messages.
  var path: String { get }
  /// The files that hold the tensors; `TensorInfo.fileIndex` counts in this list.
  var files: [InputFile] { get }
  /// All tensors, file after file; in each in the order in which their bytes lie, or for PyTorch's
  /// in that of the dictionary.
  var tensors: [TensorInfo] { get }
  /// Text that stands beside the tensors: the pairs of `__metadata__` that all files have, or what
  /// a pickle holds besides tensors.
  var metadata: [(key: String, value: String)] { get }

  /// The sources that the tensors are computed from; empty where they are those of the files.
  ///
  /// - Throws: what is wrong with one that is opened only when it is needed.
  var origins: [any TensorSource] { get throws(PeftoolError) }

  /// The bytes of a tensor as they lie in a file, whole and in row-major order; nil where they lie
  /// otherwise, or are computed when they are read.
  func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)?

  /// Fills `buffer` with the bytes of a range within a tensor.
  ///
  /// The range lies within `0..<tensor.byteCount` and is as long as the buffer. The bytes are those
  /// of the elements in row-major order, however they lie in the file; where `place(of:)` is nil,
  /// the range holds whole elements. Any thread may call it.
  /// - Throws: `io` and `damaged` as `InputFile.read`, with the tensor's name.
  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError)

  /// Looks at every file again that was read: called after the last read and before a commit.
  ///
  /// - Throws: `different` where one was changed or replaced meanwhile.
  func verifyUnchanged() throws(PeftoolError)
}

extension TensorSource {
  package var origins: [any TensorSource] { get throws(PeftoolError) { [] } }

  /// All files that are read for the tensors, those of its origins among them.
  ///
  /// - Throws: as `origins`.
  package var inputFiles: [InputFile] {
    get throws(PeftoolError) {
      var all = files
      for origin in try origins { all += try origin.inputFiles }
      return all
    }
  }

  package func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? {
    tensor.strides == nil ? (files[tensor.fileIndex], tensor.byteRange) : nil
  }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    precondition(range.count == buffer.byteCount, "a range and a buffer of one size")
    precondition(
      range.lowerBound >= 0 && range.upperBound <= tensor.byteCount, "a range within the tensor")
    do throws(PeftoolError) {
      guard let strides = tensor.strides else {
        try files[tensor.fileIndex].read(
          at: tensor.byteRange.lowerBound + range.lowerBound, into: &buffer)
        return
      }
      let width = tensor.dtype.bitCount / 8
      precondition(range.lowerBound % width == 0 && range.count % width == 0, "whole elements")
      var reading = StridedReading(tensor, strides: strides, in: files[tensor.fileIndex])
      try reading.read(elementsFrom: range.lowerBound / width, into: &buffer)
    } catch {
      throw error.at(tensor: tensor.name)
    }
  }

  package func verifyUnchanged() throws(PeftoolError) {
    for file in files { try file.verifyUnchanged() }
    for origin in try origins { try origin.verifyUnchanged() }
  }

  /// All bytes of a tensor, in an array of their own: for small ones.
  ///
  /// - Throws: `io` and `damaged` as `InputFile.read`, with the tensor's name.
  package func bytes(of tensor: TensorInfo) throws(PeftoolError) -> [UInt8] {
    if let (file, range) = place(of: tensor) {
      do throws(PeftoolError) {
        return try file.bytes(range)
      } catch {
        throw error.at(tensor: tensor.name)
      }
    }
    var bytes = [UInt8](repeating: 0, count: tensor.byteCount)
    var span = bytes.mutableSpan
    // Any bit pattern is a UInt8.
    var raw = unsafe span.mutableBytes
    try read(tensor, bytes: 0..<tensor.byteCount, into: &raw)
    return bytes
  }
}
