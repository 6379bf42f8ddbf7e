import ArgumentParser
import Checkpoints
import Files
import Reports

/// What every verb that writes a model takes.
struct WritingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Write new shards of at most this size, such as 5GB or 500MB.", valueName: "size"),
    transform: { try ShardPlan.byteCount($0) })
  var shardSize: Int?

  @OptionGroup var run: RunOptions

  var threads: Int? { run.threads }
  var force: Bool { run.force }
  var quiet: Bool { run.quiet }
  var json: Bool { run.json }

  /// Prints a summary, of which only the form that is wanted is made; where the model itself goes to
  /// standard output, to standard error.
  func report(
    to destination: ModelOutput.Destination, text: (_ width: Int) -> String, json: () -> String
  ) throws(PeftoolError) {
    guard self.json || !quiet else { return }
    let summary = self.json ? json() : text(StandardOutput.width)
    if case .stream = destination {
      writeToStandardError(summary)
    } else {
      try StandardOutput.print(summary)
    }
  }
}

/// What `-o` names: `-` is a stream, what ends in .safetensors one file, all else a directory.
extension ModelOutput.Destination {
  init(argument text: String) {
    self =
      if text == "-" {
        .stream
      } else if text.hasSuffix(".safetensors") {
        .file(text)
      } else {
        .directory(text)
      }
  }

  var isDirectory: Bool { if case .directory = self { true } else { false } }

  /// Refuses what cannot be meant.
  ///
  /// - Parameters:
  ///   - verb: who writes, for the message.
  ///   - reason: why it has to be a directory; nil where a file or a stream will do.
  func validate(_ verb: String, shardSize: Int?, onlyDirectory reason: String? = nil) throws {
    if let reason, !isDirectory { throw ValidationError("-o has to be a directory: \(reason)") }
    if case .directory("") = self { throw ValidationError("-o names nothing") }
    if case .stream = self, StandardOutput.terminalWidth != nil {
      throw ValidationError("-o - writes a model, and standard output is a terminal")
    }
    if case .directory(let path) = self,
      let ending = Self.endings.first(where: path.lowercased().hasSuffix)
    {
      throw ValidationError(
        "-o ends in \(ending), and \(verb) writes safetensors: name a directory"
          + (reason == nil ? " or a .safetensors file" : ""))
    }
    if shardSize != nil, !isDirectory {
      throw ValidationError("--shard-size is for a directory, -o names one file")
    }
  }

  /// The endings of files of tensors, in any case: no folder's.
  static let endings = [
    ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".zst", ".safetensors",
  ]
}
