import ArgumentParser
import Examples
import Files
import Glibc
import JSON
import Models
import Reports
import Tokenizers

/// `peftool generate`: text that a model goes on with.
struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Goes on with a text, with or without adapters.",
    discussion: """
      Prints what the model says comes after PROMPT, as it comes. A prompt that is - or missing is \
      read from standard input, without a newline at its end. The model is a directory with \
      config.json, tokenizer.json and weights in safetensors or PyTorch files, of the Llama family \
      (llama, mistral, qwen2, qwen3), also quantized by bitsandbytes, MLX, GPTQ, AWQ or HQQ; it is \
      computed in f32 from the weights as they lie in the file.

        peftool generate tiny-chat 'Once upon a time'
        peftool generate tiny-chat 'What is a LoRA?' --chat --chat-template chatml
        peftool generate tiny-chat 'Once upon a' --adapter tiny-sailor --max-tokens 40
        echo 'Once upon a time' | peftool generate tiny-chat --temperature 0.8 --seed 7

      --adapter: LoRA, rsLoRA, DoRA, AdaLoRA or QA-LoRA of PEFT, applied beside the weights: nothing is \
      merged, and the numbers are those of the merged model before any rounding. What one adapter \
      has in the place of the model's own (modules_to_save, biases, trained tokens) is taken, too. \
      Several LoRA adapters are added up, each times its weight. Other changes, such as those of \
      (IA)3, are refused: `merge` folds them in.

      --chat puts the prompt as the user's message into the model's chat template, and ends where \
      the assistant's turn ends; --chat-template names the family where the model's template is \
      none that peftool knows.

      Without --temperature each token is the most likely one, whatever generation_config.json says \
      of sampling. With it tokens are drawn; the same seed gives the same text for any number of \
      threads. Penalty, temperature, top-k and top-p are applied in this order, as transformers \
      does.

      --swap answers one prompt after the other, each with the adapter that it names: standard \
      input has a JSON object a line, {"prompt": "...", "adapter": "NAME"}, and standard output \
      gets a line for each as soon as it is there. The weights are in memory once, beside all \
      adapters. NAME is the last part of an adapter's path, or what stands before = in --adapter \
      NAME=PATH, which --swap alone takes; without "adapter", or with null, the model answers by itself. Each line is a \
      text of its own, with the options and the seed of the command. A line that cannot be \
      answered, or has more than 16 MiB, gets {"line": N, "error": "..."}, and the next is read; at the end the status \
      is 2 then.

        peftool generate tiny-chat --swap --adapter tiny-sailor < prompts.jsonl

      The text ends with a token that generation_config.json or config.json names as \
      eos_token_id, before a string of --stop, after --max-tokens, or where the model takes no \
      longer texts. How many tokens there were, and how fast they came, is told on standard error; \
      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The model's directory.", completion: .file())
  var model: String

  @Argument(help: "The text to go on with; - or none for standard input.")
  var prompt: String?

  @Flag(help: "Take the prompt for a user's message to an assistant.")
  var chat = false

  @Option(help: "What the assistant is told first, with --chat.")
  var system: String?

  @Option(
    help: ArgumentHelp(
      "The family of the chat template, such as chatml or llama3.", valueName: "name"))
  var chatTemplate: String?

  @Option(help: ArgumentHelp("The most tokens that are added.", valueName: "n"))
  var maxTokens = 256

  @Option(help: ArgumentHelp("Draw tokens; logits are divided by it first.", valueName: "number"))
  var temperature: Float = 0

  @Option(help: ArgumentHelp("Draw from the n most likely tokens only.", valueName: "n"))
  var topK: Int?

  @Option(
    help: ArgumentHelp(
      "Draw from the most likely tokens that have this share of the probability together.",
      valueName: "share"))
  var topP: Float?

  @Option(
    help: ArgumentHelp(
      "Make tokens that are in the text already less likely; 1 is none.", valueName: "number"))
  var repetitionPenalty: Float = 1

  @Option(help: ArgumentHelp("The seed of the random numbers.", valueName: "n"))
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp("End before this text; repeatable.", valueName: "text"))
  var stop: [String] = []

  @Flag(help: "Answer prompts from standard input, each with the adapter that it names.")
  var swap = false

  @OptionGroup var options: ModelOptions

  /// The most bytes of a prompt from standard input.
  private static let maximumPromptByteCount = 64 << 20

  func validate() throws {
    guard maxTokens > 0 else {
      throw ValidationError("--max-tokens is \(maxTokens), expected 1 or more")
    }
    guard temperature >= 0, temperature.isFinite else {
      throw ValidationError("--temperature is \(temperature), expected 0 or more")
    }
    guard topK ?? 1 > 0 else {
      throw ValidationError("--top-k is \(topK ?? 0), expected 1 or more")
    }
    guard topP ?? 1 > 0, topP ?? 1 <= 1 else {
      throw ValidationError("--top-p is \(topP ?? 0), expected more than 0 and 1 at most")
    }
    guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
      throw ValidationError(
        "--repetition-penalty is \(repetitionPenalty), expected more than 0")
    }
    if temperature == 0, topK != nil || topP != nil {
      throw ValidationError("--top-k and --top-p go with --temperature")
    }
    if !chat, system != nil || chatTemplate != nil {
      throw ValidationError("--system and --chat-template go with --chat")
    }
    if let empty = stop.first(where: \.isEmpty) {
      throw ValidationError("--stop is '\(empty)', expected a text")
    }
    if swap {
      guard prompt == nil else {
        throw ValidationError("--swap reads prompts from standard input, PROMPT is one already")
      }
      if let fault = NamedAdapter.fault(in: options.adapters.map(NamedAdapter.init)) {
        throw ValidationError(fault)
      }
    } else if prompt == nil, Terminal.isTerminal(STDIN_FILENO) {
      throw ValidationError(
        "Missing expected argument '<prompt>', and standard input is a terminal")
    }
  }

  func run() throws {
    // What is wrong with the words is told before gigabytes are read.
    let named = try chatTemplate.map { (name) throws(PeftoolError) in
      try ChatTemplate(named: name)
    }
    if swap { return try answerLines(template: named) }
    let text = try promptText()
    let language = try LanguageModel(opening: model, options)
    let form = try promptForm(language, named)
    let tokens = try form.tokens(of: text, language)
    let generation = generation(language, form)
    let result = try generation.run(tokens, team: options.team) { (piece) throws(PeftoolError) in
      if !options.json { try StandardOutput.print(piece) }
    }
    let report = GenerationReport(
      language: language, notes: language.notes + form.notes, promptTokenCount: tokens.count,
      result: result, seed: seed)
    if options.json {
      try StandardOutput.print(report.json.text(indent: 2) + "\n")
    } else {
      // On a terminal what follows has a line of its own; what goes into a file stays as it is.
      let isShown = Terminal.isTerminal(STDOUT_FILENO)
      try StandardOutput.print(isShown ? "\n" : "")
      if !options.quiet {
        if !isShown, Terminal.isTerminal(STDERR_FILENO) { writeToStandardError("\n") }
        writeToStandardError(report.text)
      }
    }
  }

  /// The prompt, from the argument or from standard input.
  private func promptText() throws(PeftoolError) -> String {
    if let prompt, prompt != DataInput.standardInputPath { return prompt }
    let input = try DataInput(opening: DataInput.standardInputPath)
    var (bytes, offset) = try input.all(limit: Self.maximumPromptByteCount)
    if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
    do throws(PeftoolError) {
      try bytes.checkUTF8(baseOffset: offset)
    } catch {
      throw error.at(path: input.path)
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Answers the lines of standard input; `Formats/json-output.md` describes the answers.
  ///
  /// - Throws: as `AdapterChoice`, `PromptForm` and `PromptLines.answer`.
  private func answerLines(template: ChatTemplate?) throws(PeftoolError) {
    let choice = try AdapterChoice(
      opening: model, options.adapters.map(NamedAdapter.init), options)
    let form = try promptForm(choice.base, template)
    if !options.quiet {
      writeToStandardError(
        (choice.notes + form.notes).map { "note: \($0)\n" }.joined())
    }
    let lines = PromptLines(choice: choice, form: form, seed: seed, team: options.team) {
      generation($0, form)
    }
    try lines.answer()
  }

  private func promptForm(
    _ language: LanguageModel, _ named: ChatTemplate?
  ) throws(PeftoolError) -> PromptForm {
    guard chat else { return PromptForm(language) }
    return try PromptForm(language, chat: named, system: system)
  }

  private func generation(_ language: LanguageModel, _ form: PromptForm) -> TextGeneration {
    TextGeneration(
      language: language,
      sampling: Sampling(
        temperature: temperature, topK: topK, topP: topP, repetitionPenalty: repetitionPenalty,
        seed: seed),
      endTokens: form.endTokens, stops: stop, maximumTokenCount: maxTokens)
  }
}
