import Foundation

/// What the tests of `finetune` train, and on what.
enum FinetuneSamples {
  static let base = Repository.sample("bases/llama-f32")

  /// The model that some options are for.
  static func model(for options: [String]) -> String {
    options.contains("qa-lora") ? Repository.sample("training/bases/llama3-int4") : base
  }

  /// A folder with rows to learn, and others to evaluate.
  static func place() throws -> Workplace {
    let place = try Workplace()
    try writeTokens(place, "train.safetensors", rows: 10, shift: 0)
    try writeTokens(place, "eval.safetensors", rows: 3, shift: 1)
    return place
  }

  /// Rows of tokens that repeat themselves, which is soon learnt.
  private static func writeTokens(
    _ place: borrowing Workplace, _ name: String, rows: Int, shift: Int
  ) throws {
    let length = 12
    let tokens = (0..<rows).flatMap { row in
      (0..<length).map { UInt32(3 + ((row + shift) * 7 + $0 % 4) % 90) }
    }
    try place.write(
      name,
      Safetensors.file([
        ("input_ids", "I32", [rows, length], tokens.map { Float(bitPattern: $0) })
      ]))
  }
}

extension Workplace {
  /// A run of `finetune` on the base and these rows.
  borrowing func finetune(_ arguments: String...) throws -> Run {
    try run(["finetune", FinetuneSamples.base, "--data", "train.safetensors"] + arguments)
  }
}
