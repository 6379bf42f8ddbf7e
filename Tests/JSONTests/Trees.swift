import Fixtures
import JSON

/// A text with what a writer has to escape, and with more than one way to be read wrongly.
func randomString(_ random: inout SplitMix64) -> String {
  let pieces = [
    "a", "B", "0", "-", "\"", "\\", "/", "\u{0}", "\u{1F}", "\u{7F}", "\n", "é", "e\u{301}",
    "\u{2028}", "\u{FFFF}", "😀", "{", "}", "[", "]", ",", ":", " ", "u0041",
  ]
  return (0..<Int.random(in: 0...6, using: &random)).map { _ in
    pieces[Int.random(in: pieces.indices, using: &random)]
  }.joined()
}

/// A value of up to `depth` levels of containers.
func randomJSON(_ random: inout SplitMix64, depth: Int) -> JSON {
  switch Int.random(in: 0...(depth > 0 ? 6 : 4), using: &random) {
  case 0: return .null
  case 1: return .bool(Bool.random(using: &random))
  case 2: return .number(Int.random(in: .min ... .max, using: &random))
  case 3: return .number(Double.random(in: -1e20...1e20, using: &random))
  case 4: return .string(randomString(&random))
  case 5:
    return .array(
      (0..<Int.random(in: 0...4, using: &random)).map { _ in
        randomJSON(&random, depth: depth - 1)
      })
  default:
    return .object(
      (0..<Int.random(in: 0...4, using: &random)).map { place in
        // Keys may have no U+0000, and none stands twice.
        let key = randomString(&random).unicodeScalars.filter { $0.value != 0 }
        return .init(
          "\(place)" + String(String.UnicodeScalarView(key)),
          randomJSON(&random, depth: depth - 1))
      })
  }
}
