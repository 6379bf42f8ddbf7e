import Examples
import Files

/// Records are refused with an error that names a line, or come back when they are written with
/// quotes.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  let records = read(bytes)
  var text: [UInt8] = []
  for fields in records {
    for (place, field) in fields.enumerated() {
      text.append(UInt8(ascii: place == 0 ? "\"" : ","))
      if place > 0 { text.append(UInt8(ascii: "\"")) }
      for byte in field.utf8 {
        text += byte == UInt8(ascii: "\"") ? [byte, byte] : [byte]
      }
      text.append(UInt8(ascii: "\""))
    }
    text.append(UInt8(ascii: "\n"))
  }
  precondition(read(text) == records, "what was written reads differently")
  var examples = CSVExamples(DataInput(bytes))
  var line = 0
  do throws(PeftoolError) {
    while let example = try examples.next() {
      precondition(example.line > line, "lines that do not ascend")
      line = example.line
    }
  } catch { check(error, count) }
  return 0
}

private func read(_ bytes: [UInt8]) -> [[String]] {
  var reader = CSVReader(DataInput(bytes))
  var found: [[String]] = []
  do throws(PeftoolError) {
    while let record = try reader.next() {
      precondition(!record.fields.isEmpty, "a record without fields")
      found.append(record.fields)
    }
  } catch { check(error, bytes.count) }
  return found
}

private func check(_ error: PeftoolError, _ count: Int) {
  precondition(error.reason.utf8.starts(with: "line ".utf8), "no line")
  precondition(error.description.utf8.count < 4096, "a message that is too long")
  precondition(error.offset.map { $0 <= count } ?? true, "a place past the end")
}
