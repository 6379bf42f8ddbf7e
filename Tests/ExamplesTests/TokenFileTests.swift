import Examples
import Files
import Fixtures
import JSON
import Testing

private func read(
  _ tensors: [TokenTensor], maximum: Int = 99
) throws -> TokenExamples {
  try TokenExamples.read(tensors, vocabularySize: 100, maximum: maximum)
}

@Suite struct TokenFileTests {
  @Test func rowsAreExamplesWithoutTheirPadding() throws {
    var examples = TokenExamples()
    try examples.append(
      tokenFile: dataSample("tokens.safetensors"), vocabularySize: 400,
      length: .init(maximum: 12, truncates: false))
    let golden = try JSON(opening: dataSample("expected.json")).array(at: "texts").prefix(3)
    let right = try golden.map { example in
      try example.array(at: "ids").prefix(12).map { Int32(try $0.int(named: "id")) }
    }
    #expect(examples.all.map(\.ids) == right && examples.all.map(\.labels) == right)
  }

  @Test func aMaskSaysWhatIsLearnt() throws {
    let found = try read([
      TokenTensor("input_ids", "U16", [2, 4], [1, 2, 3, 4, 5, 6, 7, 8], width: 2),
      TokenTensor("label_mask", "U8", [2, 4], [0, 0, 1, 0, 1, 1, 0, 1], width: 1),
    ])
    #expect(
      found.all == [
        Labelled(ids: [1, 2, 3], labels: [-100, -100, 3]),
        Labelled(ids: [5, 6, 7, 8], labels: [5, 6, -100, 8]),
      ])
  }

  @Test func aFlatListIsCutByOffsets() throws {
    let found = try read([
      .i64("offsets", [3], [0, 2, 5]),
      TokenTensor("input_ids", "I32", [5], [1, 2, 3, 4, 5], width: 4),
      TokenTensor("labels", "I32", [5], [-100, 9, 3, -100, 8], width: 4),
    ])
    #expect(
      found.all == [
        Labelled(ids: [1, 2], labels: [-100, 9]), Labelled(ids: [3, 4, 5], labels: [3, -100, 8]),
      ])
    let cut = try read(
      [.i64("input_ids", [1, 4], [1, 2, 3, 4])], maximum: 3)
    #expect(cut.all == [Labelled(ids: [1, 2, 3], labels: [1, 2, 3])] && cut.cutTokenCount == 1)
  }

  @Test(
    arguments: [
      (
        [.i64("ids", [1, 2], [1, 2])],
        "tensor 'ids': is no part of a file of tokens, expected "
          + "input_ids, labels, label_mask, offsets"
      ),
      ([.i64("labels", [1, 2], [1, 2])], "has no tensor 'input_ids'"),
      (
        [TokenTensor("input_ids", "F32", [1, 1], [0], width: 4)],
        "tensor 'input_ids': dtype F32, expected I8 to I64, U8 to U32 or BOOL"
      ),
      (
        [.i64("input_ids", [2], [1, 2])],
        "tensor 'input_ids': shape [2], expected (N, T), or one dimension and offsets"
      ),
      (
        [.i64("input_ids", [1, 2], [1, 2]), .i64("offsets", [2], [0, 2])],
        "tensor 'input_ids': shape [1, 2] beside offsets, expected (N, T), or one dimension and "
          + "offsets"
      ),
      (
        [.i64("input_ids", [2], [1, 2]), .i64("offsets", [2], [0, 1])],
        "tensor 'offsets': expected numbers that ascend from 0 to 2"
      ),
      (
        [.i64("input_ids", [2], [1, 2]), .i64("offsets", [3], [0, 3, 2])],
        "tensor 'offsets': expected numbers that ascend from 0 to 2"
      ),
      (
        [.i64("input_ids", [2], [1, 2]), .i64("offsets", [1, 2], [0, 2])],
        "tensor 'offsets': shape [1, 2], expected one dimension"
      ),
      (
        [.i64("input_ids", [1, 2], [1, 2]), .i64("labels", [2, 1], [1, 2])],
        "tensor 'labels': shape [2, 1], expected [1, 2] as input_ids has"
      ),
      (
        [
          .i64("input_ids", [1, 2], [1, 2]), .i64("labels", [1, 2], [1, 2]),
          .i64("label_mask", [1, 2], [1, 1]),
        ],
        "tensor 'labels': stands beside label_mask, expected one of them"
      ),
      (
        [.i64("input_ids", [2, 2], [1, 2, 3, 100])],
        "example 1: input_ids has 100 at place 1, expected 0 to 99"
      ),
      (
        [.i64("input_ids", [1, 2], [1, -100])],
        "example 0: input_ids has -100 at place 1, expected 0 to 99"
      ),
      (
        [.i64("input_ids", [1, 2], [1, 2]), .i64("labels", [1, 2], [1, -1])],
        "example 0: labels has -1 at place 1, expected 0 to 99, or -100"
      ),
      (
        [.i64("input_ids", [1, 2], [1, 2]), .i64("labels", [1, 2], [1, -100])],
        "example 0: has nothing to learn: no token behind the first has a label"
      ),
      ([.i64("input_ids", [0, 2], [])], "has no examples, expected at least one"),
      ([.i64("input_ids", [4, 0], [])], "has no examples, expected at least one"),
    ] as [([TokenTensor], String)])
  func refusals(tensors: [TokenTensor], message: String) throws {
    let error = #expect(throws: PeftoolError.self) { try read(tensors) }
    var known = error
    known?.path = nil
    #expect(error?.path?.hasSuffix("f.safetensors") == true)
    #expect(known?.description == message)
  }
}
