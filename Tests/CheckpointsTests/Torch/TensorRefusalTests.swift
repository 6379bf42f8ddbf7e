import Checkpoints
import Files
import Tensors
import Testing

@Suite struct TensorRefusalTests {
  private func one(_ tensor: [UInt8]) -> [UInt8] { Zip(pickle(Op.entry("a", tensor))).bytes }

  @Test(
    arguments: [
      ([5], [1], 0), ([2, 2], [2, 2], 0), ([2, 2], [2, 1], 1), ([1], [1], 4), ([1], [1], 1 << 60),
      ([2], [Int.max], 0), ([Int.max], [1], 0), ([2, 2, 2], [1, 1 << 62, 1 << 62], 0),
    ] as [([Int], [Int], Int)])
  func aTensorLiesWithinItsStorage(shape: [Int], strides: [Int], offset: Int) throws {
    let error = try refusal(of: one(Op.tensor(offset: offset, shape: shape, strides: strides)))
    #expect(error?.kind == .damaged)
    let isUncountable = shape.contains(.max)
    #expect(
      error?.reason.contains(
        isUncountable ? "more elements than can be counted" : "which it does not fit") == true)
  }

  @Test(
    arguments: [
      ([-1], [1], 0), ([2], [-1], 1), ([1], [1], -1), ([0], [1], -5),
    ] as [([Int], [Int], Int)])
  func negativeNumbersAreRefused(shape: [Int], strides: [Int], offset: Int) throws {
    try assertRejects(
      one(Op.tensor(offset: offset, shape: shape, strides: strides)), .damaged,
      "a tensor with offset \(offset), sizes \(shape) and strides \(strides), expected no "
        + "negative number")
  }

  @Test func sizesAndStridesAreAsMany() throws {
    try assertRejects(
      one(Op.tensor(shape: [2, 2], strides: [1])), .damaged,
      "a tensor with 2 sizes and 1 strides, expected as many of both and at most 64")
    let many = [Int](repeating: 1, count: 65)
    try assertRejects(
      one(Op.tensor(shape: many, strides: many)), .damaged,
      "a tensor with 65 sizes and 65 strides, expected as many of both and at most 64")
  }

  @Test func sizesAreNumbers() throws {
    let tensor =
      Op.global("torch._utils", "_rebuild_tensor_v2")
      + Op.tuple(
        Op.storage(), Op.number(0), Op.tuple(Op.none), Op.numbers([1]), Op.no, Op.none)
      + Op.reduce
    try assertRejects(
      one(tensor), .damaged, "None among sizes and strides, expected numbers")
    let long =
      Op.tensor(Op.storage(), shape: []).isEmpty
      ? []
      : [0x8A, 9]
        + [UInt8](
          repeating: 1, count: 9)
    let huge =
      Op.global("torch._utils", "_rebuild_tensor_v2")
      + Op.tuple(Op.storage(), long, Op.numbers([1]), Op.numbers([1]), Op.no, Op.none)
      + Op.reduce
    try assertRejects(
      one(huge), .damaged,
      "a tensor of a storage, an integer of more than 64 bits, a tuple, a tuple, expected a "
        + "storage, an offset, sizes and strides")
  }

  /// 2⁴⁰ elements over one.
  @Test func aStrideOfZeroMakesNoHugeTensor() throws {
    try assertRejects(
      one(Op.tensor(shape: [1 << 20, 1 << 20], strides: [0, 0])), .unsupported,
      "with it the tensors take more than 8 times the file's \(one(Op.tensor(shape: [1 << 20, 1 << 20], strides: [0, 0])).count) "
        + "bytes: storages are shared, or strides are 0")
  }

  @Test func aThousandViewsOfOneStorageAreNoHugeFile() throws {
    var many = Op.emptyDict
    for number in 0..<1000 {
      many += Op.string("\(number)") + Op.tensor(shape: [1 << 14], strides: [0]) + Op.setItem
    }
    let error = try refusal(of: Zip(pickle(many)).bytes)
    #expect(error?.reason.hasPrefix("with it the tensors take more than 8 times") == true)
    #expect(error?.tensor != nil)
  }

  @Test func aRepeatedRowIsTaken() throws {
    let file = try torchFile(one(Op.tensor(shape: [100, 4], strides: [0, 1])))
    #expect(file.tensors.first?.byteCount == 1600)
    #expect(try file.bytes(of: file.tensors[0]).count == 1600)
  }

  // MARK: Storages

  @Test(arguments: [0, 15, 20, 1 << 16])
  func aStorageHasTheBytesThatThePickleGivesIt(byteCount: Int) throws {
    let storage = [UInt8](repeating: 0, count: byteCount)
    try assertRejects(
      Zip(pickle(Op.entry("a", Op.tensor())), storage: storage).bytes, .damaged,
      "storage '0' has \(byteCount) bytes, the pickle gives it 16")
  }

  @Test func aHugeStorageIsRefusedBeforeAnythingIsReserved() throws {
    try assertRejects(
      one(Op.tensor(Op.storage(count: 1 << 61))), .damaged,
      "storage 0 has 2305843009213693952 elements")
    try assertRejects(
      one(Op.tensor(Op.storage(count: 1 << 60))), .damaged,
      "storage '0' has 16 bytes, the pickle gives it 4611686018427387904")
    try assertRejects(
      one(Op.tensor(Op.storage(count: -1))), .damaged, "a storage without key, location or count")
  }

  @Test(arguments: ["1", "../data/0", "..", "", "0\0", "0/", "/0"])
  func aStorageIsInTheFile(key: String) throws {
    try assertRejects(
      one(Op.tensor(Op.storage(key: key))), .damaged,
      "the pickle names storage '\(key.printable)', which is not in the file")
  }

  @Test func aStorageHasOneTypeAndSize() throws {
    for other in [Op.storage("IntStorage"), Op.storage(count: 3)] {
      try assertRejects(
        Zip(
          pickle(
            Op.emptyDict, Op.string("a"), Op.tensor(), Op.setItem, Op.string("b"),
            Op.tensor(other, shape: [1], strides: [1]), Op.setItem)
        ).bytes, .damaged, "storage 0 is named twice, with different types or sizes")
    }
  }

  @Test func aPersistentIDNamesAStorage() throws {
    for id in [
      Op.string("storage"), Op.emptyTuple, Op.tuple(Op.string("module"), Op.none),
      Op.tuple(Op.string("x"), Op.none, Op.none, Op.none, Op.none),
    ] {
      let error = try refusal(of: Zip(pickle(id, Op.persistentID)).bytes)
      #expect(error?.kind == .unsupported)
    }
    try assertRejects(
      one(
        Op.tuple(
          Op.string("storage"), Op.global("torch", "float32"), Op.string("0"), Op.string("cpu"),
          Op.number(4)) + Op.persistentID), .damaged, "a storage of type a dtype")
  }

  // MARK: Names

  @Test func aKeyThatStandsTwiceIsRefused() throws {
    try assertRejects(
      Zip(
        pickle(
          Op.emptyDict, Op.string("a"), Op.tensor(), Op.setItem, Op.string("a"), Op.none,
          Op.setItem)
      ).bytes, .damaged, "the key 'a' stands twice")
  }

  @Test func twoPathsOfOneNameAreRefused() throws {
    let error = try refusal(
      of: Zip(
        pickle(
          Op.emptyDict, Op.string("a.b"), Op.tensor(), Op.setItem, Op.string("a"),
          Op.entry("b", Op.tensor()), Op.setItem)
      ).bytes)
    #expect(error?.reason == "two tensors have this name")
    #expect(error?.tensor == "a.b")
  }

  @Test func aKeyIsTextOrANumber() throws {
    try assertRejects(
      Zip(pickle(Op.emptyDict, Op.none, Op.tensor(), Op.setItem)).bytes, .unsupported,
      "None as a key in '', expected a text or a number")
  }

  @Test func whatHoldsNoTensorIsRefused() throws {
    try assertRejects(Zip(pickle(Op.emptyDict)).bytes, .unsupported, "holds no tensors")
    try assertRejects(
      Zip(pickle(Op.number(1))).bytes, .unsupported,
      "holds a number, expected a dictionary of tensors")
  }
}
