import Adapters
import ArgumentParser
import Files
import LinearAlgebra
import Reports

/// `peftool scale`: an adapter times a number.
struct ScaleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scale",
    abstract: "Multiplies an adapter's whole change of the model by a number.",
    discussion: """
      Writes OUT, an adapter whose change is that of ADAPTER times X: A stays as it is, and the \
      number and the adapter's own scaling go into B. With -1 it takes away what it had added.

        peftool scale my-adapter --by 0.5 -o half

      Of a DoRA adapter the number multiplies the whole change, too, direction and magnitude: that \
      takes the base, and another B and magnitude for each row.

        peftool scale dora-a --by 0.5 --base Llama-3.2-1B -o half

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The adapter's directory.", completion: .directory)
  var adapter: String

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The number.", valueName: "x"))
  var by: Double

  @Option(
    name: .shortAndLong, help: ArgumentHelp("The directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(help: "The model that a DoRA adapter is for.", completion: .file())
  var base: String?

  @OptionGroup var writing: AdapterWritingOptions

  func validate() throws {
    try AdapterWritingOptions.validate(output: output)
    guard by.isFinite, by != 0 else {
      throw ValidationError("--by is \(by), expected a number other than 0")
    }
  }

  func run() throws {
    try OpenBLAS.prepare()
    let base = try BaseModel(at: base)
    let combination = try Combination(
      [Operand(opening: adapter, base: base)], weights: [Parameter(by)], base: base,
      CombinationSettings())
    let job = ArithmeticJob(
      arithmetic: combination,
      method: ("scale", "the whole change times \(by.measureText)"), output: output)
    try writing.report(job.run(writing, label: "scaling"))
  }
}
