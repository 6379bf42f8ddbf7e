import Files

/// A value of a GGUF file's metadata.
package enum GGUFValue: Equatable, Sendable {
  case unsigned(UInt64)
  case signed(Int64)
  /// Both floating types; an F32 is widened.
  case number(Double, isSingle: Bool)
  case bool(Bool)
  /// The bytes of a string, which may be no UTF-8: tokens are cut anywhere.
  case string([UInt8])
  case array(GGUFArray)

  /// The types' numbers in the file.
  package enum Kind: UInt32, Sendable {
    case u8, i8, u16, i16, u32, i32, f32, bool, string, array, u64, i64, f64

    /// The bytes of one value; of a string the least that one may have.
    var leastByteCount: Int {
      switch self {
      case .u8, .i8, .bool: 1
      case .u16, .i16: 2
      case .u32, .i32, .f32: 4
      case .u64, .i64, .f64, .string: 8
      case .array: 12
      }
    }
  }
}

/// An array of a GGUF file's metadata, kept as its bytes.
package struct GGUFArray: Equatable, Sendable {
  /// The type of the elements, which is not `array`.
  package let kind: GGUFValue.Kind
  /// The number of elements.
  package let count: Int
  /// The elements as the file has them; their lengths have been checked.
  let bytes: [UInt8]

  /// The elements as strings; nil where they are others.
  package var strings: [[UInt8]]? {
    guard kind == .string else { return nil }
    var strings: [[UInt8]] = []
    strings.reserveCapacity(count)
    var position = 0
    for _ in 0..<count {
      let length = Int(bytes.littleEndian(at: position, count: 8))
      strings.append(Array(bytes[position + 8..<position + 8 + length]))
      position += 8 + length
    }
    return strings
  }

  /// The elements as integers; nil where they are others, or one exceeds `Int`.
  package var integers: [Int]? {
    guard kind != .string, kind != .f32, kind != .f64 else { return nil }
    return values { GGUFValue(kind, $0).int }
  }

  /// The elements as numbers; nil where they are strings.
  package var numbers: [Double]? {
    guard kind != .string else { return nil }
    return values { GGUFValue(kind, $0).double }
  }

  private func values<Value>(_ value: (UInt64) -> Value?) -> [Value]? {
    let width = kind.leastByteCount
    var values: [Value] = []
    values.reserveCapacity(count)
    for place in 0..<count {
      guard let next = value(bytes.littleEndian(at: place * width, count: width)) else {
        return nil
      }
      values.append(next)
    }
    return values
  }
}

extension GGUFValue {
  /// A scalar from its bits, the file's bytes read as one little-endian number.
  init(_ kind: Kind, _ bits: UInt64) {
    self =
      switch kind {
      case .u8, .u16, .u32, .u64: .unsigned(bits)
      case .i8: .signed(Int64(Int8(truncatingIfNeeded: bits)))
      case .i16: .signed(Int64(Int16(truncatingIfNeeded: bits)))
      case .i32: .signed(Int64(Int32(truncatingIfNeeded: bits)))
      case .i64: .signed(Int64(bitPattern: bits))
      case .f32:
        .number(Double(Float(bitPattern: UInt32(truncatingIfNeeded: bits))), isSingle: true)
      case .f64: .number(Double(bitPattern: bits), isSingle: false)
      case .bool: .bool(bits != 0)
      case .string, .array: preconditionFailure("no scalar")
      }
  }

  /// The value as an integer; nil where it is none, or exceeds `Int`.
  package var int: Int? {
    switch self {
    case .unsigned(let value): Int(exactly: value)
    case .signed(let value): Int(value)
    case .bool(let value): value ? 1 : 0
    default: nil
    }
  }

  /// The value as a number; nil where it is none.
  package var double: Double? {
    switch self {
    case .unsigned(let value): Double(value)
    case .signed(let value): Double(value)
    case .number(let value, _): value
    default: nil
    }
  }

  /// The value as text; nil where it is no string, or no UTF-8.
  package var text: String? {
    guard case .string(let bytes) = self else { return nil }
    return String(validating: bytes, as: UTF8.self)
  }

  /// The value for a person: scalars as they stand, of an array its length.
  package var summary: String {
    switch self {
    case .unsigned(let value): "\(value)"
    case .signed(let value): "\(value)"
    case .number(let value, let isSingle): isSingle ? "\(Float(value))" : "\(value)"
    case .bool(let value): "\(value)"
    case .string(let bytes): String(decoding: bytes, as: UTF8.self)
    case .array(let array):
      "\(array.count) \(array.kind == .string ? "strings" : "values of \(array.kind)")"
    }
  }
}
