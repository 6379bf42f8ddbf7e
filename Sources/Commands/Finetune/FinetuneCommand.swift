import ArgumentParser
import Examples
import Files
import JSON
import Tensors
import Training

/// `peftool finetune`: trains an adapter on the processor.
struct FinetuneCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "finetune",
    abstract: "Trains an adapter of a model of the Llama family, or the model itself.",
    discussion: """
      Reads MODEL, which stays as it is, and the examples of --data; writes OUT, an adapter as PEFT \
      saves it, or with --method full and galore a model, with log.jsonl, a JSON object for each step.

        peftool finetune SmolLM2-135M --data train.jsonl -o tuned --rank 16 --epochs 2
        peftool finetune SmolLM2-135M --data train.jsonl -o tuned --rank 16 --epochs 2 --resume
        peftool finetune SmolLM2-135M --data train.jsonl -o q --dora --quantize nf4
        peftool finetune SmolLM2-135M --data train.jsonl -o t --trainable-tokens 17,18
        peftool finetune SmolLM2-135M --data more.jsonl -o better --adapter tuned
        peftool finetune SmolLM2-135M --data train.jsonl -o a --method adalora --max-steps 50
        peftool finetune SmolLM2-135M --data train.jsonl -o f --rank auto --mean-rank 8
        peftool finetune SmolLM2-135M --data train.jsonl -o s --method shira --rank 4
        peftool finetune SmolLM2-135M --data train.jsonl -o l --long --packing
        peftool finetune SmolLM2-135M --data train.jsonl -o model --method galore --dtype f32

      Lines of --data are {"text"}, {"prompt", "completion"} or {"messages"}; a table (.csv) has a \
      column text, or prompt and completion, a plain text (.txt) is cut into pieces, and tokens come from \
      .safetensors. Of prompts and completions the completions are learnt, of conversations the \
      assistant's turns. Formats/training-data.md has the details.

      --init pissa, olora and loftq begin with factors of the weight itself. The adapter that is \
      written fits MODEL as it is, of twice the rank for pissa and olora; what loftq makes fits \
      MODEL as 'peftool quantize' codes it. With --quantize nf4, pissa takes the factors of the \
      weight as it is coded, where QPiSSA would code what they leave of it. --adapter goes on from \
      an adapter that there is, with all that it trains.

      --method lora-fa leaves A as it is drawn and trains B alone, each step of it as near to that \
      of the whole weight as A allows; the memory of A's gradient and moments is saved. The adapter \
      is one of LoRA. Steps are those of PEFT's LoraFAOptimizer in f32.

      --method qa-lora is for a MODEL in INT4 by groups (quantize --type int4): A sees the mean of \
      each group of inputs, so that what is trained is one number for each group of a row, which \
      'merge' adds to the offsets of MLX's files without a loss, where no sum with a LoRA fits. Of \
      GPTQ, AWQ and HQQ, which have zero points, the adapter is used beside MODEL, or merged into what \
      'convert --layout mlx' makes of it, with the same codes. PEFT's use_qalora with qalora_group_size is what is written, \
      and its scale what is used: means times the number of groups, in / group size. The authors' \
      program has 1 there and their paper the group size: --alpha-pattern makes that of them, with an \
      alpha that is in / group size times less for the one, and in / group size^2 for the other. \
      Groups are those of MODEL, of one size in all layers with adapters.

        peftool quantize Llama-3.2-3B -o codes --type int4 --group-size 32
        peftool finetune codes --data train.jsonl -o pooled --method qa-lora

      --method adalora trains B*diag(E)*A with rank --init-r everywhere, and prunes the singular \
      values E of least importance, of all layers together, until --rank is left in the mean: layers \
      that need more keep more. The loss told has the term by which A and B stay orthonormal; that of \
      evaluations has not. PEFT loads the adapter, 'merge' takes it, and 'convert --to lora' makes \
      LoRA of it. Ranks are pruned after step --tinit, fast at first; --tfinal steps before the end \
      --rank is met, and only evaluations from there on count as best or for --early-stop.

      --rank auto finds the ranks of LoRA and DoRA: all layers begin with --max-rank, and after half \
      of the steps each update B*A is brought to its singular values, without a change of what it \
      computes, and cut to those that --rank-by wants: for budget the best of all layers together \
      that --mean-rank or --budget has room for, each with its squared singular values, exactly; for \
      energy and effective-rank those of each layer by itself. Training goes on with the moments \
      turned alike. The adapter is one of LoRA with rank_pattern, and the report says what each layer \
      has got: its rank, the energy kept and the effective rank that it had. Evaluations before that \
      step count neither as best nor for --early-stop.

      --sparsity makes A and B sparse while they are trained: from a tenth of the steps to half of \
      them the share of zeros grows to it, of each factor the smallest entries (Zhu and Gupta 2017), \
      and the others make up for them; evaluations before that count neither as best nor for \
      --early-stop. PEFT loads it like any LoRA; 'convert -o OUT.zst' packs the \
      zeros away, 'prune' does the same after training.

      --method shira trains as many entries of each layer's weight as a LoRA of --rank has numbers, \
      at random or with --mask magnitude the largest, and writes their change, as PEFT's SHiRA does: \
      a sparse adapter of high rank, for 'merge'. The layers' weights are in f32 in memory; their \
      gradients are there one layer at a time. PEFT draws other random entries of the same seed.

      --method full trains all of the model, in f32, with AdamW; --method galore does so with less \
      memory: AdamW sees the gradients of the layers' matrices in the subspace of their --rank \
      largest singular vectors, found anew every --update-proj-gap steps, and its step there times \
      --scale is turned back. Embeddings and norms are trained as they are. Each gradient goes into \
      its subspace as soon as the backward pass has left its layer, so that one layer's gradients \
      are there at a time; they are clipped by the norm of the whole ones all the same. With \
      --gradient-accumulation all are added up, and take their memory. Steps are those of \
      galore_torch, with singular vectors signed so that they do not depend on whose SVD it is. OUT \
      has the files and the type of MODEL; --dtype f32 keeps what 16 bits would round off, for \
      'extract', which makes an adapter of the difference: exact, without weight decay, at --rank \
      times the number of subspaces.

      --long is LongLoRA: in training half of the heads see groups of --group-size tokens, and the \
      other half groups that lie half a group further on, so that time grows with the length and not \
      with its square; embeddings and norms are trained besides, and adapters are on q, k, v and o \
      unless --target-modules says otherwise. Nobody sees what comes later: of the authors' two \
      programs the one without flash attention lets the first tokens of a text see its end. \
      Evaluations, and the adapter in use, have full attention. A model with a sliding window is \
      refused. For texts longer than the model's positions --rope-scaling stretches those: linear \
      (position interpolation, a factor that is there already counts), yarn or dynamic. The adapter \
      comes with a config.json that says so, which 'merge', 'evaluate' and 'generate' heed; \
      transformers takes it as config=AutoConfig.from_pretrained(OUT).

      --optimizer adamw_8bit keeps AdamW's moments in 8 bits as bitsandbytes does, a scale for each \
      256, of parameters of 4096 numbers and more: 2 bytes a trained number in the place of 8. Each \
      is coded as the nearest value, as bitsandbytes does on GPUs; on CPUs its small ones are off.

      --modules-to-save trains modules whole, and --trainable-tokens rows of the embedding, in f32 \
      and beside the adapter, as PEFT does and saves them. Of a model whose two embeddings are one \
      table, that table is trained for both ends and they stay one (PEFT's ensure_weight_tying): \
      PEFT would otherwise train a copy for one end, and the ends would part. Weight decay is not \
      for norms and biases.

      Arithmetic is f32, step for step that of PEFT; weights stay in memory as they lie in the \
      file, those of a MODEL that bitsandbytes, MLX, GPTQ, AWQ or HQQ has quantized as their codes. The adapter is the same, byte for byte, for any number of threads.

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
  @OptionGroup(title: "Ranks that are found") var ranks: RankSearchOptions
  @OptionGroup(title: "AdaLoRA") var adaLoRA: AdaLoRAOptions
  @OptionGroup(title: "GaLore") var galore: GaLoreOptions
  @OptionGroup(title: "Long texts") var longTexts: LongTextOptions
  @OptionGroup(title: "Weights of the model") var weights: TrainedWeightOptions
  @OptionGroup(title: "Training") var training: TrainingOptions

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The folder to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: ArgumentHelp(
      "The type in which a model that is trained whole is written: f32, f16 or bf16; that of MODEL "
        + "if left out.", valueName: "type"))
  var dtype: ModelType?

  /// The types in which a model that is trained whole can be written.
  enum ModelType: String, CaseIterable, ExpressibleByArgument {
    case f32, f16, bf16
  }

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
    if let name = ranks.given.first, !adapter.searchesRanks {
      throw ValidationError("\(name) goes with --rank auto")
    }
    if adapter.searchesRanks, training.optimizer == .adamwEightBit {
      throw ValidationError(
        "--optimizer adamw_8bit goes without --rank auto, which turns the moments")
    }
    if let name = adaLoRA.given.first, adapter.method != .adaLoRA {
      throw ValidationError("\(name) goes with --method adalora")
    }
    if let name = galore.given.first, adapter.method != .galore {
      throw ValidationError("\(name) goes with --method galore")
    }
    if training.ratio != 1, adapter.method == .loraFA {
      throw ValidationError(
        "--loraplus-ratio goes without --method lora-fa, which has its own way with B")
    }
    guard adapter.method.takesWeights else {
      if dtype != nil { throw ValidationError("--dtype is for a model: of adapters all is F32") }
      return
    }
    if adapter.method == .shira, dtype != nil || longTexts.long {
      throw ValidationError(
        "\(dtype != nil ? "--dtype" : "--long") goes without --method shira, which trains linear "
          + "layers and saves F32")
    }
    for (name, isGiven) in [
      ("--modules-to-save", weights.modulesToSave != nil),
      ("--trainable-tokens", weights.trainableTokens != nil),
      ("--loraplus-ratio", training.ratio != 1),
    ] where isGiven {
      throw ValidationError(
        "\(name) goes beside an adapter of A and B, and --method \(adapter.method.rawValue) trains "
          + "weights themselves")
    }
  }

  /// How adapters are trained in so many steps.
  ///
  /// - Throws: as `AdaLoRAOptions.settings`.
  func method(stepCount: Int) throws(PeftoolError) -> MethodSettings {
    switch adapter.method {
    case .lora:
      if let sparsity = adapter.sparsity {
        .sparse(.init(sparsity: sparsity, stepCount: stepCount))
      } else if adapter.searchesRanks {
        .rankSearch(ranks.settings(stepCount: stepCount))
      } else {
        .lora
      }
    case .loraFA: .loraFA
    case .qaLoRA: .qaLoRA
    case .adaLoRA:
      .adaLoRA(try adaLoRA.settings(rank: adapter.usedRank, stepCount: stepCount))
    case .shira:
      .shira(
        .init(rank: adapter.usedRank, mask: adapter.mask ?? .random, seed: training.seed))
    case .full: .full
    case .galore:
      .galore(galore.settings(rank: adapter.usedRank, weightDecay: training.weightDecay))
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

extension FinetuneCommand.ModelType {
  /// The type of its elements.
  var dtype: DType {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    }
  }
}
