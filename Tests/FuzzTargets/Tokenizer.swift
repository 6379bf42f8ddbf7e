import Files
import Tokenizers

/// A tokenizer is refused with a line, or it makes numbers of text and text of numbers; a zero byte
/// ends the file, and the text follows.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  let end = bytes.firstIndex(of: 0) ?? bytes.count
  do throws(PeftoolError) {
    let tokenizer = try Tokenizer(parsing: Array(bytes[..<end]))
    let text = Array(bytes[end...].dropFirst())
    for adds in [true, false] {
      let ids = try tokenizer.encode(bytes: text, addingSpecialTokens: adds)
      // Only a template may have numbers that no token has.
      precondition(adds || ids.allSatisfy { tokenizer.token($0) != nil })
      let known = ids.filter { tokenizer.token($0) != nil }
      for skips in [true, false] {
        let whole = try tokenizer.decode(known, skippingSpecialTokens: skips)
        var stream = TextStream(tokenizer, skippingSpecialTokens: skips)
        var pieces = ""
        for id in known { pieces += try stream.push(id) }
        pieces += try stream.finish()
        precondition(pieces.utf8.elementsEqual(whole.utf8), "the pieces are not the text")
      }
    }
    var all: [Int32] = []
    for id in -1...Int32(tokenizer.vocabularySize) {
      guard let token = tokenizer.token(id) else { continue }
      precondition(tokenizer.id(of: token) != nil)
      all.append(id)
    }
    for skips in [true, false] {
      let whole = try tokenizer.decode(all, skippingSpecialTokens: skips)
      var stream = TextStream(tokenizer, skippingSpecialTokens: skips)
      var pieces = ""
      for id in all { pieces += try stream.push(id) }
      pieces += try stream.finish()
      precondition(pieces.utf8.elementsEqual(whole.utf8), "the pieces are not the text")
    }
  } catch {
    precondition(error.description.utf8.count < 4096, "a message that is too long")
  }
  return 0
}
