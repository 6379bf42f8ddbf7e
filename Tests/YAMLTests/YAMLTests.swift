import Files
import Testing
import YAML

/// A value as text, to compare trees: `{a: [1, "b"]}`.
private func text(_ value: YAML) -> String {
  switch value.content {
  case .plain(let text): text
  case .text(let text): "\"\(text)\""
  case .sequence(let elements): "[\(elements.map(text).joined(separator: ", "))]"
  case .mapping(let members):
    "{\(members.map { "\($0.key): \(text($0.value))" }.joined(separator: ", "))}"
  }
}

private func read(
  _ yaml: String, _ limits: YAML.Limits = .recipe
) throws(PeftoolError) -> YAML {
  try YAML(parsing: Array(yaml.utf8), limits: limits)
}

@Suite struct YAMLTests {
  @Test(arguments: [
    ("a: [1, 'x', \"y\\n\"]\nb:\n  - c: -2.5\n  -", "{a: [1, \"x\", \"y\n\"], b: [{c: -2.5}, ]}"),
    ("# no\n--- é\n...\n", "é"), ("%YAML 1.1\n---\n{}", "{}"),
    ("a: |\n  b\n  c\n", "{a: \"b\nc\n\"}"),
    ("a: &x [1, 2]\nb: *x", "{a: [1, 2], b: [1, 2]}"), ("[&a 1, &a 2, *a]", "[1, 2, 2]"),
    ("{\"a b\": 1}", "{a b: 1}"), ("\u{FEFF}a: 1", "{a: 1}"),
  ])
  func values(yaml: String, right: String) throws {
    #expect(text(try read(yaml)) == right)
  }

  @Test func linesAreThoseOfTheFile() throws {
    let members = try read("# one\n\na:\n  - 1\n  -\n    b: 2\n").mapping("it")
    #expect(members[0].line == 3)
    let elements = try members[0].value.sequence("a")
    #expect(elements.map(\.line) == [4, 6])
  }

  @Test(arguments: [
    ("", "an empty file, expected YAML"), ("# only\n", "an empty file, expected YAML"),
    ("a: 1\n--- b", "line 2: a second document, expected one"),
    ("a: 1\na: 2", "line 2: 'a' for the second time"),
    ("a:\n  b: !!int 1", "line 2: the tag tag:yaml.org,2002:int, expected a value without"),
    ("a: !x [1]", "line 1: the tag !x, expected a value without"),
    ("[1]: 2", "line 1: a key that is no plain text"),
    ("*a : 2", "line 1: a key that is no plain text"),
    ("a: *b", "line 1: *b without &b before it"),
    ("a: &b [*b]", "line 1: *b without &b before it"),
    ("a: \"\\0\"", "line 1: U+0000 in a text"),
    ("a: [1, 2\n", "line 2: YAML: did not find expected ',' or ']'"),
    ("a:\n\t- 1", "line 2: YAML: found character that cannot start any token"),
  ])
  func refusals(yaml: String, reason: String) throws {
    let error = #expect(throws: PeftoolError.self) { try read(yaml) }
    #expect(error?.reason == reason)
  }

  @Test func bytesThatAreNoTextAreRefusedWithTheirPlace() {
    #expect(
      throws: PeftoolError(.damaged, "YAML: invalid leading UTF-8 octet", offset: 3)
    ) { try YAML(parsing: [97, 58, 32, 0xFF]) }
  }

  @Test func aliasesCountAsWhatTheyStandFor() throws {
    let limits = YAML.Limits(byteCount: 1000, valueCount: 12, depth: 4)
    _ = try read("[&a [1, 2], *a, *a]", limits)
    #expect(
      throws: PeftoolError(
        .unsupported,
        "line 2: more than 12 values, those that aliases stand for among them")
    ) { try read("[&a [1, 2], *a, *a,\n *a]", limits) }
    // Each line is ten of the one before: a thousand million in all.
    let names = "abcdefghi".map(String.init)
    let lines = zip(names, names.dropFirst()).map { before, name in
      "\(name): &\(name) [" + Array(repeating: "*\(before)", count: 10).joined(separator: ",") + "]"
    }
    let bomb = (["a: &a [1]"] + lines).joined(separator: "\n")
    #expect(
      throws: PeftoolError(
        .unsupported,
        "line 5: more than 10000 values, those that aliases stand for among them")
    ) { try read(bomb) }
  }

  @Test func depthAndBytesAreLimited() throws {
    let limits = YAML.Limits(byteCount: 20, valueCount: 100, depth: 3)
    _ = try read("[[[1]]]", limits)
    for deep in ["[[[[1]]]]", "{a: {b: {c: {}}}}", "[&a [[1]], [*a]]"] {
      #expect(throws: PeftoolError(.unsupported, "line 1: nested deeper than 3 levels")) {
        try read(deep, limits)
      }
    }
    #expect(throws: PeftoolError(.unsupported, "21 bytes of YAML, expected at most 20")) {
      try read(String(repeating: "a", count: 21), limits)
    }
  }

  @Test(arguments: ["1", "-0.5", "+2", "1e-3", ".5", "0012"])
  func numbers(scalar: String) throws {
    #expect(try read(scalar).double("x") == Double(scalar))
  }

  @Test(arguments: ["inf", "nan", "0x1", "1e999", "1_0", "'1'", "true", "1 2", "-", "e", ""])
  func whatIsNoNumber(scalar: String) throws {
    let error = try #require(throws: PeftoolError.self) {
      try read("x:\n  \(scalar)").mapping("it")[0].value.double("x")
    }
    #expect(error.reason.hasSuffix(", expected a number"))
  }

  @Test func scalarsAreWhatIsAskedFor() throws {
    #expect(try read("18446744073709551615").unsignedInteger("n") == UInt64.max)
    #expect(try read("true").bool("b"))
    #expect(try read("'a'").string("s") == "a")
    for (yaml, reason) in [
      ("-1", "line 1: x is -1, expected an integer from 0 on"),
      ("1.0", "line 1: x is 1.0, expected an integer from 0 on"),
      ("18446744073709551616", "line 1: x is 18446744073709551616, expected an integer from 0 on"),
    ] {
      #expect(throws: PeftoolError(.damaged, reason)) { try read(yaml).unsignedInteger("x") }
    }
    for yaml in ["yes", "'true'", "True"] {
      #expect(throws: PeftoolError.self) { try read(yaml).bool("x") }
    }
    for yaml in ["~", "null", "''", "[a]"] {
      #expect(throws: PeftoolError.self) { try read(yaml).string("x") }
    }
  }
}
