import Files
import JSON
import Testing

private func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

@Suite struct AccessTests {
  @Test(arguments: [
    (#"4.0"#, "4.0"), ("4e0", "4e0"), (#""4""#, "\"4\""), ("true", "true"), ("null", "null"),
    ("18446744073709551620", "18446744073709551620"), ("[4]", "an array of 1"),
    ("{}", "an object of 0"), (#""\u001b[31m""#, "\"\\u{1b}[31m\""),
  ])
  func onlyDigitsAreAnInteger(text: String, summary: String) throws {
    let value = try parse("{\"r\":\(text)}")
    #expect(throws: PeftoolError(.damaged, "r is \(summary), expected an integer")) {
      try value.int(at: "r")
    }
  }

  @Test func theLargestIntegersAreRead() throws {
    let value = try parse("[9223372036854775807,-9223372036854775808,0]")
    #expect(try value.array(named: "x").map { try $0.int(named: "x") } == [.max, .min, 0])
  }

  @Test func everyNumberIsADouble() throws {
    let value = try parse("[4,4.5,-1e-3,1e308]")
    #expect(
      try value.array(named: "x").map { try $0.double(named: "x") } == [4, 4.5, -0.001, 1e308])
    #expect(throws: PeftoolError(.damaged, "x is \"4\", expected a number")) {
      try JSON.string("4").double(named: "x")
    }
  }

  @Test func whatIsMissingIsNamedByItsPath() throws {
    let value = try parse(#"{"a":{"b":[true,"c",null]}}"#)
    #expect(throws: PeftoolError(.damaged, "a.c is missing, expected true or false")) {
      try value.bool(at: "a", "c")
    }
    #expect(throws: PeftoolError(.damaged, "a.b is an array of 3, expected a string")) {
      try value.string(at: "a", "b")
    }
    #expect(throws: PeftoolError(.damaged, "a.b.c is missing, expected an object")) {
      try value.object(at: "a", "b", "c")
    }
    #expect(try value.array(at: "a", "b").count == 3)
    #expect(try value.object(at: "a").map(\.key) == ["b"])
  }

  @Test func nullIsThere() throws {
    let value = try parse(#"{"a":null}"#)
    #expect(value["a"] == .null)
    #expect(value["b"] == nil)
    #expect(value.value(at: []) == value)
  }
}

@Suite struct ExactNameTests {
  @Test func namesAreEqualByteForByte() {
    #expect("\u{E9}" == "e\u{301}")
    #expect(ExactName("\u{E9}") != ExactName("e\u{301}"))
    #expect(Set([ExactName("\u{E9}"), ExactName("e\u{301}"), ExactName("\u{E9}")]).count == 2)
    #expect(ExactName("a\u{0}b") != ExactName("a\u{0}c"))
    #expect("K".isExactly("K") && !"K".isExactly("\u{212A}") && !"K".isExactly("Ka"))
  }

  @Test func namesSortByTheirBytes() {
    // U+FFFD is below U+10000 by code point and by UTF-8, but above its surrogates.
    let sorted = ["", "A", "a", "a.b", "aa", "é", "\u{FFFD}", "\u{10000}"]
    #expect(sorted.shuffled().sorted { $0.precedesByBytes($1) } == sorted)
  }
}
