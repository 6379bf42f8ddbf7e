import Files

/// A pair of a GGUF file's metadata to be written: a key, and a value of a type.
///
/// A value that is read tells only signs and sizes that matter; the file has a type for each.
package struct GGUFField: Sendable {
  /// The key, not empty.
  package let key: String
  /// The type that the file says.
  package let kind: GGUFValue.Kind
  /// The value, which is of that type.
  package let value: GGUFValue

  /// A pair of any type; the value must fit it.
  package init(_ key: String, _ kind: GGUFValue.Kind, _ value: GGUFValue) {
    precondition(value.fits(kind), "\(key): a value of its type")
    (self.key, self.kind, self.value) = (key, kind, value)
  }

  /// A number without a sign, which fits 32 bits.
  package static func u32(_ key: String, _ value: Int) -> GGUFField {
    GGUFField(key, .u32, .unsigned(UInt64(value)))
  }

  /// A number that fits 32 bits.
  package static func i32(_ key: String, _ value: Int) -> GGUFField {
    GGUFField(key, .i32, .signed(Int64(value)))
  }

  /// A number, rounded to f32.
  package static func f32(_ key: String, _ value: Double) -> GGUFField {
    GGUFField(key, .f32, .number(Double(Float(value)), isSingle: true))
  }

  /// A boolean.
  package static func bool(_ key: String, _ value: Bool) -> GGUFField {
    GGUFField(key, .bool, .bool(value))
  }

  /// A text.
  package static func text(_ key: String, _ value: String) -> GGUFField {
    GGUFField(key, .string, .string(Array(value.utf8)))
  }

  /// Texts.
  package static func texts(_ key: String, _ values: [String]) -> GGUFField {
    GGUFField(key, .array, .array(GGUFArray(values)))
  }

  /// Numbers of a type other than strings and arrays.
  package static func array(
    _ key: String, _ kind: GGUFValue.Kind, _ values: [GGUFValue]
  ) -> GGUFField {
    GGUFField(key, .array, .array(GGUFArray(kind, values)))
  }

  /// Appends the pair as it stands in a file.
  func encode(into bytes: inout [UInt8]) {
    bytes.append(string: key.utf8)
    bytes.append(littleEndian: kind.rawValue)
    value.encode(as: kind, into: &bytes)
  }
}

extension GGUFArray {
  /// Strings.
  package init(_ strings: [String]) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(strings.reduce(0) { $0 + 8 + $1.utf8.count })
    for string in strings { bytes.append(string: string.utf8) }
    self.init(kind: .string, count: strings.count, bytes: bytes)
  }

  /// Numbers or booleans of a type, which they must fit.
  package init(_ kind: GGUFValue.Kind, _ values: [GGUFValue]) {
    precondition(kind != .string && kind != .array, "an array of scalars")
    var bytes: [UInt8] = []
    bytes.reserveCapacity(values.count * kind.leastByteCount)
    for value in values {
      precondition(value.fits(kind), "elements of the array's type")
      value.encode(as: kind, into: &bytes)
    }
    self.init(kind: kind, count: values.count, bytes: bytes)
  }
}

extension GGUFValue {
  /// Whether a file can have it under a type.
  fileprivate func fits(_ kind: Kind) -> Bool {
    switch (self, kind) {
    case (.bool, .bool), (.string, .string), (.array, .array): true
    case (.number(_, let isSingle), .f32), (.number(_, let isSingle), .f64):
      isSingle == (kind == .f32)
    case (.unsigned(let value), .u8): value <= UInt8.max
    case (.unsigned(let value), .u16): value <= UInt16.max
    case (.unsigned(let value), .u32): value <= UInt32.max
    case (.unsigned, .u64): true
    case (.signed(let value), .i8): Int8(exactly: value) != nil
    case (.signed(let value), .i16): Int16(exactly: value) != nil
    case (.signed(let value), .i32): Int32(exactly: value) != nil
    case (.signed, .i64): true
    default: false
    }
  }

  /// Appends the value, without its type, as it stands in a file.
  fileprivate func encode(as kind: Kind, into bytes: inout [UInt8]) {
    switch self {
    case .string(let string): bytes.append(string: string)
    case .array(let array):
      bytes.append(littleEndian: array.kind.rawValue)
      bytes.append(littleEndian: UInt64(array.count))
      bytes += array.bytes
    case .bool(let value): bytes.append(value ? 1 : 0)
    case .unsigned(let value): bytes.append(littleEndian: value, count: kind.leastByteCount)
    case .signed(let value):
      bytes.append(littleEndian: UInt64(bitPattern: value), count: kind.leastByteCount)
    case .number(let value, let isSingle):
      bytes.append(
        littleEndian: isSingle ? UInt64(Float(value).bitPattern) : value.bitPattern,
        count: kind.leastByteCount)
    }
  }
}

extension [UInt8] {
  /// Appends a string with its length before it.
  mutating func append(string: some Collection<UInt8>) {
    append(littleEndian: UInt64(string.count))
    append(contentsOf: string)
  }
}
