import Fixtures
import Testing

@testable import Tokenizers

@Suite struct TokenSearchTests {
  @Test func theLongestAtTheFirstPlaceIsFound() {
    var search = TokenSearch()
    for (id, text) in ["ab", "abcd", "bc", "b"].enumerated() {
      #expect(search.insert(Array(text.utf8), id: Int32(id)) == nil)
    }
    #expect(search.insert(Array("bc".utf8), id: 9) == 2)
    func found(_ text: String, from place: Int = 0) -> Int32? {
      search.next(in: Array(text.utf8).span, from: place)?.id
    }
    #expect(found("xabcd") == 1 && found("xabce") == 0 && found("xabcd", from: 2) == 2)
    #expect(found("bx") == 3 && found("aa") == nil && found("") == nil)
  }

  /// Searches "aaa…" for runs of "a" that end in one of so many other bytes.
  private func seconds(endCount: UInt8) -> Double {
    var search = TokenSearch()
    var id: Int32 = 0
    for count in 1...100 {
      for end in 0..<endCount {
        _ = search.insert([UInt8](repeating: 0x61, count: count) + [0x80 | end], id: id)
        id += 1
      }
    }
    let text = [UInt8](repeating: 0x61, count: 3000)
    return processorSeconds {
      #expect(search.next(in: text.span, from: 0) == nil)
    }
  }

  @Test func howManyBranchesANodeHasMakesNoDifference() {
    #expect(seconds(endCount: 127) < seconds(endCount: 1) * 10)
  }
}
