import Fixtures
import Foundation
import Testing

@testable import Tokenizers

@Suite struct NormalizationFormTests {
  private func normalized(_ form: NormalizationForm, _ text: String) throws -> String {
    var result = NormalizedText(
      Array(text.utf8), isFirst: true, growth: GrowthBudget(of: "a step", byteCount: 0))
    try form.normalize(&result)
    return String(decoding: result.bytes, as: UTF8.self)
  }

  /// Marks of five classes, with letters that some of them are composed with.
  @Test func marksComeInTheOrderOfTheirClasses() throws {
    let characters: [Unicode.Scalar] = [
      "a", "o", "\u{301}", "\u{323}", "\u{334}", "\u{302}", "\u{5B0}", "\u{327}", "\u{1E69}",
      "\u{AC00}", "\u{345}", " ", "\u{FB01}",
    ]
    var random = SplitMix64(seed: 11)
    for _ in 0..<300 {
      var scalars = String.UnicodeScalarView()
      for _ in 0..<Int.random(in: 1...12, using: &random) {
        scalars.append(characters[Int.random(in: 0..<characters.count, using: &random)])
      }
      let text = String(scalars)
      func isRight(composes: Bool, isCompatible: Bool, _ expected: String) throws -> Bool {
        let form = NormalizationForm(composes: composes, isCompatible: isCompatible)
        return try normalized(form, text).unicodeScalars.elementsEqual(expected.unicodeScalars)
      }
      // Foundation has an implementation of its own.
      #expect(
        try isRight(
          composes: true, isCompatible: false, text.precomposedStringWithCanonicalMapping))
      #expect(
        try isRight(
          composes: false, isCompatible: false, text.decomposedStringWithCanonicalMapping))
      #expect(
        try isRight(
          composes: true, isCompatible: true, text.precomposedStringWithCompatibilityMapping))
      #expect(
        try isRight(
          composes: false, isCompatible: true, text.decomposedStringWithCompatibilityMapping))
    }
  }

  /// Foundation's makes no one of these.
  @Test func syllablesOfHangulAreComposed() throws {
    let form = NormalizationForm(composes: true, isCompatible: false)
    let composed = try normalized(form, "\u{1100}\u{1161}\u{11A8}\u{AC00}\u{11A8}")
    #expect(composed.unicodeScalars.elementsEqual("\u{AC01}\u{AC01}".unicodeScalars))
  }

  /// By swapping neighbours these would be 10,000,000,000 steps.
  @Test(.timeLimit(.minutes(1)))
  func aRunOfManyMarksIsOrderedInNoTime() throws {
    let count = 100_000
    let (above, below) = (
      String(repeating: "\u{301}", count: count), String(repeating: "\u{323}", count: count)
    )
    let form = NormalizationForm(composes: true, isCompatible: false)
    let right = "\u{1EA1}".unicodeScalars + below.unicodeScalars.dropFirst() + above.unicodeScalars
    #expect(try normalized(form, "a" + above + below).unicodeScalars.elementsEqual(right))
  }
}
