package import ArgumentParser

/// The command `peftool`: a table of its verbs.
package struct Peftool: ParsableCommand {
  /// What `--version` prints.
  package static let version = "0.1.0"

  package static let configuration = CommandConfiguration(
    commandName: "peftool",
    abstract: "Looks into, checks, compares and merges language models and their adapters.",
    discussion: """
      Reads and writes safetensors checkpoints and PEFT adapters, by blocks, without Python, GPU \
      or network. Results go to standard output; progress, notes and errors to standard error. \
      Files are known by their content.

      Exit status: 0 done; 1 the answer is no (diff, verify); 2 could not; 64 wrong usage; \
      130 interrupted.
      """,
    version: version,
    subcommands: [
      Inspect.self, Verify.self, Diff.self, ConvertCommand.self, MergeCommand.self,
      QuantizeCommand.self, DequantizeCommand.self, CombineCommand.self, ScaleCommand.self,
      ResizeCommand.self, PruneCommand.self, ExtractCommand.self, TransferCommand.self,
      TokenizeCommand.self,
      PlanCommand.self, FinetuneCommand.self, EvaluateCommand.self, GenerateCommand.self,
    ])

  package init() {}
}
