import Checkpoints
import Files
import Tensors

/// A GGUF head is refused with an error, or its tensors lie in the file, one behind the other, and
/// every element of them has a value.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  // A head alone, of a file with much behind it: tensors that are too large for an input are read.
  read(bytes, fileByteCount: bytes.count + 1 << 20)
  guard let header = read(bytes, fileByteCount: bytes.count) else { return 0 }
  for tensor in header.tensors where tensor.dtype.isNumeric {
    var values = [Float](repeating: 0, count: tensor.elementCount)
    var span = values.mutableSpan
    let data = Array(bytes[tensor.byteRange])
    Float.read(data.span.bytes, tensor.dtype, into: &span, count: tensor.elementCount)
  }
  return 0
}

@discardableResult
private func read(_ bytes: [UInt8], fileByteCount: Int) -> GGUFHeader? {
  let header: GGUFHeader
  do throws(PeftoolError) {
    header = try GGUFHeader(parsing: bytes, fileByteCount: fileByteCount)
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
    return nil
  }
  var position = header.dataStart
  for tensor in header.tensors {
    precondition(tensor.byteRange.upperBound <= fileByteCount, "past the end")
    precondition(tensor.dtype.byteCount(of: tensor.elementCount) == tensor.byteCount)
    guard !tensor.byteRange.isEmpty else { continue }
    precondition(tensor.byteRange.lowerBound >= position, "an overlap")
    precondition(tensor.byteRange.lowerBound - position < header.alignment, "a hole")
    position = tensor.byteRange.upperBound
  }
  for (key, value) in header.metadata {
    precondition(header[key] == value, "a key that is not found")
    _ = value.summary
    guard case .array(let array) = value else { continue }
    precondition(array.strings?.count ?? array.count == array.count)
    _ = array.integers
    _ = array.numbers
  }
  return header
}
