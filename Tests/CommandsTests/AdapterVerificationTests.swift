import Files
import Foundation
import Tensors
import Fixtures
import Testing

@testable import Commands

/// Faults of adapters.
@Suite struct AdapterVerificationTests {
  private let folder: Scratch

  init() throws { folder = try Scratch() }

  /// A tensor of ones with an adapter's name.
  private func part(_ name: String, _ shape: [Int], _ dtype: DType = .f32) -> TestTensor {
    let byteCount = shape.reduce(1, *) * dtype.bitCount / 8
    return TestTensor(
      "base_model.model.\(name)", dtype, shape, bytes: [UInt8](repeating: 0, count: byteCount))
  }

  /// The two halves of a module's LoRA on a layer with 4 inputs and 6 outputs.
  private func pair(_ module: String, rank: Int = 2) -> [TestTensor] {
    [
      part("\(module).lora_A.weight", [rank, 4]), part("\(module).lora_B.weight", [6, rank]),
    ]
  }

  private func verification(
    _ settings: String, _ tensors: [TestTensor], base: [TestTensor]? = nil
  ) throws -> Verification {
    try folder.write("a/adapter_model.safetensors", tensors)
    try folder.write(
      "a/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 2\(settings)}")
    if let base { try folder.write("base/model.safetensors", base) }
    return try Verification(
      folder.path("a"), base: base == nil ? nil : folder.path("base"), threads: 2)
  }

  /// The faults as printed, without the file and the names' common beginning.
  private func faults(
    _ settings: String, _ tensors: [TestTensor], base: [TestTensor]? = nil
  ) throws -> [String] {
    try verification(settings, tensors, base: base).faults.map {
      $0.description
        .replacingOccurrences(
          of: folder.path("a/adapter_model.safetensors") + ": tensor 'base_model.model.", with: "'"
        )
        .replacingOccurrences(of: folder.path("a/adapter_"), with: "")
    }
  }

  @Test func aWholeAdapterHasNone() throws {
    #expect(try faults(", \"target_modules\": [\"q\"]", pair("x.q") + pair("y.q")) == [])
  }

  @Test func eachHalfWithoutTheOtherIsTold() throws {
    let tensors = [
      part("a.lora_A.weight", [2, 4]), part("b.lora_B.weight", [6, 2]),
      part("c.lora_embedding_A", [2, 9]), part("d.lora_magnitude_vector", [6]),
    ]
    #expect(
      try faults("", tensors) == [
        "'a.lora_A.weight': has no lora_B beside it",
        "'b.lora_B.weight': has no lora_A beside it",
        "'c.lora_embedding_A': has no lora_embedding_B beside it",
        "'d.lora_magnitude_vector': has no lora_A beside it",
      ])
  }

  @Test func settingsAndPartsBelongTogether() throws {
    let magnitude = part("q.lora_magnitude_vector", [6])
    let bias = part("q.lora_B.bias", [6])
    #expect(try faults(", \"use_dora\": true", pair("q") + [magnitude]) == [])
    #expect(try faults(", \"lora_bias\": true", pair("q") + [bias]) == [])
    #expect(
      try faults("", pair("q") + [magnitude, bias]) == [
        "'q.lora_magnitude_vector': belongs to use_dora, which the configuration has not",
        "'q.lora_B.bias': belongs to lora_bias, which the configuration has not",
      ])
    #expect(
      try faults(", \"use_dora\": true, \"lora_bias\": true", pair("q")) == [
        "'q.lora_A.weight': has no lora_magnitude_vector beside it, the configuration has use_dora",
        "'q.lora_A.weight': has no lora_B.bias beside it, the configuration has lora_bias",
      ])
  }

  @Test func ranksAreTheConfigurations() throws {
    let patterns = ", \"rank_pattern\": {\"v\": 3}"
    #expect(try faults(patterns, pair("q") + pair("v", rank: 3)) == [])
    #expect(
      try faults(patterns, pair("q", rank: 3) + pair("v")) == [
        "'q.lora_A.weight': has rank 3, the configuration gives rank 2",
        "'v.lora_A.weight': has rank 2, the configuration gives rank 3",
      ])
    let odd = [part("q.lora_A.weight", [2, 4]), part("q.lora_B.weight", [6, 3])]
    #expect(
      try faults("", odd) == [
        "'q.lora_A.weight': has shape [2, 4] and 'base_model.model.q.lora_B.weight' [6, 3], "
          + "expected one rank: the rows of the first, the columns of the second"
      ])
  }

  @Test func namesAndDTypesArePEFTs() throws {
    let strange = [
      TestTensor("lora.q", .f32, [1] as [Float]), part("v.lora_A.weight", [2, 4], .i8),
      part("v.lora_B.weight", [6, 2]), part("v.lora_B", [6, 2]),
    ]
    let found = try faults("", strange)
    #expect(found.count == 3)
    #expect(found.first?.contains("tensor 'lora.q': is no key of PEFT's, expected") == true)
    #expect(
      found.dropFirst().map { String($0.prefix(60)) }
        == [
          "'v.lora_A.weight': is I8, expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2",
          "'v.lora_B': means the same as 'base_model.model.v.lora_B.weight'",
        ].map { String($0.prefix(60)) })
  }

  @Test func targetModulesNameTheModules() throws {
    let tensors = pair("x.q") + pair("x.v")
    #expect(
      try faults(", \"target_modules\": [\"q\", \"k\"]", tensors) == [
        "'x.v.lora_A.weight': is for a module that target_modules does not name"
      ])
    #expect(try faults(", \"target_modules\": \".*\"", tensors) == [])
  }

  @Test func theConfigurationIsValid() throws {
    #expect(
      try faults(", \"use_dora\": \"false\"", pair("q")) == [
        "config.json: use_dora is \"false\", expected true or false"
      ])
  }

  @Test func anUnknownMethodIsNotedAndWithABaseAFault() throws {
    let settings = ", \"kasa_config\": {}"
    let alone = try verification(settings, pair("q"))
    #expect(alone.faults == [])
    #expect(alone.notes.count == 1)
    let base = [TestTensor("q.weight", .f32, [Float](repeating: 0, count: 24), shape: [6, 4])]
    #expect(try faults(settings, pair("q"), base: base).count == 1)
  }

  @Test func anAdapterWithoutItsConfigurationIsAFault() throws {
    try folder.write("a/adapter_model.safetensors", pair("q"))
    let found = try Verification(folder.path("a"), base: nil, threads: 1)
    #expect(found.faults.map(\.reason) == ["has no adapter_config.json beside it"])
  }

  @Test func everyModuleFindsItsTensorAndFits() throws {
    func weight(_ name: String, _ shape: [Int]) -> TestTensor {
      TestTensor(name, .f32, [Float](repeating: 0, count: shape.reduce(1, *)), shape: shape)
    }
    let tensors = pair("x.q") + pair("x.k") + pair("x.w")
    let base = [weight("x.q.weight", [6, 4]), weight("x.k.weight", [5, 4])]
    #expect(try faults("", pair("x.q"), base: base) == [])
    let found = try faults("", tensors, base: base)
    #expect(found.count == 2)
    #expect(found.first?.contains("for 'x.k.weight'") == true)
    #expect(found.last?.contains("matches no tensor 'x.w.weight' of") == true)
    // What is told without the base is not told again.
    let half = [part("x.q.lora_A.weight", [2, 4])]
    #expect(
      try faults("", half, base: base) == ["'x.q.lora_A.weight': has no lora_B beside it"])
  }
}
