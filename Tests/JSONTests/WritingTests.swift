import JSON
import Testing

/// The value whose texts below come from Python's json.dumps.
private var value: JSON {
  .object([
    .init("é", .string("\u{7F}\u{0}\u{1F}\"\\/\u{8}\u{C}\n\r\t")),
    .init("b", .array([.number(1), .array([]), .object([]), .array([.object([])])])),
    .init("a", .object([.init("z", .null), .init("y", .bool(true)), .init("x", .bool(false))])),
    .init("😀", .string("\u{2028}é")),
    .init("\u{FFFD}", .number("1")),
  ])
}

@Suite struct WritingTests {
  @Test func indentedSortedASCIIIsPythonsDefault() {
    // json.dumps(value, indent=2, sort_keys=True)
    #expect(
      value.text(indent: 2, sortedKeys: true, isASCII: true) == #"""
        {
          "a": {
            "x": false,
            "y": true,
            "z": null
          },
          "b": [
            1,
            [],
            {},
            [
              {}
            ]
          ],
          "\u00e9": "\u007f\u0000\u001f\"\\/\b\f\n\r\t",
          "\ufffd": 1,
          "\ud83d\ude00": "\u2028\u00e9"
        }
        """#)
  }

  @Test func compactIsPythonsWithoutSpaces() {
    // json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    #expect(
      value.text() == #"{"é":""# + "\u{7F}"
        + #"\u0000\u001f\"\\/\b\f\n\r\t","b":[1,[],{},[{}]],"#
        + #""a":{"z":null,"y":true,"x":false},"😀":""# + "\u{2028}é\",\"\u{FFFD}\":1}")
  }

  @Test(arguments: [
    (0.1, "0.1"), (1e-7, "1e-07"), (1e16, "1e+16"), (123456789012345680, "1.2345678901234568e+17"),
    (2.2250738585072014e-308, "2.2250738585072014e-308"), (-0.0, "-0.0"), (1, "1.0"),
    (0.0001, "0.0001"), (1.5e300, "1.5e+300"),
  ])
  func doublesAreWrittenAsPythonDoes(value: Double, text: String) {
    #expect(JSON.number(value).text() == text)
  }

  @Test func whatIsNotFiniteIsNull() {
    #expect(JSON.number(.infinity) == .null)
    #expect(JSON.number(Double.nan) == .null)
  }
}
