@testable import Checkpoints
import Files
import Tensors

/// A pickle is refused with an error, or its tensors lie within their storages and have names.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let input = Array(UnsafeBufferPointer(start: start, count: count))
  for form in [PickleInterpreter.StorageForm.zip, .stream] {
    do throws(PeftoolError) {
      var bytes = PickleBytes(input)
      let object = try PickleInterpreter.read(&bytes, storages: form)
      precondition(bytes.position <= count && object.work <= PickleInterpreter.maximumWork)
      for tensor in object.heap.tensors {
        let storage = object.heap.storages[tensor.storage]
        precondition(tensor.view.byteRange.upperBound <= storage.byteCount, "out of the storage")
      }
      let dictionary = try StateDictionary(object)
      precondition(!dictionary.entries.isEmpty, "no tensors, and no error")
      precondition(dictionary.entries.count <= object.work, "more tensors than opcodes")
    } catch {
      precondition(error.description.utf8.count < 8192, "a message that is too long")
    }
  }
  return 0
}
