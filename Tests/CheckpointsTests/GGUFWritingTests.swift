import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

@Suite struct GGUFWritingTests {
  @Test func whatIsWrittenIsReadBack() throws {
    for seed in 0..<50 {
      var random = SplitMix64(seed: seed)
      let fields = someFields(&random)
      let items = someItems(&random)
      let layout = try GGUFLayout(fields, items)
      let header = try GGUFHeader(parsing: layout.header, fileByteCount: layout.byteCount)
      #expect(header.version == 3)
      #expect(header.metadata.map(\.key) == fields.map(\.key))
      #expect(header.metadata.map(\.value) == fields.map(\.value))
      #expect(header.tensors.map(\.name) == items.map(\.name))
      #expect(header.tensors.map(\.dtype) == items.map(\.dtype))
      #expect(header.tensors.map(\.shape) == items.map(\.shape))
      #expect(header.tensors.map(\.byteRange) == layout.byteRanges)
      #expect(header.dataStart == layout.header.count)
      let ends = layout.byteRanges.indices.map {
        layout.byteRanges[$0].upperBound + layout.padding(after: $0).count
      }
      #expect(ends == layout.byteRanges.dropFirst().map(\.lowerBound) + [layout.byteCount])
      #expect(layout.byteCount % 32 == 0)
    }
  }

  private func someFields(_ random: inout SplitMix64) -> [GGUFField] {
    let bits = random.next()
    let number = Double.random(in: -1e6...1e6, using: &random)
    return [
      GGUFField("u8", .u8, .unsigned(bits & 0xFF)),
      GGUFField("i8", .i8, .signed(Int64(Int8(truncatingIfNeeded: bits)))),
      GGUFField("u16", .u16, .unsigned(bits & 0xFFFF)),
      GGUFField("i16", .i16, .signed(Int64(Int16(truncatingIfNeeded: bits)))),
      .u32("u32", Int(bits & 0xFFFF_FFFF)),
      .i32("i32", Int(Int32(truncatingIfNeeded: bits))),
      .f32("f32", number), .bool("bool", bits % 2 == 0), .text("text", "ü\(bits)"),
      .texts("texts", (0..<bits % 5).map { String(repeating: "é", count: Int($0)) }),
      .array("i32s", .i32, (0..<bits % 7).map { .signed(Int64($0) - 3) }),
      .array("f32s", .f32, [.number(Double(Float(number)), isSingle: true)]),
      .array("bools", .bool, [.bool(true), .bool(false)]),
      GGUFField("u64", .u64, .unsigned(bits)),
      GGUFField("i64", .i64, .signed(Int64(bitPattern: bits))),
      GGUFField("f64", .f64, .number(number, isSingle: false)),
    ].shuffled(using: &random)
  }

  private func someItems(_ random: inout SplitMix64) -> [GGUFLayout.Item] {
    let dtypes: [DType] = [.f32, .f16, .bf16] + DType.quantizable
    return (0..<Int.random(in: 1...9, using: &random)).map { place in
      let dtype = dtypes.randomElement(using: &random) ?? .f32
      let shape = (0..<Int.random(in: 0...3, using: &random)).map { _ in
        Int.random(in: 0...5, using: &random)
      }
      return .init(name: "tensor \(place)", dtype: dtype, shape: shape + [32])
    }
  }

  private func assertRejects(
    _ reason: String, _ item: GGUFLayout.Item, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(
      throws: PeftoolError(.unsupported, reason, tensor: item.name), sourceLocation: sourceLocation
    ) { try GGUFLayout([], [item]) }
  }

  @Test func aTypeThatGgmlHasNot() {
    assertRejects("is U8, which ggml has not", .init(name: "w", dtype: .u8, shape: [1]))
  }

  @Test func aNameThatGgmlHasNoRoomFor() {
    assertRejects(
      "a name of 64 bytes, expected at most 63",
      .init(name: String(repeating: "n", count: 64), dtype: .f32, shape: [1]))
  }

  @Test func moreDimensionsThanGgmlHas() {
    assertRejects(
      "5 dimensions, expected at most 4",
      .init(name: "w", dtype: .f32, shape: [1, 1, 1, 1, 1]))
  }

  @Test func aNameTwice() {
    let item = GGUFLayout.Item(name: "w", dtype: .f32, shape: [1])
    #expect(throws: PeftoolError(.unsupported, "is to be written twice", tensor: "w")) {
      try GGUFLayout([], [item, item])
    }
  }

  @Test func aRowThatEndsInsideABlock() {
    let item = GGUFLayout.Item(name: "w", dtype: .q8v0, shape: [2, 31])
    #expect(
      throws: PeftoolError(
        .damaged, "Q8_0 of shape [2, 31] ends inside a block of 32", tensor: "w")
    ) { try GGUFLayout([], [item]) }
  }

  @Test func aHeadThatPeftoolWouldNotRead() {
    let text = String(repeating: "x", count: GGUFHeader.maximumByteCount)
    #expect(
      throws: PeftoolError(
        .unsupported, "a head of 50000064 bytes, expected at most 50000000")
    ) { try GGUFLayout([.text("k", text)], []) }
  }
}
