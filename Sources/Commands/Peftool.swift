package import ArgumentParser

/// The command `peftool`.
package struct Peftool: ParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "peftool",
    abstract: "Looks into, checks, compares and merges language models and their adapters.")

  package init() {}
}
