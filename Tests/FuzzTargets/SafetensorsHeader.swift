import Checkpoints
import Files
import Tensors

/// A safetensors file is refused with an error, or its tensors cover its data and are written back.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  let prefix = Array(bytes.prefix(SafetensorsHeader.lengthByteCount))
  if let length = result({ () throws(PeftoolError) in
    try SafetensorsHeader.byteCount(prefix: prefix, fileByteCount: bytes.count)
  }) {
    read(Array(bytes[8..<8 + length]), dataByteCount: bytes.count - 8 - length)
  }
  // The length seldom survives a mutation: its bytes are taken for the data's length instead.
  if prefix.count == 8 {
    read(Array(bytes[8...]), dataByteCount: Int(prefix[0]) | Int(prefix[1]) << 8)
  }
  return 0
}

private func result<T>(_ body: () throws(PeftoolError) -> T) -> T? {
  do throws(PeftoolError) {
    return try body()
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
    return nil
  }
}

private func read(_ text: [UInt8], dataByteCount: Int) {
  let header = result { () throws(PeftoolError) in
    try SafetensorsHeader(text: text, dataByteCount: dataByteCount)
  }
  guard let header else { return }
  var position = 8 + text.count
  for tensor in header.tensors {
    precondition(tensor.byteRange.lowerBound == position, "a hole, or an overlap")
    precondition(tensor.elementCount >= 0)
    position = tensor.byteRange.upperBound
  }
  precondition(position == 8 + text.count + dataByteCount, "bytes that no tensor has")
  precondition(header.headerOrder.sorted() == Array(header.tensors.indices))
  let items = header.tensors.map {
    SafetensorsHeader.Item(name: $0.name, dtype: $0.dtype, shape: $0.shape)
  }
  let encoded = result { () throws(PeftoolError) in
    try SafetensorsHeader.encode(
      items, metadata: header.hasMetadata ? header.metadata : nil, order: .given)
  }
  guard let encoded else { preconditionFailure("what was read cannot be written") }
  precondition(encoded.fileByteCount - encoded.bytes.count == dataByteCount)
  let again = result { () throws(PeftoolError) in
    try SafetensorsHeader(text: Array(encoded.bytes.dropFirst(8)), dataByteCount: dataByteCount)
  }
  precondition(
    again?.tensors.map { Array($0.name.utf8) } == header.tensors.map { Array($0.name.utf8) },
    "what was written reads differently")
}
