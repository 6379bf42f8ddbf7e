import Patterns
import Tensors
import Testing

@testable import Commands

@Suite struct TensorGroupTests {
  private func tensor(_ name: String, _ shape: [Int] = [2], _ dtype: DType = .f32) -> TensorInfo {
    TensorInfo(name: name, dtype: dtype, shape: shape, byteRange: 0..<8)
  }

  @Test func layersShareALine() {
    let groups = TensorGroup.groups(
      of: ["h.10.w", "h.2.w", "a.w", "h.0.w", "h.1.w"].map { tensor($0) })
    #expect(groups.map(\.name) == ["a.w", "h.{0-2,10}.w"])
    #expect(groups.map(\.members) == [[2], [0, 1, 3, 4]])
  }

  @Test func othersDoNot() {
    let groups = TensorGroup.groups(of: [
      tensor("h.0.w"), tensor("h.1.w", [3]), tensor("h.2.w", [2], .f16), tensor("h.03.w"),
    ])
    #expect(Set(groups.map(\.name)) == ["h.0.w", "h.1.w", "h.2.w", "h.03.w"])
  }

  @Test func layersAndExpertsHaveRangesEach() {
    let tensors = (0..<6).map { tensor("l.\($0 / 2).e.\($0 % 2).w") }
    #expect(TensorGroup.groups(of: tensors).map(\.name) == ["l.{0-2}.e.{0-1}.w"])
  }

  @Test func aLongListBecomesItsEnds() {
    #expect(TensorGroup.listText((0..<40).map { 3 * $0 }) == "{0-117}")
    #expect(TensorGroup.listText([4]) == "4")
    #expect(TensorGroup.listText([1, 1]) == "1")
  }

  @Test func numbersSortByValueAndBeforeText() {
    let keys = ["a.2.b", "a.10.b", "a.b"].map { NumberedName($0).sortKey }
    #expect(keys[0].lexicographicallyPrecedes(keys[1]))
    #expect(keys[1].lexicographicallyPrecedes(keys[2]))
  }

  @Test func theNameOfAGroupMatchesItsMembers() throws {
    let names = (0..<30).map { "m.\($0).\($0 % 3).w" }
    for group in TensorGroup.groups(of: names.map { tensor($0) }) {
      let glob = try Glob(group.name)
      for member in group.members { #expect(glob.matches(names[member])) }
    }
  }

  /// A zero byte stands for a number inside; a name may have one of its own.
  @Test func aZeroByteInANameIsKept() {
    #expect(TensorGroup.groups(of: [tensor("a\0b.c")]).map(\.name) == ["a\0b.c"])
  }
}
