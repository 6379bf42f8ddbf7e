import Files
import Testing

@Suite struct UTF8CheckTests {
  @Test(arguments: [
    ([0x61, 0xFF], 1), ([0xC3], 0), ([0x61, 0xED, 0xA0, 0x80], 1), ([0xC3, 0xA9, 0xC0, 0x80], 2),
  ])
  func theFirstByteThatIsNoneIsNamed(bytes: [UInt8], offset: Int) {
    #expect(throws: PeftoolError(.damaged, "the text is no UTF-8", offset: 7 + offset)) {
      try bytes.checkUTF8(baseOffset: 7)
    }
  }

  @Test func textIsTaken() throws {
    try Array("aé日\u{1F389}\0".utf8).checkUTF8()
    try [UInt8]().checkUTF8()
  }
}
