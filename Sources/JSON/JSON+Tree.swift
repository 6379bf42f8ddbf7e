import CJSON
import Files

extension JSON {
  /// The value that json-c builds of a text which `JSONReader` has gone over.
  init(building bytes: [UInt8], depth: Int) throws(PeftoolError) {
    // json-c wants the zero byte after a number at the top. json_tokener_new_ex gives NULL only
    // when memory is out, and counts a scalar as a level.
    let text = bytes + [0]
    guard let tokener = unsafe json_tokener_new_ex(Int32(depth + 1)) else {
      throw PeftoolError(.io, "no memory for a JSON text")
    }
    // The tokener is freed once, after its last use.
    defer { unsafe json_tokener_free(tokener) }
    unsafe json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8)
    // json-c reads the buffer's bytes at most, and copies what it keeps.
    let tree = unsafe text.withUnsafeBytes {
      unsafe json_tokener_parse_ex(
        tokener, $0.assumingMemoryBound(to: CChar.self).baseAddress, Int32($0.count))
    }
    // The tree is released once, after it has been copied.
    defer { _ = unsafe json_object_put(tree) }
    let status = unsafe json_tokener_get_error(tokener)
    guard status == json_tokener_success else {
      // json_tokener_error_desc gives a constant string.
      let reason = unsafe String(cString: json_tokener_error_desc(status))
      throw PeftoolError(
        .damaged, "json-c: \(reason)", offset: unsafe Int(json_tokener_get_parse_end(tokener)))
    }
    var numbers = NumberTexts(bytes)
    self = unsafe JSON(tree, numbers: &numbers)
  }

  /// The value that json-c has built; recursion ends at the depth that the scan has checked.
  private init(_ object: OpaquePointer?, numbers: inout NumberTexts) {
    // All json-c calls: `object` is alive until `withTree` returns, and of the type asked for.
    switch unsafe json_object_get_type(object) {
    case json_type_boolean:
      self = unsafe .bool(json_object_get_boolean(object) != 0)
    case json_type_int, json_type_double:
      self = .number(numbers.next())
    case json_type_string:
      let count = unsafe Int(json_object_get_string_len(object))
      // The string has `count` bytes, and may have zeros among them.
      let bytes = unsafe UnsafeBufferPointer(start: json_object_get_string(object), count: count)
      self = unsafe .string(String(decoding: UnsafeRawBufferPointer(bytes), as: UTF8.self))
    case json_type_array:
      let count = unsafe json_object_array_length(object)
      self = .array(
        (0..<count).map { unsafe JSON(json_object_array_get_idx(object, $0), numbers: &numbers) })
    case json_type_object:
      var members: [Member] = []
      var next = unsafe json_object_iter_begin(object)
      var end = unsafe json_object_iter_end(object)
      while unsafe json_object_iter_equal(&next, &end) == 0 {
        // Keys end with a zero byte and have none inside: the scan refuses U+0000 in them.
        let key = unsafe String(cString: json_object_iter_peek_name(&next))
        members.append(
          unsafe Member(key, JSON(json_object_iter_peek_value(&next), numbers: &numbers)))
        unsafe json_object_iter_next(&next)
      }
      self = .object(members)
    default:
      self = .null
    }
  }
}

/// The texts of the numbers in a JSON text that has been checked, one after the other.
private struct NumberTexts {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  mutating func next() -> String {
    var isInString = false
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""): isInString.toggle()
      case UInt8(ascii: "\\"): position += 1
      case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
        if isInString { break }
        let start = position
        while position < bytes.count, Self.isPart(bytes[position]) { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
      default: break
      }
      position += 1
    }
    preconditionFailure("json-c counts more numbers than the text has")
  }

  private static func isPart(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"),
      UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"):
      true
    default: false
    }
  }
}
