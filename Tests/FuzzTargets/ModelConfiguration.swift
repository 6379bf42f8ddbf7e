import Files
import JSON
import Models

/// A configuration is refused with an error, or it makes up a model whose sizes fit each other and
/// whose rotary tables can be built.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(PeftoolError) {
    let read = try LlamaConfiguration(JSON(parsing: bytes))
    precondition(read.headCount % read.keyHeadCount == 0, "heads that share no keys")
    precondition(read.headSize > 0 && read.headSize % 2 == 0, "a head without pairs")
    precondition(read.windows.count == read.layerCount, "a layer without its window")
    precondition(read.windows.allSatisfy { ($0 ?? 1) > 0 }, "a window that shows nothing")
    precondition(read.epsilon >= 0 && read.rotary.theta > 0, "no number to divide by")
    let sizes = [
      read.vocabularySize, read.hiddenSize, read.intermediateSize, read.layerCount,
      read.positionCount,
    ]
    precondition(sizes.allSatisfy { $0 > 0 }, "an empty model")
    _ = RotaryEmbedding(read.rotary, headSize: read.headSize, count: 3)
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}
