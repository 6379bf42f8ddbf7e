import Foundation
import Testing

/// `generate --swap`: prompts from standard input, each with the adapter that it names.
@Suite struct SwapTests {
  private static let model = Repository.sample("generation/tiny-chat")
  private static let sailor = Repository.sample("generation/tiny-sailor")
  private static let question = "What is a LoRA?"
  private static let chat = ["--chat", "--chat-template", "chatml"]

  private func line(_ members: [String: Any]) throws -> String {
    String(decoding: try JSONSerialization.data(withJSONObject: members), as: UTF8.self) + "\n"
  }

  private func answers(_ run: Run) throws -> [[String: Any]] {
    try run.text.split(separator: "\n").map {
      try #require(
        try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any], "\($0)")
    }
  }

  private func swap(
    _ place: borrowing Workplace, _ flags: [String], _ lines: [String]
  ) throws -> Run {
    try place.run(
      ["generate", Self.model, "--swap"] + flags, input: Data(lines.joined().utf8))
  }

  /// A text of the model with one adapter, by a run of its own.
  private func text(_ place: borrowing Workplace, _ flags: [String]) throws -> String {
    let run = try place.run(["generate", Self.model, Self.question, "--quiet"] + flags)
    #expect(run.status == 0, "\(run.errors)")
    return run.text
  }

  @Test(arguments: [[], ["--temperature", "1.5", "--seed", "9"]])
  func eachAnswerIsThatOfARunWithItsAdapter(flags: [String]) throws {
    let place = try Workplace()
    for (name, factor) in [("more", "1.3"), ("other", "-1")] {
      let scaled = try place.run("scale", Self.sailor, "--by=\(factor)", "-o", name)
      #expect(scaled.status == 0, "\(scaled.errors)")
    }
    let flags = flags + Self.chat
    let adapters = [nil, "tiny-sailor", "more", "renamed"] as [String?]
    let paths = ["tiny-sailor": Self.sailor, "more": "more", "renamed": "other"]
    var expected: [String?: String] = [:]
    for name in adapters {
      expected[name] = try text(
        place, flags + (name.flatMap { paths[$0] }.map { ["--adapter", $0] } ?? []))
    }
    #expect(Set(expected.values).count == adapters.count, "texts that differ: \(expected)")
    // There and back, so that nothing of one stays for the next.
    let order = adapters + adapters.reversed() + [adapters[1], adapters[3], adapters[1]]
    let run = try swap(
      place,
      flags + ["--adapter", Self.sailor, "--adapter", "more/", "--adapter", "renamed=other"],
      order.map { try line(["prompt": Self.question, "adapter": $0 ?? NSNull()]) })
    #expect(run.status == 0, "\(run.errors)")
    let answers = try answers(run)
    #expect(answers.map { $0["line"] as? Int } == Array(1...order.count))
    #expect(answers.map { $0["adapter"] as? String } == order)
    #expect(answers.map { $0["text"] as? String } == order.map { expected[$0] })
  }

  /// Tensors of an adapter's own, positions of its own, and codes that are shared.
  @Test func whatOneAdapterHasIsNotTheOthers() throws {
    let place = try Workplace()
    let base = place.path("base")
    #expect(try place.run("quantize", Self.model, "-o", base, "--quiet").status == 0)
    for (name, options) in [
      ("whole", ["--modules-to-save", "norm"]), ("tokens", ["--trainable-tokens", "5,9,40"]),
      ("long", ["--rope-scaling", "linear:2"]), ("dora", ["--dora"]),
    ] {
      let run = try place.run(
        ["finetune", base, "--data", Repository.sample("generation/sailor.jsonl"), "-o", name]
          + ["--max-steps", "6", "--learning-rate", "3e-2", "--quiet"] + options)
      #expect(run.status == 0, "\(run.errors)")
    }
    let names = ["whole", "tokens", "long", "dora"]
    let order = [nil, "whole", nil, "tokens", "long", "dora", "whole", nil, "long"] as [String?]
    let run = try place.run(
      ["generate", base, "--swap", "--max-tokens", "30"] + names.flatMap { ["--adapter", $0] },
      input: Data(
        try order.map { try line(["prompt": "Once", "adapter": $0 ?? NSNull()]) }.joined().utf8))
    let ids = try answers(run).map { $0["ids"] as? [Int] }
    #expect(ids.count == order.count, "\(run.errors)")
    var all: Set<[Int]> = []
    for (name, found) in zip(order, ids) {
      let plain = try place.run(
        ["generate", base, "Once", "--max-tokens", "30", "--json"]
          + (name.map { ["--adapter", $0] } ?? []))
      let json = try JSONSerialization.jsonObject(with: plain.output) as? [String: Any]
      #expect(found == json?["ids"] as? [Int], "\(name ?? "none")")
      all.insert(try #require(found))
    }
    #expect(all.count >= 4, "texts that differ")
  }

  @Test func aWeightIsOfItsAdapter() throws {
    let place = try Workplace()
    let run = try swap(
      place,
      Self.chat + ["--adapter", "a=\(Self.sailor)", "--adapter", "b=\(Self.sailor)"]
        + ["--weights", "1,0"],
      ["a", "b"].map { try line(["prompt": Self.question, "adapter": $0]) })
    let texts = try answers(run).map { $0["text"] as? String }
    #expect(texts.first == "Two wee sails beside the mast, sailor!")
    #expect(try texts.last == text(place, Self.chat))
  }

  @Test func aLineThatCannotBeAnsweredIsToldAndTheNextIsRead() throws {
    let long = String(repeating: "Once upon a time ", count: 40)
    let run = try swap(
      Workplace(), ["--quiet", "--max-tokens", "3", "--adapter", Self.sailor],
      [
        "no JSON\n", "\n", "[1]\n", "{\"adapter\": \"tiny-sailor\"}\n", "{\"prompt\": 3}\n",
        try line(["prompt": "Once", "adapter": "pirate"]),
        try line(["prompt": "Once", "temperature": 1]), try line(["prompt": ""]),
        try line(["prompt": long]), try line(["prompt": "Once", "adapter": 1]),
        "{\"prompt\": \"a\u{7}\"}\n", "{\"prompt\": \"Once\"}",
      ])
    let answers = try answers(run)
    let errors = answers.map { $0["error"] as? String }
    #expect(answers.map { $0["line"] as? Int } == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    #expect(errors[0]?.hasPrefix("byte 1: ") == true, "\(errors)")
    #expect(errors[1] == "the line is an array of 1, expected an object")
    #expect(errors[2] == "prompt is missing, expected a string")
    #expect(errors[3] == "prompt is 3, expected a string")
    #expect(errors[4] == #"adapter is "pirate", expected "tiny-sailor", null"#)
    #expect(errors[5] == #""temperature" is unknown, expected "prompt" and "adapter""#)
    #expect(errors[6] == "the prompt is empty, and the tokenizer puts no token before a text")
    #expect(errors[7]?.contains("the model takes texts of 256") == true, "\(errors)")
    #expect(errors[8] == "adapter is 1, expected a string")
    #expect(errors[9]?.hasPrefix("byte 13: ") == true, "\(errors)")
    #expect(errors[10] == nil && answers[10]["tokens"] as? Int == 3)
    #expect(run.status == 2)
    #expect(
      run.errors == """
        peftool: standard input: 10 of 11 lines could not be answered: "error" there says why

        """)
  }

  @Test func aLineThatIsTooLongIsToldAndTheNextIsRead() throws {
    let run = try swap(
      Workplace(), ["--quiet", "--max-tokens", "2"],
      [
        String(repeating: "x", count: (16 << 20) + 1 + (1 << 19)) + "\n",
        try line(["prompt": "Once"]),
      ])
    let answers = try answers(run)
    #expect(answers.map { $0["line"] as? Int } == [1, 2])
    #expect(
      answers.first?["error"] as? String
        == "standard input: line 1: more than 16777216 bytes, expected at most so many")
    #expect(answers.last?["tokens"] as? Int == 2)
    #expect(run.status == 2)
    #expect(run.errors.contains("1 of 2 lines could not be answered"), "\(run.errors)")
  }

  @Test func withoutLinesNothingIsSaid() throws {
    let run = try swap(Workplace(), ["--quiet"], [])
    #expect(run.status == 0 && run.text == "" && run.errors == "")
  }

  /// A program that waits for each answer before it asks again.
  @Test func eachAnswerComesAtOnce() throws {
    let run = try Workplace().shell(
      """
      coproc peftool generate '\(Self.model)' --swap --quiet --max-tokens 2 \
        --adapter a='\(Self.sailor)'
      for name in a null a; do
        [[ $name == null ]] || name="\\"$name\\""
        echo "{\\"prompt\\": \\"Once\\", \\"adapter\\": $name}" >&${COPROC[1]}
        IFS= read -r -t 60 -u ${COPROC[0]} answer || exit 1
        [[ $answer == '{"line":'* ]] && echo answered
      done
      eval "exec ${COPROC[1]}>&-"
      wait $COPROC_PID
      echo $?
      """)
    #expect(run.text == "answered\nanswered\nanswered\n0\n", "\(run.errors)")
  }

  @Test func anInterruptEndsTheWaitWith130() throws {
    let run = try Workplace().shell(
      """
      set -m
      mkfifo lines
      peftool generate '\(Self.model)' --swap --quiet --max-tokens 2 < lines > answers &
      exec 3> lines
      echo '{"prompt": "Once"}' >&3
      while kill -0 $! && [[ ! -s answers ]]; do sleep 0.05; done
      kill -INT -- -$!
      wait $!
      echo $?
      """)
    #expect(run.text == "130\n", "\(run.errors)")
  }

  @Test func aReaderThatHasGoneEndsItQuietly() throws {
    let run = try Workplace().shell(
      """
      { sleep 0.3; echo '{"prompt": "Once"}' |
        peftool generate '\(Self.model)' --swap --quiet; echo $? >&2; } | true
      """)
    #expect(run.errors == "141\n")
  }

  @Test(arguments: [
    (["x"], "--swap reads prompts from standard input, PROMPT is one already"),
    (
      ["--adapter", "a/x", "--adapter", "b/x/"],
      "two adapters are called 'x'; --adapter NAME=PATH gives one another name"
    ),
    (["--adapter", "=x"], "--adapter '=x' has no name before ="),
    (["--adapter", "a/lr=1e-4/x", "--adapter", "b/x"], "two adapters are called 'x'; --adapter"),
    (["--adapter", "x", "--weights", "1,2"], "--weights"),
  ])
  func wrongUsageIsTold(flags: [String], expected: String) throws {
    let run = try Workplace().run(["generate", Self.model, "--swap"] + flags)
    #expect(run.status == 64)
    #expect(run.errors.contains(expected), "\(run.errors)")
  }

  @Test func anAdapterThatDoesNotFitIsToldBeforeTheFirstAnswer() throws {
    let run = try swap(
      Workplace(), ["--adapter", Repository.sample("adapters/lora")],
      [try line(["prompt": "Once"])])
    #expect(run.status == 2 && run.text == "")
    #expect(run.errors.contains("adapters/lora"), "\(run.errors)")
  }

  /// A folder whose name has = in it is a folder.
  @Test func aPathMayHaveAnEqualsSign() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: Self.sailor, toPath: place.path("a=b"))
    let run = try swap(
      place, ["--quiet", "--max-tokens", "1", "--adapter", "a=b"],
      [try line(["prompt": "Once", "adapter": "a=b"])])
    #expect(run.status == 0, "\(run.text)")
  }
}
