import ArgumentParser
import Examples
import Files
import JSON
import Training

/// `peftool finetune`: trains an adapter on the processor.
struct FinetuneCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "finetune",
    abstract: "Trains a LoRA or DoRA adapter of a model of the Llama family.",
    discussion: """
      Reads MODEL, which stays as it is, and the examples of --data; writes OUT, an adapter as PEFT \
      saves it, with log.jsonl, a JSON object for each step.

        peftool finetune SmolLM2-135M --data train.jsonl -o tuned --rank 16 --epochs 2
        peftool finetune SmolLM2-135M --data train.jsonl -o tuned --rank 16 --epochs 2 --resume
        peftool finetune SmolLM2-135M --data train.jsonl -o q --dora --quantize nf4
        peftool finetune SmolLM2-135M --data train.jsonl -o t --trainable-tokens 17,18
        peftool finetune SmolLM2-135M --data more.jsonl -o better --adapter tuned

      Lines of --data are {"text"}, {"prompt", "completion"} or {"messages"}; a table (.csv) has a \
      column text, or prompt and completion, a plain text (.txt) is cut into pieces, and tokens come from \
      .safetensors. Of prompts and completions the completions are learnt, of conversations the \
      assistant's turns. Formats/training-data.md has the details.

      --init pissa, olora and loftq begin with factors of the weight itself. The adapter that is \
      written fits MODEL as it is, of twice the rank for pissa and olora; what loftq makes fits \
      MODEL as 'peftool quantize' codes it. With --quantize nf4, pissa takes the factors of the \
      weight as it is coded, where QPiSSA would code what they leave of it. --adapter goes on from \
      an adapter that there is, with all that it trains.

      --modules-to-save trains modules whole, and --trainable-tokens rows of the embedding, in f32 \
      and beside the adapter, as PEFT does and saves them. Of a model whose two embeddings are one \
      table, that table is trained for both ends and they stay one (PEFT's ensure_weight_tying): \
      PEFT would otherwise train a copy for one end, and the ends would part. Weight decay is not \
      for norms and biases.

      Arithmetic is f32, step for step that of PEFT; weights stay in memory as they lie in the \
      file, those of a MODEL that bitsandbytes, MLX, GPTQ or AWQ has quantized as their codes. The adapter is the same, byte for byte, for any number of threads.

      With --eval-data the adapter written is that of the best evaluation. --save-every writes \
      checkpoints into OUT, and so does Ctrl-C after the step that is being made; --resume goes on \
      from the last one as if there had been no break.

      --config has options of training by their names, such as learning-rate: 1e-4, with values as \
      on the command line, which wins. MODEL, --output and what is printed are not for it.

      --lora-bias on layers that have no bias of their own, as those of Llama, makes an adapter that \
      is applied beside the weights only: 'merge' refuses it, as PEFT does.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The model's folder.", completion: .file())
  var model: String

  @OptionGroup(title: "Data") var data: TrainingDataOptions
  @OptionGroup(title: "Adapter") var adapter: AdapterDesignOptions
  @OptionGroup(title: "Weights of the model") var weights: TrainedWeightOptions
  @OptionGroup(title: "Training") var training: TrainingOptions

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: ArgumentHelp(
      "A file of options by their names (YAML); what is given here wins.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var config: String?

  @Option(
    help: ArgumentHelp("Write a page with curves and settings.", valueName: "html"),
    completion: .file(extensions: ["html"]))
  var report: String?

  @Flag(help: "Go on from the last checkpoint in OUT.")
  var resume = false

  @Flag(help: "Only say what would be done, how long it would take and in how much memory.")
  var dryRun = false

  @Option(
    help: ArgumentHelp("The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  func validate() throws {
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads is \(threads), expected 1 to 1024")
    }
    for (name, isGiven) in [
      ("--eval-every", training.evaluateEvery != nil), ("--early-stop", training.patience != nil),
    ] where isGiven && data.evaluationPaths.isEmpty {
      throw ValidationError("\(name) goes with --eval-data")
    }
  }

  func run() throws {
    let job = try FinetuneJob(self)
    if dryRun {
      let plan = job.measuredPlan()
      try StandardOutput.print(
        json ? plan.json.text(indent: 2) + "\n" : plan.text(width: StandardOutput.width))
      return
    }
    let report = try job.run()
    if json {
      try StandardOutput.print(report.json.text(indent: 2) + "\n")
    } else if !quiet {
      try StandardOutput.print(report.text(width: StandardOutput.width))
    }
    if case .interrupted = report.ending { throw ExitCode(130) }
  }
}
