import Files
import Testing

@Suite struct PrintableTests {
  @Test(arguments: [
    ("plain é 😀", "plain é 😀"), ("\u{1B}[31m", "\\u{1b}[31m"), ("a\nb\u{0}", "a\\u{a}b\\u{0}"),
    ("\u{7F}\u{85}\u{9F}", "\\u{7f}\\u{85}\\u{9f}"), ("\u{202E}x\u{2066}", "\\u{202e}x\\u{2066}"),
    ("\u{200E}\u{61C}\u{FEFF}\u{2028}", "\\u{200e}\\u{61c}\\u{feff}\\u{2028}"),
    ("\u{A0}", "\u{A0}"),
  ])
  func controlCharactersAreEscaped(text: String, shown: String) {
    #expect(text.printable.unicodeScalars.elementsEqual(shown.unicodeScalars))
  }

  @Test func longTextIsCut() {
    #expect(String(repeating: "x", count: 200).printable == String(repeating: "x", count: 200))
    #expect(
      String(repeating: "x", count: 201).printable == String(repeating: "x", count: 200) + "…")
    #expect(("e" + String(repeating: "\u{301}", count: 10_000)).printable.utf8.count < 500)
  }
}

@Suite struct PeftoolErrorTests {
  @Test func theLineHasEachPlaceThatIsKnown() {
    #expect(PeftoolError(.io, "why").description == "why")
    #expect(
      PeftoolError(.damaged, "why", offset: 8, tensor: "a\nb", path: "c\u{1B}d").description
        == "c\\u{1b}d: tensor 'a\\u{a}b': byte 8: why")
  }

  @Test func aPlaceOnceKnownStays() {
    let error = PeftoolError(.damaged, "why", tensor: "a").at(tensor: "b", path: "c")
    #expect(error == PeftoolError(.damaged, "why", tensor: "a", path: "c"))
  }
}
