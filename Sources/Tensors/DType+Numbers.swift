extension DType {
  /// Whether `Double.read` reads it: peftool's dtypes for maths, blocks, the integers and
  /// the booleans.
  package var isNumeric: Bool {
    switch self {
    case .bool, .u8, .i8, .u16, .i16, .u32, .i32, .u64, .i64: true
    default: isComputable || isBlock
    }
  }

  /// Whether f32 holds every value of it.
  package var fitsSingle: Bool {
    switch self {
    case .f32, .f16, .bf16, .f8E4M3, .f8E5M2, .bool, .u8, .i8, .u16, .i16: true
    default: isBlock
    }
  }
}

extension Real {
  /// Reads `count` elements of a numeric dtype, which fill whole blocks; 64-bit integers round to the nearest value.
  package static func read(
    _ bytes: RawSpan, _ dtype: DType, into values: inout MutableSpan<Self>, count: Int
  ) {
    switch dtype {
    case .bool, .u8: load(UInt8.self, bytes, into: &values, count: count)
    case .i8: load(Int8.self, bytes, into: &values, count: count)
    case .u16: load(UInt16.self, bytes, into: &values, count: count)
    case .i16: load(Int16.self, bytes, into: &values, count: count)
    case .u32: load(UInt32.self, bytes, into: &values, count: count)
    case .i32: load(Int32.self, bytes, into: &values, count: count)
    case .u64: load(UInt64.self, bytes, into: &values, count: count)
    case .i64: load(Int64.self, bytes, into: &values, count: count)
    default:
      if dtype.isBlock {
        dequantize(bytes, dtype, into: &values, count: count)
      } else {
        widen(bytes, dtype, into: &values, count: count)
      }
    }
  }

  private static func load<I: FixedWidthInteger & BitwiseCopyable>(
    _ type: I.Type, _ bytes: RawSpan, into values: inout MutableSpan<Self>, count: Int
  ) {
    let width = MemoryLayout<I>.size
    precondition(bytes.byteCount >= count * width && values.count >= count)
    for i in 0..<count {
      // Any bit pattern is an integer, and the precondition keeps the offset inside.
      let value = unsafe bytes.unsafeLoadUnaligned(
        fromUncheckedByteOffset: i * width, as: I.self)
      values[i] = Self(I(littleEndian: value))
    }
  }
}
