import Checkpoints
import Files
import Fixtures
import JSON
import Tensors
import Testing

private let indexName = "model.safetensors.index.json"

@Suite struct ShardIndexTests {
  private func assertRejects(
    _ text: String, _ reason: String, at offset: Int?, tensor: String? = nil,
    kind: PeftoolError.Kind = .damaged, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(
      throws: PeftoolError(kind, reason, offset: offset, tensor: tensor),
      sourceLocation: sourceLocation
    ) { try ShardIndex(parsing: Array(text.utf8), path: indexName) }
  }

  @Test func theMapIsRead() throws {
    let text = index([("c", "2"), ("a", "1"), ("b", "2")])
    let read = try ShardIndex(parsing: Array(text.utf8), path: indexName)
    #expect(read.shardNames == ["1", "2"])
    #expect(read.shardByTensor == [ExactName("a"): 0, ExactName("b"): 1, ExactName("c"): 1])
    #expect(try read.metadata.int(at: "total_size") == 3)
    #expect(read.bytes == Array(text.utf8))
  }

  @Test func metadataMayBeMissing() throws {
    let read = try ShardIndex(parsing: Array(#"{"weight_map":{"a":"1"}}"#.utf8), path: indexName)
    #expect(read.metadata == .null)
  }

  @Test func anIndexWithoutAMap() {
    assertRejects("[]", "found an array, expected an object", at: 0)
    assertRejects(
      "{}",
      "weight_map is missing, expected an object: no index of shards; a model is named by its folder",
      at: nil)
    assertRejects(#"{"weight_map":[]}"#, "weight_map is an array, expected an object", at: 14)
  }

  @Test(arguments: [
    ("1", "a number"), ("null", "null"), (#"["x"]"#, "an array"), ("{}", "an object"),
  ]) func aShardThatIsNoString(value: String, found: String) {
    assertRejects(
      "{\"weight_map\":{\"a\":\(value)}}", "weight_map gives \(found), expected a file name",
      at: 15, tensor: "a")
  }

  @Test(arguments: ["../x.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\u{0}b"])
  func aShardOutsideOfTheFolder(name: String) {
    let text = JSON.object([.init("weight_map", .object([.init("a", .string(name))]))]).text()
    assertRejects(
      text, "weight_map gives \"\(name.printable)\", expected a name without a folder", at: 15,
      tensor: "a")
  }

  @Test func aKeyThatStandsTwice() {
    assertRejects(
      #"{"weight_map":{"a":"1","\u0061":"2"}}"#, "stands twice in weight_map", at: 23, tensor: "a")
    assertRejects(#"{"weight_map":{},"weight_map":{}}"#, #""weight_map" stands twice"#, at: 17)
    assertRejects(
      #"{"metadata":{"x":1,"x":2},"weight_map":{}}"#, #"key "x" stands twice"#, at: 19)
  }

  @Test func moreTensorsThanAreTaken() {
    let map = (0..<300_000).map { "\"\($0)\":\"x\"" }.joined(separator: ",")
    let error = #expect(throws: PeftoolError.self) {
      try ShardIndex(parsing: Array("{\"weight_map\":{\(map)}}".utf8), path: indexName)
    }
    #expect(error?.kind == .unsupported)
    #expect(error?.reason == "has more JSON values than peftool takes")
  }
}

@Suite struct ShardedSafetensorsTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private func open(_ map: [(String, String)]) throws -> ShardedSafetensors {
    try ShardedSafetensors(index: InputFile(opening: scratch.write(indexName, index(map))))
  }

  @Test func shardsAreReadAsOne() throws {
    try scratch.write("1", safetensors(["b", "a"], metadata: [("format", "pt"), ("x", "1")]))
    try scratch.write("2", safetensors(["c"], metadata: [("x", "2"), ("format", "pt")]))
    let source = try open([("a", "1"), ("b", "1"), ("c", "2")])
    #expect(source.tensors.map(\.name) == ["b", "a", "c"])
    #expect(source.tensors.map(\.fileIndex) == [0, 0, 1])
    #expect(source.metadata.map(\.key) == ["format"])
    #expect(try source.bytes(of: source.tensors[1]) == [1])
    #expect(try source.bytes(of: source.tensors[2]) == [0])
  }

  @Test func aMissingShardIsNamed() throws {
    #expect(
      throws: PeftoolError(
        .io,
        "cannot open: No such file or directory; the index puts tensors into this shard",
        path: scratch.path("1"))
    ) { try open([("a", "1")]) }
  }

  @Test func aTensorThatTheShardLacks() throws {
    try scratch.write("1", safetensors(["a"]))
    #expect(
      throws: PeftoolError(
        .different, "the index has it in this shard, which has no such tensor", tensor: "b",
        path: scratch.path("1"))
    ) { try open([("a", "1"), ("c", "1"), ("b", "1")]) }
  }

  @Test func aTensorThatTheIndexLacks() throws {
    try scratch.write("1", safetensors(["a", "b"]))
    #expect(
      throws: PeftoolError(
        .different, "is in this shard, but not in the index", tensor: "b",
        path: scratch.path("1"))
    ) { try open([("a", "1")]) }
  }

  @Test func aTensorInAnotherShard() throws {
    try scratch.write("1", safetensors(["a", "b"]))
    try scratch.write("2", safetensors(["c"]))
    #expect(
      throws: PeftoolError(
        .different, "is in this shard, the index has it in 2", tensor: "b",
        path: scratch.path("1"))
    ) { try open([("a", "1"), ("b", "2"), ("c", "2")]) }
  }

  @Test func aTensorInTwoShards() throws {
    try scratch.write("1", safetensors(["a"]))
    try scratch.write("2", safetensors(["a", "b"]))
    #expect(
      throws: PeftoolError(
        .damaged, "stands in this shard and in 1", tensor: "a", path: scratch.path("2"))
    ) { try open([("a", "1"), ("b", "2")]) }
  }

  /// A search through one file for each pair of the other would take many minutes.
  @Test(.timeLimit(.minutes(5))) func metadataOfManyPairsIsCompared() throws {
    let pairs = (0..<100_000).map { (key: "\($0)", value: "v") }
    try scratch.write("1", safetensors(["a"], metadata: pairs))
    try scratch.write("2", safetensors(["b"], metadata: pairs.reversed() + [("x", "")]))
    let source = try open([("a", "1"), ("b", "2")])
    #expect(source.metadata.map(\.key) == pairs.map(\.key))
  }

  @Test func namesAreComparedByTheirBytes() throws {
    try scratch.write("1", safetensors(["e\u{301}"]))
    #expect(throws: PeftoolError.self) { try open([("\u{E9}", "1")]) }
    #expect(try open([("e\u{301}", "1")]).tensors.count == 1)
  }
}

@Suite struct ShardPlanTests {
  /// What huggingface_hub's split_state_dict_into_shards_factory does, worked out by hand.
  @Test(
    arguments: [
      ([], 10, []), ([5], 10, [[0]]), ([4, 6], 10, [[0, 1]]), ([4, 7], 10, [[0], [1]]),
      ([4, 4, 4, 4, 4], 10, [[0, 1], [2, 3], [4]]),
      // One that is too large comes before the shard that is being filled, which goes on.
      ([3, 11, 3, 5], 10, [[1], [0, 2], [3]]), ([11, 12], 10, [[0], [1]]),
      ([10, 1, 10], 10, [[0], [1], [2]]), ([0, 0, 10, 0], 10, [[0, 1, 2, 3]]),
      ([1, 2, 3], 0, [[0], [1], [2]]),
    ] as [([Int], Int, [[Int]])])
  func shardsAreFilledInOrder(byteCounts: [Int], maximum: Int, shards: [[Int]]) {
    let plan = ShardPlan(byteCounts: byteCounts, maximumByteCount: maximum)
    #expect(plan.shards == shards)
    #expect(plan.totalByteCount == byteCounts.reduce(0, +))
  }

  @Test func filesAreNamedAsTransformersDoes() {
    #expect(ShardPlan(byteCounts: [], maximumByteCount: 5).fileNames == [])
    #expect(ShardPlan(byteCounts: [5], maximumByteCount: 5).fileNames == ["model.safetensors"])
    #expect(
      ShardPlan(byteCounts: [5, 5], maximumByteCount: 5).fileNames == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      ])
    let many = ShardPlan(byteCounts: Array(repeating: 1, count: 100_001), maximumByteCount: 1)
    #expect(many.fileNames.last == "model-100001-of-100001.safetensors")
    #expect(many.fileNames.first == "model-00001-of-100001.safetensors")
  }

  @Test func theIndexIsThatOfTransformers() {
    let plan = ShardPlan(byteCounts: [4, 8, 4], maximumByteCount: 8)
    #expect(
      plan.indexText(names: ["b", "é", "a"], totalParameters: 4) == #"""
        {
          "metadata": {
            "total_parameters": 4,
            "total_size": 16
          },
          "weight_map": {
            "a": "model-00003-of-00003.safetensors",
            "b": "model-00001-of-00003.safetensors",
            "\u00e9": "model-00002-of-00003.safetensors"
          }
        }

        """#)
    #expect(!plan.indexText(names: ["b", "é", "a"], totalParameters: nil).contains("parameters"))
  }

  @Test(arguments: [
    ("5GB", 5_000_000_000), ("500 MB", 500_000_000), ("1.5kb", 1500), ("2tb", 2_000_000_000_000),
    ("0.001KB", 1), (" 7GB", 7_000_000_000),
  ])
  func sizesAreDecimal(text: String, byteCount: Int) throws {
    #expect(try ShardPlan.byteCount(text) == byteCount)
  }

  @Test(arguments: [
    "", "5", "GB", "5GiB", "-5GB", "0GB", "1e3MB", "5 G B", "nanGB", "infGB", "0x5GB", "1.2.3MB",
    "99999999TB", "5GB!",
  ])
  func whatIsNoSizeIsRefused(text: String) {
    #expect(
      throws: PeftoolError(
        .unsupported, "\"\(text)\" is no size, expected one such as 5GB or 500MB")
    ) { try ShardPlan.byteCount(text) }
  }
}
