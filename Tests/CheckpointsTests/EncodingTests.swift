import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

private typealias Item = SafetensorsHeader.Item

/// Reads what has been encoded, before as many bytes as it says.
private func read(_ encoded: SafetensorsHeader.Encoded) throws -> SafetensorsHeader {
  let count = try SafetensorsHeader.byteCount(
    prefix: Array(encoded.bytes.prefix(8)), fileByteCount: encoded.fileByteCount)
  #expect(count == encoded.bytes.count - 8)
  return try SafetensorsHeader(
    text: Array(encoded.bytes.dropFirst(8)),
    dataByteCount: encoded.fileByteCount - encoded.bytes.count)
}

/// Tensors of all dtypes, small and empty ones, with names that need escapes.
private func randomItems(_ random: inout SplitMix64) -> [Item] {
  let pieces = ["model", ".", "layers", "0", "é", "e\u{301}", "\"", "\\", "\n", "\u{0}", "😀"]
  return (0..<Int.random(in: 0...12, using: &random)).map { place in
    let name = (0..<Int.random(in: 0...5, using: &random)).map { _ in
      pieces[Int.random(in: pieces.indices, using: &random)]
    }.joined()
    let dtype = DType.safetensors[Int.random(in: DType.safetensors.indices, using: &random)]
    var shape = (0..<Int.random(in: 0...3, using: &random)).map { _ in
      Int.random(in: 0...5, using: &random)
    }
    // A multiple of eight elements ends with a byte, whatever the dtype.
    if dtype.bitCount < 8 { shape.append(8) }
    return Item(name: "\(name)\(place)", dtype: dtype, shape: shape)
  }
}

@Suite struct EncodingTests {
  @Test(arguments: 0..<50) func whatIsEncodedIsReadAgain(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    let items = randomItems(&random)
    let metadata: [(key: String, value: String)]? =
      Bool.random(using: &random) ? nil : [("format", "pt"), ("a\"\u{1F}", "é\n")]
    for order in [SafetensorsHeader.Order.reference, .given] {
      let encoded = try SafetensorsHeader.encode(items, metadata: metadata, order: order)
      #expect(encoded.bytes.count % 8 == 0)
      let header = try read(encoded)
      #expect(header.hasMetadata == (metadata != nil))
      #expect(header.metadata.map(\.value) == metadata?.map(\.value) ?? [])
      #expect(header.headerOrder == Array(items.indices))
      for (tensor, place) in zip(header.tensors, encoded.fileOrder) {
        #expect(tensor.name.utf8.elementsEqual(items[place].name.utf8))
        #expect(tensor.dtype == items[place].dtype && tensor.shape == items[place].shape)
        #expect(tensor.byteRange == encoded.byteRanges[place])
      }
      // What has been read, encoded in its own order, is the same file.
      let again = try SafetensorsHeader.encode(
        header.tensors.map { Item(name: $0.name, dtype: $0.dtype, shape: $0.shape) },
        metadata: header.hasMetadata ? header.metadata : nil, order: .given)
      #expect(again.bytes == encoded.bytes)
    }
  }

  @Test func theBytesAreThoseOfTheReference() throws {
    // safetensors.numpy.save of these five with {"format": "pt"}.
    let items = [
      Item(name: "b", dtype: .f32, shape: [2]), Item(name: "a", dtype: .f32, shape: []),
      Item(name: "z", dtype: .f64, shape: [1]), Item(name: "u\"é", dtype: .u8, shape: [3, 1]),
      Item(name: "h", dtype: .f16, shape: [0, 4]),
    ]
    let encoded = try SafetensorsHeader.encode(items, metadata: [("format", "pt")])
    #expect(encoded.fileOrder == [2, 1, 0, 4, 3])
    #expect(
      String(decoding: encoded.bytes.dropFirst(8), as: UTF8.self)
        == #"{"__metadata__":{"format":"pt"},"z":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"#
        + #""a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"#
        + #""b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},"#
        + #""h":{"dtype":"F16","shape":[0,4],"data_offsets":[20,20]},"#
        + #""u\"é":{"dtype":"U8","shape":[3,1],"data_offsets":[20,23]}}  "#)
    #expect(Array(encoded.bytes.prefix(8)) == [0x38, 1, 0, 0, 0, 0, 0, 0])
    #expect(encoded.fileByteCount == encoded.bytes.count + 23)
  }

  @Test func theReferenceOrderIsByDTypeFromTheWidestThenByName() throws {
    // The order that the reference library's own enumeration has, from its end.
    let dtypes: [DType] = [
      .u64, .i64, .f64, .c64, .f32, .u32, .i32, .bf16, .f16, .u16, .i16, .f8E5M2FNUZ,
      .f8E4M3FNUZ, .f8E8M0, .f8E4M3, .f8E5M2, .i8, .u8, .f6E3M2, .f6E2M3, .f4, .bool,
    ]
    let items = dtypes.flatMap { dtype in
      ["b", "a", "B"].map { Item(name: "\($0) \(dtype.rawValue)", dtype: dtype, shape: [8]) }
    }.shuffled()
    let encoded = try SafetensorsHeader.encode(items)
    #expect(
      encoded.fileOrder.map { items[$0].name }
        == dtypes.flatMap { dtype in ["B", "a", "b"].map { "\($0) \(dtype.rawValue)" } })
  }

  @Test func theGivenOrderIsKept() throws {
    let items = ["c", "a", "b"].map { Item(name: $0, dtype: .u8, shape: [1]) }
    let encoded = try SafetensorsHeader.encode(items, order: .given)
    #expect(encoded.fileOrder == [0, 1, 2])
    #expect(encoded.byteRanges.map { $0.lowerBound - encoded.bytes.count } == [0, 1, 2])
  }

  @Test func noTensorsAreAFile() throws {
    let encoded = try SafetensorsHeader.encode([])
    #expect(encoded.bytes == [8, 0, 0, 0, 0, 0, 0, 0] + Array("{}      ".utf8))
    #expect(encoded.fileByteCount == 16)
  }

  @Test(arguments: ["a", "__metadata__"]) func aNameMayBeGivenOnce(name: String) {
    let items = ["a", name].map { Item(name: $0, dtype: .u8, shape: [1]) }
    #expect(throws: PeftoolError(.damaged, "cannot be written: the name is taken", tensor: name)) {
      try SafetensorsHeader.encode(items)
    }
  }

  @Test func namesThatOnlyLookEqualAreTwo() throws {
    let items = ["e\u{301}", "\u{E9}"].map { Item(name: $0, dtype: .u8, shape: [1]) }
    #expect(try read(SafetensorsHeader.encode(items)).tensors.count == 2)
  }

  @Test func sizesThatNoFileHasAreRefused() {
    let half = Item(name: "a", dtype: .u8, shape: [1 << 60])
    #expect(
      throws: PeftoolError(
        .damaged, "shape [4611686018427387904] has more elements than can be counted", tensor: "a")
    ) { try SafetensorsHeader.encode([Item(name: "a", dtype: .u8, shape: [1 << 62])]) }
    #expect(
      throws: PeftoolError(
        .unsupported, "ends past 2^63 bytes, more than a file can have", tensor: "a7")
    ) {
      try SafetensorsHeader.encode(
        (0..<8).map { Item(name: "a\($0)", dtype: half.dtype, shape: half.shape) })
    }
  }
}
