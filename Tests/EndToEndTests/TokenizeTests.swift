import Foundation
import Testing

private let llama3 = Repository.sample("tokenizers/llama3.json")
private let llama2 = Repository.sample("tokenizers/llama2.json")

@Suite struct TokenizeTests {
  @Test func aTextHasALineOfNumbers() throws {
    let place = try Workplace()
    let run = try place.run("tokenize", llama3, "The quick brown fox")
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(run.text == "0 432 608 302 76 366 83 80 88 79 222 71 80 89\n")
    let plain = try place.run("tokenize", llama3, "The quick", "--no-special-tokens")
    #expect(plain.text == "432 608 302 76\n")
    #expect(try place.run("tokenize", llama3, "").text == "0\n")
  }

  @Test func textComesBackAsItWas() throws {
    let place = try Workplace()
    let text = "  naïve\r\n\t日本語 🎉\n\n"
    for model in [llama2, llama3] {
      let ids = try place.run("tokenize", model, "-", input: Data(text.utf8))
      let back = try place.run(
        "tokenize", model, "--decode", "--no-special-tokens", input: ids.output)
      #expect(back.errors == "")
      #expect(back.output == Data(text.utf8))
    }
    let special = try place.run("tokenize", llama3, "--decode", " 0\n432 ")
    #expect(special.text == "<|begin_of_text|>The")
  }

  @Test func aFolderHasItsTokenizer() throws {
    let place = try Workplace()
    try FileManager.default.createDirectory(
      atPath: place.path("m"), withIntermediateDirectories: false)
    try FileManager.default.copyItem(atPath: llama3, toPath: place.path("m/tokenizer.json"))
    #expect(try place.run("tokenize", "m", "The").text == "0 432\n")
    try FileManager.default.removeItem(atPath: place.path("m/tokenizer.json"))
    let run = try place.run("tokenize", "m", "The")
    #expect(run.status == 2)
    #expect(run.errors == "peftool: m/tokenizer.json: cannot open: No such file or directory\n")
  }

  @Test func linesAndTextsWithAZeroAreApart() throws {
    let place = try Workplace()
    func lines(_ flag: String, _ input: String) throws -> String {
      try place.run("tokenize", llama3, flag, input: Data(input.utf8)).text
    }
    #expect(try lines("--lines", "The\n\nThe") == "0 432\n0\n0 432\n")
    #expect(try lines("--lines", "") == "")
    #expect(try lines("--null", "The\0The\0") == "0 432\n0 432\n")
    let decoded = try place.run(
      "tokenize", llama3, "--decode", "--lines", input: Data("432\n432 432\n".utf8))
    #expect(decoded.text == "The\nTheThe\n")
    let null = try place.run("tokenize", llama3, "--decode", "--null", input: Data("432\0".utf8))
    #expect(null.text == "The\0")
    #expect(try place.run("tokenize", llama3, "text", "--lines").status == 64)
  }

  @Test func JSONHasTokensAndText() throws {
    let place = try Workplace()
    let run = try place.run("tokenize", llama3, "The fox", "--json")
    let report = try JSONSerialization.jsonObject(with: run.output) as? [String: Any]
    let texts = report?["texts"] as? [[String: Any]]
    #expect(texts?.count == 1)
    #expect(texts?[0]["text"] as? String == "The fox")
    #expect(texts?[0]["ids"] as? [Int] == [0, 432, 222, 71, 80, 89])
    #expect(
      texts?[0]["tokens"] as? [String] == ["<|begin_of_text|>", "The", "Ġ", "f", "o", "x"])
  }

  @Test(
    arguments: [
      (["tokenize", llama3, "--decode", "1 x"], "'x' is no number of a token"),
      (["tokenize", llama3, "--decode", "9999"], "token 9999 is none of the tokenizer's"),
      (["tokenize", "absent.json", "x"], "absent.json: cannot open"),
      (["tokenize", Repository.sample("README.md"), "x"], "README.md: byte 0: found '#'"),
    ])
  func whatCannotBeIsOneLine(arguments: [String], reason: String) throws {
    let run = try Workplace().run(arguments)
    #expect(run.status == 2)
    #expect(run.text == "")
    #expect(run.errors.contains(reason), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
  }

  @Test func inputThatIsNoUTF8IsNamedWithItsPlace() throws {
    let run = try Workplace().run("tokenize", llama3, input: Data([0x61, 0xFF]))
    #expect(run.status == 2)
    #expect(run.errors == "peftool: standard input: byte 1: the text is no UTF-8\n")
  }

  @Test(
    arguments: [
      (["--lines"], "The\nThe\u{FF}", "byte 7: line 2: the text is no UTF-8"),
      (["--null"], "The\0\0\u{FF}\0", "byte 5: text 3: the text is no UTF-8"),
      (["--lines", "--decode"], "432\n\n4 x\n", "line 3: 'x' is no number of a token"),
      (["--null", "--decode"], "432\u{0}99999\0", "text 2: token 99999 is none of"),
      (["--decode"], "432 x", "'x' is no number of a token"),
    ])
  func oneTextOfSeveralIsNamedWithItsNumber(
    flags: [String], input: String, reason: String
  ) throws {
    // Latin-1, so that U+00FF is a byte that is no UTF-8.
    let bytes = Data(input.unicodeScalars.map { UInt8($0.value) })
    let run = try Workplace().run(["tokenize", llama3] + flags, input: bytes)
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: standard input: \(reason)"), "\(run.errors)")
  }

  @Test func inputHasAnEnd() throws {
    let run = try Workplace().shell(
      "head -c 268435457 /dev/zero | peftool tokenize '\(llama3)' > /dev/null")
    #expect(run.status == 2)
    #expect(
      run.errors == "peftool: standard input: has more than 268435456 bytes, the most that are "
        + "taken\n")
  }
}
