import Foundation
import Testing

/// `generate` on a model that has learnt a text by heart.
@Suite struct GenerateTests {
  private static let model = Repository.sample("generation/tiny-chat")
  private static let sailor = Repository.sample("generation/tiny-sailor")
  private static let story = """
     there was a small model that wanted to speak like a sailor. It could not be trained anew, for \
    the sea is wide and memory is dear. So a friend brought two thin matrices, and laid them beside \
    each weight. The model spoke, and the sailors understood every word.

    """

  private func json(_ run: Run) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: run.output) as? [String: Any])
  }

  @Test func theTextGoesOnToItsEnd() throws {
    let run = try Workplace().run("generate", Self.model, "Once upon a time")
    #expect(run.status == 0)
    #expect(run.text == Self.story)
    #expect(run.errors.hasPrefix("note: prompt of 12 tokens; 126 tokens, first after "))
    #expect(run.errors.hasSuffix(" tokens/s; the model ended it\n"))
  }

  @Test(arguments: [["-"], []])
  func aPromptComesFromStandardInput(arguments: [String]) throws {
    let run = try Workplace().run(
      ["generate", Self.model, "--quiet"] + arguments, input: Data("Once upon a time\n".utf8))
    #expect(run.text == Self.story)
    #expect(run.errors == "")
  }

  @Test func anAdapterChangesTheAnswer() throws {
    let place = try Workplace()
    let chat = ["generate", Self.model, "What is a LoRA?", "--chat", "--chat-template", "chatml"]
    let plain = try place.run(chat)
    #expect(
      plain.text == "Two small matrices beside a weight, whose product is added to it.",
      "\(plain.errors)")
    let adapted = try place.run(chat + ["--adapter", Self.sailor])
    #expect(adapted.text == "Two wee sails beside the mast, sailor!", "\(adapted.errors)")
    let none = try place.run(chat + ["--adapter", Self.sailor, "--weights", "0"])
    #expect(none.text == plain.text)
    let away = try place.run(chat + ["--adapter", Self.sailor, "--weights", "-1"])
    #expect(away.status == 0 && away.text != adapted.text, "\(away.errors)")
  }

  @Test func aStopStringIsNoPartOfTheText() throws {
    let run = try Workplace().run(
      "generate", Self.model, "Once upon a time", "--stop", "xyz", "--stop", "speak like", "--json")
    let found = try json(run)
    #expect(found["text"] as? String == " there was a small model that wanted to ")
    #expect(found["finish"] as? String == "stop")
    #expect(found["stop"] as? String == "speak like")
  }

  @Test func theNumberOfTokensIsLimited() throws {
    let found = try json(
      Workplace().run("generate", Self.model, "Once", "--max-tokens", "3", "--json"))
    #expect(found["finish"] as? String == "length")
    #expect(found["tokens"] as? Int == 3)
    #expect((found["ids"] as? [Int])?.count == 3)
  }

  @Test func theModelsContextIsAnEnd() throws {
    let prompt = String(repeating: "Once upon a time ", count: 19)
    let found = try json(Workplace().run("generate", Self.model, prompt, "--json"))
    let given = try #require(found["promptTokens"] as? Int)
    let added = try #require(found["tokens"] as? Int)
    #expect(found["finish"] as? String == "context" && given + added == 256, "\(found)")
  }

  @Test func theSeedDecidesForAnyNumberOfThreads() throws {
    let place = try Workplace()
    func text(_ seed: Int, threads: Int) throws -> String {
      try place.run(
        "generate", Self.model, "The", "--temperature", "2", "--top-k", "50", "--seed", "\(seed)",
        "--threads", "\(threads)", "--max-tokens", "60", "--quiet"
      ).text
    }
    let first = try text(1, threads: 1)
    #expect(try text(1, threads: 2) == first)
    #expect(try text(1, threads: 7) == first)
    #expect(try text(2, threads: 1) != first)
  }

  @Test(arguments: [
    (["--top-k", "5"], "--top-k and --top-p go with --temperature"),
    (["--temperature=-1"], "--temperature is -1.0, expected 0 or more"),
    (["--temperature", "1", "--top-p", "0"], "--top-p is 0.0, expected more than 0"),
    (["--temperature", "1", "--top-k", "0"], "--top-k is 0, expected 1 or more"),
    (["--repetition-penalty", "0"], "--repetition-penalty is 0.0, expected more than 0"),
    (["--max-tokens", "0"], "--max-tokens is 0, expected 1"),
    (["--system", "x"], "--system and --chat-template go with --chat"),
    (["--stop", ""], "--stop is '', expected a text"),
    (["--weights", "1"], "--weights goes with --adapter"),
    (["--threads", "0"], "--threads is 0, expected 1 to 1024"),
  ])
  func wrongUsageIsTold(flags: [String], expected: String) throws {
    let run = try Workplace().run(["generate", Self.model, "x"] + flags)
    #expect(run.status == 64)
    #expect(run.errors.contains(expected), "\(run.errors)")
  }

  // MARK: What does not fit

  /// A copy of the model's folder, of which a file is changed.
  private func changed(
    _ place: borrowing Workplace, _ name: String, _ change: (inout [String: Any]) -> Void
  ) throws {
    try FileManager.default.copyItem(atPath: Self.model, toPath: place.path("model"))
    let path = place.path("model/\(name)")
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    var json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    change(&json)
    try JSONSerialization.data(withJSONObject: json).write(to: URL(fileURLWithPath: path))
  }

  @Test func anEmptyPromptIsRefused() throws {
    let run = try Workplace().run("generate", Self.model, "")
    #expect(run.status == 2)
    #expect(
      run.errors
        == "peftool: the prompt is empty, and the tokenizer puts no token before a text\n")
  }

  @Test func aPromptLongerThanTheContextIsRefused() throws {
    let run = try Workplace().run(
      "generate", Self.model, String(repeating: "Once upon a time ", count: 40))
    #expect(run.status == 2)
    #expect(
      run.errors.contains(" tokens, the model takes texts of 256 (max_position_embeddings)\n"),
      "\(run.errors)")
  }

  @Test func aTokenBeyondTheEmbeddingIsRefused() throws {
    let place = try Workplace()
    try changed(place, "tokenizer.json") { json in
      json["added_tokens"] =
        (json["added_tokens"] as? [[String: Any]] ?? []) + [
          [
            "id": 352, "content": "<more>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
          ]
        ]
    }
    #expect(try place.run("generate", "model", "Once upon a time", "--quiet").text == Self.story)
    let run = try place.run("generate", "model", "Once <more>")
    #expect(run.status == 2)
    #expect(
      run.errors == """
        peftool: model: the tokenizer makes token 352 ('<more>') of the text, the model has 0 to \
        351: tokenizer.json is another model's

        """)
  }

  @Test(
    arguments: [
      ("eos", "eos_token_id"), (1.5, "eos_token_id"), ([[2]], "eos_token_id"),
    ] as [(any Sendable, String)])
  func anEosTokenIsANumberOrSeveral(value: any Sendable, expected: String) throws {
    let place = try Workplace()
    try changed(place, "generation_config.json") { $0["eos_token_id"] = value }
    let run = try place.run("generate", "model", "Once")
    #expect(run.status == 2)
    #expect(
      run.errors.hasPrefix("peftool: model/generation_config.json: ")
        && run.errors.contains(expected), "\(run.errors)")
  }

  @Test func theConfigurationNamesTheEosTokenOtherwise() throws {
    let place = try Workplace()
    try changed(place, "config.json") { $0["eos_token_id"] = 0 }
    try FileManager.default.removeItem(atPath: place.path("model/generation_config.json"))
    #expect(try place.run("generate", "model", "Once upon a time", "--quiet").text == Self.story)
  }

  @Test func aModelWithoutATokenizerIsRefused() throws {
    let run = try Workplace().run("generate", Repository.sample("bases/llama-f32"), "x")
    #expect(run.status == 2)
    #expect(run.errors.hasSuffix("llama-f32: has no tokenizer.json beside it\n"), "\(run.errors)")
  }

  @Test func aModelThatIsNotComputedIsRefused() throws {
    let place = try Workplace()
    try changed(place, "config.json") { $0["model_type"] = "gpt2" }
    let run = try place.run("generate", "model", "x")
    #expect(run.status == 2)
    #expect(
      run.errors
        == "peftool: model/config.json: model_type is \"gpt2\", peftool computes llama, mistral, "
        + "qwen2, qwen3\n")
  }

  @Test func aGGUFModelIsConvertedFirst() throws {
    let run = try Workplace().run("generate", Repository.sample("gguf/tiny-llama.gguf"), "x")
    #expect(run.status == 2)
    #expect(run.errors.contains("is a GGUF model, expected safetensors; 'peftool convert"))
  }

  @Test func anAdapterIsNoModel() throws {
    let run = try Workplace().run("generate", Self.sailor, "x")
    #expect(run.status == 2)
    #expect(run.errors.contains("is an adapter, expected a model; --adapter takes adapters"))
  }

  @Test func anUnknownTemplateIsNotRun() throws {
    let place = try Workplace()
    try FileManager.default.copyItem(atPath: Self.model, toPath: place.path("model"))
    let none = try place.run("generate", "model", "x", "--chat")
    #expect(none.errors.contains("the model has no chat template; --chat-template names one"))
    try place.write("model/chat_template.jinja", "{{ 1 }}")
    let run = try place.run("generate", "model", "x", "--chat")
    #expect(run.status == 2)
    #expect(run.errors.contains("the chat template is none that peftool knows"), "\(run.errors)")
  }

  @Test func aTemplateWhoseTokensAreNoneIsTold() throws {
    let run = try Workplace().run(
      "generate", Self.model, "x", "--chat", "--chat-template", "llama3", "--max-tokens", "1")
    #expect(run.status == 0)
    #expect(
      run.errors.hasPrefix(
        "note: the tokenizer has no token '<|eot_id|>', which ends a turn in the chat template "
          + "llama3: the model has hardly learnt from it\nnote: prompt of "), "\(run.errors)")
  }

  @Test(arguments: ["generate", "evaluate"])
  func wrongWordsAreToldBeforeTheModelIsRead(verb: String) throws {
    let place = try Workplace()
    try place.write("model/model.safetensors", "no model")
    let words = verb == "generate" ? ["x", "--chat"] : ["--data", "x.txt"]
    let run = try place.run([verb, "model", "--chat-template", "gpt"] + words)
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: --chat-template 'gpt' is unknown"), "\(run.errors)")
    guard verb == "evaluate" else { return }
    #expect(
      try place.run([verb, "model"] + words).errors
        == "peftool: x.txt: cannot open: No such file or directory\n")
  }

  @Test func aReaderThatHasGoneEndsItQuietly() throws {
    let run = try Workplace().shell(
      "{ sleep 0.3; peftool generate '\(Self.model)' Once --quiet; echo $? >&2; } | true")
    #expect(run.errors == "141\n")
  }

  @Test func anInterruptEndsItWith130() throws {
    // The model goes on until it is told to stop: no end token, and texts of a million tokens.
    let place = try Workplace()
    try changed(place, "generation_config.json") { $0["eos_token_id"] = [] as [Int] }
    let path = place.path("model/config.json")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try place.write(
      "model/config.json",
      text.replacingOccurrences(
        of: "\"max_position_embeddings\": 256", with: "\"max_position_embeddings\": 1000000"))
    let run = try place.shell(
      """
      # With jobs of its own, a shell lets what runs behind it be interrupted.
      set -m
      : > text
      peftool generate model Once --max-tokens 500000 >> text &
      while kill -0 $! && (( $(stat -c %s text) < 100 )); do sleep 0.05; done
      kill -INT -- -$!
      wait $!
      echo $?
      """)
    #expect(run.text == "130\n", "\(run.errors)")
    #expect(try place.bytes("text").count >= 100)
  }
}

/// `evaluate` on the same model.
@Suite struct EvaluateTests {
  private static let model = Repository.sample("generation/tiny-chat")

  private func evaluate(_ arguments: String...) throws -> Run {
    try Workplace().run(["evaluate", Self.model] + arguments)
  }

  @Test func aTextThatIsKnownHasALowLoss() throws {
    let run = try evaluate("--data", Repository.sample("generation/story.txt"))
    #expect(run.status == 0, "\(run.errors)")
    let loss = try #require(run.text.firstMatch(of: /loss +([0-9.]+)/).flatMap { Double($0.1) })
    #expect(loss < 0.2)
    #expect(run.text.contains("predicted   136 tokens of 1 text\n"), "\(run.text)")
  }

  @Test func questionsAreAnswered() throws {
    let run = try evaluate("--data", Repository.sample("generation/questions.jsonl"))
    #expect(run.text.contains("accuracy       100 % (3 right)\n"), "\(run.text)\(run.errors)")
    #expect(run.text.contains("by characters  100 % (3 right)\n"))
    #expect(run.text.contains("by bytes       100 % (3 right)\n"))
    #expect(!run.text.contains("lost the beginning"))
    let cut = try evaluate(
      "--data", Repository.sample("generation/questions.jsonl"), "--max-length", "5")
    #expect(cut.text.contains("3 questions lost the beginning (--max-length)\n"), "\(cut.text)")
  }

  @Test func standardInputIsReadTwice() throws {
    let place = try Workplace()
    let line = #"{"prompt": "Once upon a", "choices": [" time", "x"], "answer": 0}"#
    let run = try place.run(
      "evaluate", Self.model, "--data", "-", "--delimiter", "", input: Data(line.utf8))
    #expect(run.text.contains("(1 right)"), "\(run.text)\(run.errors)")
  }

  @Test func figuresDoNotDependOnThreads() throws {
    func loss(_ threads: String) throws -> Double {
      let run = try evaluate(
        "--data", Repository.sample("generation/story.txt"), "--max-length", "20", "--stride", "6",
        "--json", "--threads", threads)
      let value = try JSONSerialization.jsonObject(with: run.output) as? [String: Any]
      return try #require(value?["loss"] as? Double)
    }
    #expect(try loss("1") == loss("3"))
  }

  @Test(arguments: [
    ("e.txt", "", "has no token that another stands before: nothing is predicted"),
    ("e.txt", "\u{FEFF}", "nothing is predicted"),
    ("e.jsonl", "", "has no examples, expected at least one"),
    ("e.jsonl", "{\"text\": 3}", "line 1"),
    ("e.jsonl", "{\"prompt\": \"a\", \"choices\": [\"b\"], \"answer\": 7}", "line 1: answer is 7"),
    ("e.dat", "x", "the name does not say what the data is"),
  ])
  func dataThatSayNothingAreRefused(name: String, text: String, expected: String) throws {
    let place = try Workplace()
    try place.write(name, text)
    let run = try place.run("evaluate", Self.model, "--data", name)
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: \(name): "), "\(run.errors)")
    #expect(run.errors.contains(expected), "\(run.errors)")
  }

  @Test func bytesThatAreNoTextAreRefused() throws {
    let place = try Workplace()
    try place.write("e.txt", Data([0x61, 0xFF]))
    let run = try place.run("evaluate", Self.model, "--data", "e.txt")
    #expect(run.errors == "peftool: e.txt: byte 1: the text is no UTF-8\n")
  }

  /// What a prompt is not seen with is told of.
  @Test func longExamplesAreToldOf() throws {
    let pairs = Repository.sample("generation/pairs.jsonl")
    let whole = try evaluate("--data", pairs)
    #expect(!whole.text.contains("windows"))
    let cut = try evaluate("--data", pairs, "--max-length", "8")
    let note = cut.unfoldedText
    #expect(note.contains("3 texts longer than --max-length, predicted in windows, of which the"))
    func count(_ run: Run) throws -> Int {
      try #require(
        run.unfoldedText.firstMatch(of: #/predicted +(\d+) tokens/#).flatMap { Int($0.1) })
    }
    let skipped = try #require(
      note.firstMatch(of: #/; (\d+) tokens? first in a/#).map { Int($0.1) })
    #expect(try count(whole) - count(cut) == skipped)
    let twice = try evaluate("--data", pairs, "--data", pairs)
    #expect(twice.status == 64 && twice.errors.contains("--data is given 2 times"))
  }

  @Test func aWindowIsNoLongerThanTheContext() throws {
    let story = Repository.sample("generation/story.txt")
    let run = try evaluate("--data", story, "--max-length", "257")
    #expect(run.status == 2)
    #expect(
      run.errors.contains(
        "--max-length is 257, the model takes texts of 256 tokens (max_position_embeddings)"))
    #expect(try evaluate("--data", story, "--max-length", "1").status == 64)
    #expect(try evaluate("--data", story, "--max-length", "9", "--stride", "10").status == 64)
  }
}
