import Checkpoints
import Files
import JSON

/// An index is refused with an error, or its shards lie in its folder; JSON is written back.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(PeftoolError) {
    let value = try JSON(parsing: bytes)
    let text = value.text()
    let again = try JSON(parsing: Array(text.utf8))
    precondition(again.text().utf8.elementsEqual(text.utf8), "what was written reads differently")
    let ascii = try JSON(parsing: Array(value.text(indent: 2, isASCII: true).utf8))
    precondition(ascii.text().utf8.elementsEqual(text.utf8), "the ASCII text reads differently")
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  do throws(PeftoolError) {
    let index = try ShardIndex(parsing: bytes, path: "index")
    precondition(index.shardNames.allSatisfy { !$0.utf8.contains(0x2F) && !$0.utf8.contains(0) })
    precondition(index.shardByTensor.values.allSatisfy(index.shardNames.indices.contains))
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}
