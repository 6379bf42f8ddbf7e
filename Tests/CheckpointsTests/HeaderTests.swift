import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// The header of a text before so many bytes.
private func header(_ text: String, dataByteCount: Int = 8) throws -> SafetensorsHeader {
  try SafetensorsHeader(text: Array(text.utf8), dataByteCount: dataByteCount)
}

private let entry = #"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#

/// What the reference library takes, odd as it may look.
@Suite struct HeaderTests {
  @Test func aTensorIsRead() throws {
    let text = "{\"a.b\":\(entry)}"
    let header = try SafetensorsHeader(text: Array(text.utf8), dataByteCount: 8, fileIndex: 3)
    let start = 8 + text.utf8.count
    #expect(
      header.tensors == [
        TensorInfo(
          name: "a.b", dtype: .f32, shape: [2], byteRange: start..<start + 8, fileIndex: 3)
      ])
    #expect(!header.hasMetadata && header.metadata.isEmpty)
  }

  @Test func noTensorsAreAHeader() throws {
    #expect(try header("{}", dataByteCount: 0).tensors == [])
  }

  @Test func whiteSpaceStandsAroundTheObject() throws {
    #expect(try header(" \t\r\n{\"a\":\(entry)} \n  ").tensors.count == 1)
  }

  @Test func metadataMayBeNullOrEmpty() throws {
    let null = try header("{\"__metadata__\":null,\"a\":\(entry)}")
    #expect(!null.hasMetadata && null.metadata.isEmpty)
    let empty = try header("{\"__metadata__\":{},\"a\":\(entry)}")
    #expect(empty.hasMetadata && empty.metadata.isEmpty)
  }

  @Test func metadataKeepsItsOrderAndTheLastOfAKey() throws {
    let read = try header(
      #"{"a":\#(entry),"__metadata__":{"x":"1","b":"2","x":"3","":"4"}}"#)
    #expect(read.metadata.map(\.key) == ["x", "b", ""])
    #expect(read.metadata.map(\.value) == ["3", "2", "4"])
  }

  @Test func anEntryMayBeAnArray() throws {
    #expect(try header(#"{"a":["F32",[2],[0,8]]}"#).tensors[0].shape == [2])
  }

  @Test func aDTypeMayBeAnObjectOfNull() throws {
    let text = #"{"a":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}}"#
    #expect(try header(text).tensors[0].dtype == .f32)
  }

  @Test func unknownFieldsArePassedOver() throws {
    let text =
      #"{"a":{"x":[1,{"y":null}],"x":-1.5e300,"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#
    #expect(try header(text).tensors.count == 1)
  }

  @Test func anUnknownFieldMayNestAsDeepAsTheReferenceReads() throws {
    let deep = String(repeating: "[", count: 125) + String(repeating: "]", count: 125)
    let text = "{\"a\":{\"x\":\(deep),\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
    #expect(try header(text).tensors.count == 1)
  }

  @Test func anyTextIsAName() throws {
    let read = try header(
      #"{"":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"#
        + #""a\u0000b":{"dtype":"U8","shape":[],"data_offsets":[1,2]},"#
        + "\"\u{E9}\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[2,3]},"
        + "\"e\u{301}\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[3,4]}}", dataByteCount: 4)
    let names = ["", "a\u{0}b", "\u{E9}", "e\u{301}"]
    #expect(read.tensors.map { Array($0.name.utf8) } == names.map { Array($0.utf8) })
  }

  @Test func anEmptyTensorMayHaveAnyShape() throws {
    let text =
      #"{"a":{"dtype":"F32","shape":[0,8589934592,8589934592],"data_offsets":[0,0]}}"#
    let tensor = try header(text, dataByteCount: 0).tensors[0]
    #expect(tensor.byteCount == 0 && tensor.elementCount == 0)
  }

  @Test func aScalarHasOneElement() throws {
    let text = #"{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}"#
    #expect(try header(text).tensors[0].elementCount == 1)
  }

  @Test func tensorsComeInTheOrderOfTheirBytes() throws {
    func entry(_ begin: Int, _ end: Int) -> String {
      "{\"dtype\":\"U8\",\"shape\":[\(end - begin)],\"data_offsets\":[\(begin),\(end)]}"
    }
    let read = try header(
      "{\"c\":\(entry(3, 5)),\"z\":\(entry(3, 3)),\"a\":\(entry(0, 3)),"
        + "\"y\":\(entry(3, 3)),\"end\":\(entry(5, 5))}", dataByteCount: 5)
    #expect(read.tensors.map(\.name) == ["a", "z", "y", "c", "end"])
    #expect(read.headerOrder.map { read.tensors[$0].name } == ["c", "z", "a", "y", "end"])
  }

  @Test(arguments: DType.safetensors) func everyDTypeIsRead(dtype: DType) throws {
    let count = dtype.bitCount
    let text =
      "{\"a\":{\"dtype\":\"\(dtype.rawValue)\",\"shape\":[8],\"data_offsets\":[0,\(count)]}}"
    let tensor = try header(text, dataByteCount: count).tensors[0]
    #expect(tensor.dtype == dtype)
    #expect(tensor.byteCount == count)
  }

  @Test func twentyThousandDimensionsAreTaken() throws {
    let ones = Array(repeating: "1", count: 20_000).joined(separator: ",")
    let text = "{\"a\":{\"dtype\":\"F64\",\"shape\":[\(ones)],\"data_offsets\":[0,8]}}"
    #expect(try header(text).tensors[0].shape.count == 20_000)
  }
}
