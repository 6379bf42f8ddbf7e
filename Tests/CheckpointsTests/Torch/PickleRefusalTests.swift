import Checkpoints
import Files
import Tensors
import Testing

/// Code that a pickle asks for, by the names that exploits use.
private let calls: [(module: String, name: String)] = [
  ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"),
  ("builtins", "exec"), ("builtins", "__import__"), ("builtins", "getattr"),
  ("__builtin__", "eval"), ("subprocess", "Popen"), ("subprocess", "check_output"),
  ("runpy", "run_path"), ("runpy", "_run_code"), ("pty", "spawn"), ("pip", "main"),
  ("importlib", "import_module"), ("pkgutil", "resolve_name"), ("webbrowser", "open"),
  ("socket", "create_connection"), ("shutil", "rmtree"), ("code", "InteractiveInterpreter"),
  ("operator", "attrgetter"), ("functools", "partial"), ("copyreg", "_reconstructor"),
  ("marshal", "loads"), ("pickle", "loads"), ("_codecs", "encode"), ("bdb", "Bdb"),
  ("numpy.core.multiarray", "_reconstruct"), ("torch", "load"), ("torch.hub", "load"),
  ("torch.storage", "_load_from_bytes"), ("torch.serialization", "load"),
  ("torch.jit", "load"), ("torch._utils", "_rebuild_tensor_v99"),
  ("torch.nn.modules.linear", "Linear"), ("torch.utils.cpp_extension", "load_inline"),
  ("torch._dynamo.guards", "GuardBuilder.get"), ("torch.distributed.rpc", "rpc_sync"),
]

private let suffix = ": of a pickle only tensors are read, and nothing in it is run"

@Suite struct PickleRefusalTests {
  @Test(arguments: calls)
  func aCallIsRefusedByName(module: String, name: String) throws {
    let attack = pickle(
      Op.global(module, name), Op.tuple(Op.string("touch /tmp/owned")), Op.reduce)
    let reason = "would call \(module).\(name)\(suffix)"
    try assertRejects(Zip(attack).bytes, .unsupported, reason)
    try assertRejects(stream(attack), .unsupported, reason)
  }

  @Test func aNameThatIsNeverCalledIsRefusedToo() throws {
    let attack = pickle(
      Op.emptyDict, Op.string("a"), Op.tensor(), Op.setItem, Op.string("b"),
      Op.global("os", "system"), Op.setItem)
    try assertRejects(Zip(attack).bytes, .unsupported, "would call os.system\(suffix)")
  }

  @Test func anErrorTellsWhere() throws {
    let attack = pickle(Op.global("os", "system"), Op.emptyTuple, Op.reduce)
    let error = try refusal(of: Zip(attack).bytes)
    // Behind the local header of 30 bytes, "m/data.pkl" and PROTO.
    #expect(error?.offset == 42)
  }

  @Test func aNameBuiltOnTheStackIsRefused() throws {
    let attack = pickle(
      Op.string("os"), Op.string("system"), Op.stackGlobal, Op.tuple(Op.string("id")), Op.reduce)
    try assertRejects(Zip(attack).bytes, .unsupported, "would call os.system\(suffix)")
  }

  /// The parts are compared each as a whole, whatever they make when put together.
  @Test(arguments: [
    ("torch", "_utils._rebuild_tensor_v2"), ("torch._utils._rebuild_tensor_v2", ""),
    ("", "torch._utils._rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v2 "),
    ("torch._utils ", "_rebuild_tensor_v2"), ("torch._utils.os", "system"),
    ("collections", "OrderedDict.__init__"), ("torch.FloatStorage", "system"),
    ("torch", "Floatstorage"), ("Torch", "FloatStorage"), ("torch", "e\u{301}"),
  ])
  func aNameThatOnlyLooksKnownIsRefused(module: String, name: String) throws {
    let attack = pickle(Op.string(module), Op.string(name), Op.stackGlobal)
    try assertRejects(Zip(attack).bytes, .unsupported, "would call \(module).\(name)\(suffix)")
  }

  @Test func aNameWithControlCharactersIsEscaped() throws {
    let attack = pickle(Op.string("os\u{1B}[2J"), Op.string("system"), Op.stackGlobal)
    try assertRejects(
      Zip(attack).bytes, .unsupported, "would call os\\u{1b}[2J.system\(suffix)")
  }

  @Test func aNameOfNumbersIsDamaged() throws {
    try assertRejects(
      Zip(pickle(Op.number(1), Op.string("x"), Op.stackGlobal)).bytes, .damaged,
      "STACK_GLOBAL has a number and a string, expected two strings")
    try assertRejects(
      Zip(pickle(Op.global(String(repeating: "a", count: 2000), "x"))).bytes, .damaged,
      "a name of more than 1000 bytes")
  }

  @Test func instIsRefusedByTheNameThatItCalls() throws {
    let attack = pickle(Op.mark, Op.string("id"), Array("ios\nsystem\n".utf8))
    try assertRejects(Zip(attack).bytes, .unsupported, "would call os.system\(suffix)")
  }

  @Test(
    arguments: [
      (0x30, "POP"), (0x31, "POP_MARK"), (0x32, "DUP"), (0x46, "FLOAT"), (0x49, "INT"),
      (0x4C, "LONG"), (0x50, "PERSID"), (0x53, "STRING"), (0x56, "UNICODE"), (0x64, "DICT"),
      (0x67, "GET"), (0x6C, "LIST"), (0x6F, "OBJ"), (0x70, "PUT"), (0x81, "NEWOBJ"),
      (0x82, "EXT1"), (0x83, "EXT2"), (0x84, "EXT4"), (0x8B, "LONG4"), (0x8D, "BINUNICODE8"),
      (0x8E, "BINBYTES8"), (0x8F, "EMPTY_SET"), (0x90, "ADDITEMS"), (0x91, "FROZENSET"),
      (0x92, "NEWOBJ_EX"), (0x96, "BYTEARRAY8"), (0x97, "NEXT_BUFFER"), (0x98, "READONLY_BUFFER"),
    ] as [(UInt8, String)])
  func anotherOpcodeIsRefusedByName(opcode: UInt8, name: String) throws {
    try assertRejects(
      Zip(pickle(Op.none, [opcode])).bytes, .unsupported,
      "the pickle opcode \(name), which no dictionary of tensors needs")
  }

  @Test func whatIsNoOpcodeIsDamaged() throws {
    try assertRejects(
      Zip(pickle([0xFF])).bytes, .damaged, "byte 0xff is no pickle opcode")
    try assertRejects(
      Zip(pickle([0x80, 2])).bytes, .damaged, "a second PROTO within a pickle")
  }

  @Test(arguments: [0, 1, 6, 255] as [UInt8])
  func anotherProtocolIsRefused(version: UInt8) throws {
    try assertRejects(
      Zip([0x80, version, 0x4E, 0x2E]).bytes, .unsupported,
      "pickle protocol \(version), expected 2 to 5")
  }

  @Test func aPickleWithoutProtocolIsRefused() throws {
    try assertRejects(
      Zip(Array("cos\nsystem\n(S'id'\ntR.".utf8)).bytes, .damaged,
      "begins with byte 0x63, a pickle begins with 0x80")
  }

  @Test func aSecondPickleIsRefused() throws {
    let whole = pickle(Op.entry("a", Op.tensor()))
    let attack = pickle(Op.global("os", "system"))
    try assertRejects(
      Zip(whole + attack).bytes, .damaged, "\(attack.count) bytes after the pickle's end")
  }

  // MARK: What calls and attributes may be put on

  @Test func onlyNamesAreCalled() throws {
    for (callee, words) in [
      (Op.number(1), "a number"), (Op.string("os.system"), "a string"),
      (Op.storage(), "a storage"), (Op.tensor(), "a tensor"), (Op.emptyDict, "a dictionary"),
      (Op.global("torch", "FloatStorage"), "a type of storages"),
      (Op.global("torch", "float32"), "a dtype"),
      (Op.global("torch", "Tensor"), "a class of tensors"),
    ] {
      try assertRejects(
        Zip(pickle(callee, Op.emptyTuple, Op.reduce)).bytes, .unsupported, "would call \(words)")
    }
  }

  @Test func argumentsAreATuple() throws {
    try assertRejects(
      Zip(pickle(Op.global("collections", "OrderedDict"), Op.emptyDict, Op.reduce)).bytes,
      .damaged, "would call OrderedDict with a dictionary for a tuple")
  }

  @Test func aTensorOfATypeIsMadeByTensorsFunctionsOnly() throws {
    for function in [
      Op.global("collections", "OrderedDict"), Op.global("torch", "device"), Op.string("eval"),
      Op.global("torch._tensor", "_rebuild_from_type_v2"),
    ] {
      try assertRejects(
        Zip(
          pickle(
            Op.global("torch._tensor", "_rebuild_from_type_v2"),
            Op.tuple(function, Op.global("torch", "Tensor"), Op.emptyTuple, Op.emptyDict),
            Op.reduce)
        ).bytes, .damaged, "_rebuild_from_type_v2 with arguments that torch does not give it")
    }
  }

  @Test func aConjugatedTensorIsRefused() throws {
    let tensor =
      Op.global("torch._utils", "_rebuild_tensor_v2")
      + Op.tuple(
        Op.storage(), Op.number(0), Op.numbers([1]), Op.numbers([1]), Op.no, Op.none,
        Op.entry("conj", [0x88])) + Op.reduce
    try assertRejects(
      Zip(pickle(Op.entry("a", tensor))).bytes, .unsupported,
      "a tensor that is stored conjugated or negated; resolve_conj() and resolve_neg() give a "
        + "plain one")
  }

  @Test func whatIsKnownButNotReadIsSaid() throws {
    try assertRejects(
      Zip(pickle(Op.global("torch._utils", "_rebuild_sparse_tensor"))).bytes, .unsupported,
      "holds a sparse tensor (torch._utils._rebuild_sparse_tensor), not read")
  }

  @Test func attributesAreAnOrderedDictionarysOnly() throws {
    for (target, words) in [
      (Op.emptyDict, "a dictionary"), (Op.tensor(), "a tensor"), (Op.emptyList, "a list"),
      (Op.global("collections", "OrderedDict"), "OrderedDict"),
    ] {
      try assertRejects(
        Zip(pickle(target, Op.entry("__class__", Op.none), Op.build)).bytes, .unsupported,
        "BUILD on \(words), expected an OrderedDict")
    }
    let ordered = Op.global("collections", "OrderedDict") + Op.emptyTuple + Op.reduce
    try assertRejects(
      Zip(pickle(ordered, Op.tuple(Op.none, Op.emptyDict), Op.build)).bytes, .unsupported,
      "BUILD with a tuple, expected a dictionary")
  }

  /// CVE-2026-24747.
  @Test func itemsAreADictionarysOnly() throws {
    for (target, words) in [
      (Op.emptyList, "a list"), (Op.tensor(), "a tensor"), (Op.storage(), "a storage"),
    ] {
      try assertRejects(
        Zip(pickle(target, Op.number(0), Op.number(1), Op.setItem)).bytes, .damaged,
        "SETITEM on \(words), expected a dictionary")
    }
    try assertRejects(
      Zip(pickle(Op.emptyDict, Op.number(0), Op.append)).bytes, .damaged,
      "APPEND to a dictionary, expected a list")
    try assertRejects(
      Zip(pickle(Op.emptyDict, Op.mark, Op.number(0), Op.setItems)).bytes, .damaged,
      "SETITEMS has a key without a value")
    try assertRejects(
      Zip(pickle(Op.emptyDict, Op.emptyList, Op.number(0), Op.setItem)).bytes, .damaged,
      "a list as a key")
  }

  // MARK: Stack and memo

  @Test func theStackIsNotLeftOrOverdrawn() throws {
    for (parts, reason) in [
      ([], "the pickle takes a value from an empty stack"),
      (Op.reduce, "the pickle takes 2 values from a stack of 0"),
      (Op.none + Op.tuple, "the pickle looks for a mark that was never set"),
      (Op.none + Op.none, "the pickle ends with 1 values left over"),
      (Op.none + Op.mark, "the pickle takes a value from an empty stack"),
      (
        Op.emptyDict + Op.mark + Op.string("a") + Op.none + Op.setItem,
        "the pickle looks at an empty stack"
      ),
      (Op.put(0), "the pickle looks at an empty stack"),
      (Op.get(0), "memo 0 was never put"),
      (Op.none + Op.put(2_000_000_000), "memo 2000000000 is put, expected 0"),
      (Op.none + Op.put(0) + Op.put(0), "memo 0 is put twice"),
    ] as [([UInt8], String)] {
      try assertRejects(Zip(pickle(parts)).bytes, .damaged, reason)
    }
  }

  @Test func lengthsAreComparedWithWhatIsLeft() throws {
    try assertRejects(
      Zip(pickle(Array("X".utf8) + [0xFF, 0xFF, 0xFF, 0xFF])).bytes, .damaged,
      "the pickle needs 4294967295 more bytes here, 1 are left")
    try assertRejects(
      Zip(pickle([0x95] + littleEndian(.max, 8))).bytes, .damaged,
      "a frame of 18446744073709551615 bytes, 1 are left")
    try assertRejects(
      Zip(pickle(Array("X".utf8) + [1, 0, 0, 0, 0xFF])).bytes, .unsupported,
      "a string that is not UTF-8")
  }

  @Test func aCutPickleIsRefusedAtEveryByte() throws {
    let whole = pickle(Op.entry("a", Op.tensor()))
    for count in 0..<whole.count {
      _ = try refusal(of: Zip(Array(whole[..<count])).bytes)
    }
  }

  // MARK: Bombs

  @Test func manyOpcodesAreRefused() throws {
    let count = 1000
    let group = Op.emptyList + Array("(".utf8) + [UInt8](repeating: 0x5D, count: count) + [0x65]
    let bomb = pickle(Op.emptyList, Array(repeatElement(group + [0x61], count: 4100).joined()))
    try assertRejects(
      Zip(bomb).bytes, .unsupported, "a pickle of more than 4000000 opcodes")
  }

  /// Also where few opcodes have many bytes.
  @Test(arguments: ["X", "B"])
  func longPicklesAreRefused(opcode: String) throws {
    let long = Array(opcode.utf8) + littleEndian(33_554_433, 4)
    try assertRejects(
      Zip(pickle(long, [UInt8](repeating: 0x61, count: 33_554_433))).bytes, .unsupported,
      "a pickle of more than 33554432 bytes")
    let half = Array(opcode.utf8) + littleEndian(17_000_000, 4)
    let bytes = half + [UInt8](repeating: 0x61, count: 17_000_000)
    try assertRejects(
      Zip(pickle(Op.mark, bytes, bytes, Op.tuple)).bytes, .unsupported,
      "a pickle of more than 33554432 bytes")
  }

  @Test func aHighStackIsRefused() throws {
    try assertRejects(
      Zip(pickle([UInt8](repeating: 0x4E, count: 100_001))).bytes, .unsupported,
      "a pickle with more than 100000 values on its stack")
    try assertRejects(
      Zip(pickle([UInt8](repeating: 0x28, count: 1001))).bytes, .unsupported,
      "nested deeper than 1000 containers")
  }

  /// Each dictionary holds the one before twice: 2⁴⁰ tensors by 40 entries.
  @Test func dictionariesThatDoubleAreRefused() throws {
    var bomb = Op.entry("t", Op.tensor()) + Op.put(0)
    for level in 1...20 {
      bomb += Op.emptyDict + Op.string("a") + Op.get(level - 1) + Op.setItem
      bomb += Op.string("b") + Op.get(level - 1) + Op.setItem + Op.put(level)
    }
    let left = Op.emptyTuple + bomb
    // What came before stays on the stack: it is tucked away in a tuple.
    let error = try refusal(of: Zip(pickle(Op.mark, left, Op.tuple)).bytes)
    #expect(error?.reason.hasPrefix("the same dictionaries again and again: ") == true)
  }

  @Test func aDictionaryInItselfIsRefused() throws {
    let error = try refusal(
      of: Zip(
        pickle(Op.emptyDict, Op.put(0), Op.string("a"), Op.get(0), Op.setItem)
      ).bytes)
    #expect(error?.reason.hasPrefix("the same dictionaries again and again: a.a.") == true)
  }

  @Test func nestingIsBounded() throws {
    var deep = Op.tensor()
    for _ in 0..<33 { deep = Op.entry("a", deep) }
    let error = try refusal(of: Zip(pickle(deep)).bytes)
    #expect(error?.reason.hasPrefix("nested deeper than 32 dictionaries: a.a.") == true)
  }

  /// Python 2's OrderedDict copies a list of pairs, which may be asked for again and again.
  @Test func copiedListsAreCounted() throws {
    let pairs = Array(repeatElement(Op.get(0), count: 2000).joined())
    let once = Op.global("collections", "OrderedDict") + Op.tuple(Op.get(1)) + Op.reduce
    let bomb = pickle(
      Op.mark, Op.tuple(Op.string("a"), Op.none), Op.put(0), Op.emptyList, Op.put(1), Op.mark,
      pairs, Array("e".utf8), Array(repeatElement(once, count: 1100).joined()), Op.tuple)
    try assertRejects(
      Zip(bomb).bytes, .unsupported, "a pickle of more than 4000000 opcodes")
  }

  @Test func namesAreBounded() throws {
    let key = String(repeating: "k", count: 1 << 20)
    var inner = Op.emptyDict
    for number in 0..<40 { inner += Op.string("\(number)") + Op.get(0) + Op.setItem }
    let attack = pickle(
      Op.mark, Op.tensor(), Op.put(0), Op.emptyDict, Op.string(key), inner, Op.setItem, Op.tuple)
    try assertRejects(
      Zip(attack).bytes, .unsupported, "names and texts of more than 33554432 bytes together")
  }

  @Test func textsAreBounded() throws {
    var attack = Op.emptyDict + Op.string("t") + Op.tensor() + Op.setItem + Op.string("m")
    attack += Op.string(String(repeating: "m", count: 1 << 20)) + Op.put(0) + Op.setItem
    for number in 0..<40 { attack += Op.string("\(number)") + Op.get(0) + Op.setItem }
    try assertRejects(
      Zip(pickle(attack)).bytes, .unsupported,
      "names and texts of more than 33554432 bytes together")
  }
}
