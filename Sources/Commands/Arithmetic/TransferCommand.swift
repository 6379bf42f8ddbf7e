import Adapters
import ArgumentParser
import Checkpoints
import Files
import LinearAlgebra
import Tokenizers

/// `peftool transfer`: an adapter for a similar model.
struct TransferCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "transfer",
    abstract: "Moves an adapter to a similar model, and tells how much of it survives.",
    discussion: """
      Writes OUT, an adapter for the model --to, out of one that was made for the model --from. \
      By the first three methods both have the same shapes: other checkpoints of one model, say before \
      and after more training. --method procrustes takes other widths and depths, too.

        peftool transfer my-adapter --from Llama-3.2-1B --to merged -o moved
        peftool transfer my-lora --from Llama-3.2-1B --to merged -o moved --method procrustes

      Subspaces are those of the leading singular vectors of each weight, --subspace of them or all \
      where it has fewer. By --method prolora what of the factors lies inside of those of the old \
      weight is projected into those of the new, and what lies outside to their outside; lora-x keeps \
      what lies inside of the new ones, and drops the rest: for adapters that were trained so. Both are \
      for models that are near to each other. By cross-lora factors are carried from the singular \
      vectors of the old weight to those of the new: for a weight that is the old one in turned \
      coordinates, by less than a right angle, whose singular values differ. The sign of each pair is \
      that which brings it nearer to its counterpart; without that the result is noise.

      By procrustes, for models of the Llama family (llama, mistral, qwen2, qwen3), factors are carried \
      with the stream that all layers read and add to: R, the orthonormal matrix that brings the \
      embeddings of the tokens of both models nearest to each other (the polar factor of Es' * Et), \
      takes the one stream to the other, whatever its width. With g the weight of the norm before a \
      layer and H the width, A becomes sqrt(Hs/Ht) * A * diag(gs) * R * diag(1/gt) where the layer \
      reads the stream, and B becomes c * R' * B where it adds to it, c the number that brings \
      c * Es * R nearest to Et. That is exact where the new stream is the old one turned, scaled, or \
      laid into a wider one. lm_head is moved where all tokens have the same numbers. Heads and the width inside of the \
      feed-forward layers have no such map: where these differ, it is refused. Layer l of the new \
      model gets what the old one has in layer l * (Ls - 1) / (Lt - 1), rounded, halves up. Tokens are \
      the same where their texts are, by both tokenizer.json; where one has none, by their numbers, if \
      there are as many.

      The report tells by layer how far the subspaces of both weights overlap, norm(Us' * Ut)^2 / k on \
      the side of the outputs and of the inputs, for the k leading vectors, a quarter of all at most; \
      of unrelated weights it is a quarter or less. With cross-lora it tells the mean cosine of the \
      vectors, too, and looks at that instead. With procrustes weights are compared as they read and \
      write the new stream, and the cosine of the embeddings, which a note tells, has to reach \
      --threshold as well. The kept energy is norm(B*A)^2 after over before. Where one of these is below \
      --threshold nothing is written, and the layer is named; a lower one moves the adapter all the \
      same. Of an adapter that was trained with positions stretched, what is moved has the new model's, \
      stretched as much.

      LoRA of linear layers is taken; DoRA, embeddings, convolutions, biases and modules that are saved \
      whole are refused. Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The adapter's directory.", completion: .directory)
  var adapter: String

  @Option(
    help: ArgumentHelp("The model that it was made for.", valueName: "model"), completion: .file())
  var from: String

  @Option(
    help: ArgumentHelp("The model that it is to fit.", valueName: "model"), completion: .file())
  var to: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(help: "How factors are carried: prolora, lora-x, cross-lora or procrustes.")
  var method = Transfer.Method.proLoRA

  @Option(help: ArgumentHelp("The singular vectors on each side.", valueName: "k"))
  var subspace = 320

  @Option(
    help: ArgumentHelp(
      "What overlap, alignment and kept energy of a layer have to be, 0 to 1.", valueName: "share"))
  var threshold = 0.5

  @Option(help: ArgumentHelp("What random numbers are drawn from.", valueName: "n"))
  var seed: UInt64 = 0

  @Flag(help: "Decompose by LAPACK, however large the weights.")
  var exact = false

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    try AdapterWritingOptions.validate(output: output)
    guard subspace >= 1 else {
      throw ValidationError("--subspace is \(subspace), expected 1 or more")
    }
    guard threshold >= 0, threshold <= 1 else {
      throw ValidationError("--threshold is \(threshold), expected 0 to 1")
    }
  }

  func run() throws {
    try OpenBLAS.prepare()
    var options = Transfer.Options()
    options.method = method
    options.subspace = subspace
    options.threshold = threshold
    options.decomposition.isExact = exact
    options.decomposition.seed = seed
    let models = try (source: Checkpoint(opening: from), target: Checkpoint(opening: to))
    let source = try BaseModel(models.source.adaptable)
    let target = try BaseModel(models.target.adaptable)
    if method == .procrustes {
      options.sharedTokens = try Transfer.SharedToken.all(beside: models.source, models.target)
    }
    let transfer = try Transfer(
      Operand(opening: adapter, base: source), from: source, to: target, options)
    let job = ArithmeticJob(
      arithmetic: transfer, method: (method.rawValue, method.summary), output: output)
    try writing.report(job.run(writing, label: "transferring"))
  }
}

extension Transfer.SharedToken {
  /// The tokens of one text in the tokenizers beside two models; nil where one of them has none.
  ///
  /// - Throws: as `Tokenizer`.
  fileprivate static func all(
    beside source: Checkpoint, _ target: Checkpoint
  ) throws(PeftoolError) -> [Transfer.SharedToken]? {
    func path(_ model: Checkpoint) -> String {
      Folder.path(Folder.parent(of: model.source.path), "tokenizer.json")
    }
    guard Folder.exists(path(source)), Folder.exists(path(target)) else { return nil }
    let tokenizers = (
      source: try Tokenizer(contentsOf: path(source)),
      target: try Tokenizer(contentsOf: path(target))
    )
    return (0..<tokenizers.source.vocabularySize).compactMap { id in
      guard let text = tokenizers.source.token(Int32(id)),
        let other = tokenizers.target.id(of: text)
      else { return nil }
      return Transfer.SharedToken(source: id, target: Int(other))
    }
  }
}

extension Transfer.Method: ExpressibleByArgument {
  /// What it does, in a line.
  fileprivate var summary: String {
    switch self {
    case .proLoRA: "inside of the old subspaces to inside of the new, outside to outside"
    case .loraX: "onto the subspaces of the new weights"
    case .crossLoRA: "from the singular vectors of the old weights to those of the new"
    case .procrustes: "with the hidden stream, as the embeddings of shared tokens turn it"
    }
  }
}
