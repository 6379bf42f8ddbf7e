import Files
import Tensors
import Testing

@Suite struct DTypeTests {
  @Test func namesAreThoseOfSafetensors() {
    #expect(
      DType.safetensors.map(\.rawValue) == [
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64",
        "F64", "I64", "U64",
      ])
  }

  @Test func sixDTypesAreComputedWith() {
    #expect(
      DType.safetensors.filter(\.isComputable)
        == [.f8E5M2, .f8E4M3, .f16, .bf16, .f32, .f64])
    #expect(DType.safetensors.filter(\.isWide) == [.f32, .f64])
    #expect(DType.safetensors.filter { $0.isNumeric && !$0.isComputable }.count == 9)
  }

  @Test func whatFitsSingleHasNoMoreDigits() {
    for dtype in DType.safetensors where dtype.fitsSingle { #expect(dtype.isNumeric) }
    #expect(!DType.i32.fitsSingle && !DType.u32.fitsSingle && !DType.f64.fitsSingle)
    #expect(DType.u16.fitsSingle && DType.f32.fitsSingle)
  }

  @Test(
    arguments: [
      ([], DType.f32, 4), ([3], .f16, 6), ([2, 3], .f64, 48), ([0], .f64, 0), ([8], .f4, 4),
      ([4], .f6E2M3, 3), ([0, 1 << 33, 1 << 33], .f32, 0), ([1 << 58], .u8, 1 << 58),
    ] as [([Int], DType, Int)])
  func bytesAreCounted(shape: [Int], dtype: DType, byteCount: Int) throws {
    #expect(try TensorInfo.byteCount(dtype: dtype, shape: shape) == byteCount)
  }

  @Test(arguments: [
    [1 << 33, 1 << 33], [1 << 33, 1 << 33, 0], [1 << 61], [.max, .max],
  ])
  func aProductThatOverflowsIsRefused(shape: [Int]) {
    #expect(
      throws: PeftoolError(
        .damaged, "shape \(shape.shapeText) has more elements than can be counted")
    ) { try TensorInfo.byteCount(dtype: .u8, shape: shape) }
  }

  @Test func aPartOfAByteIsRefused() {
    #expect(throws: PeftoolError(.damaged, "F4 of shape [3] ends inside a byte")) {
      try TensorInfo.byteCount(dtype: .f4, shape: [3])
    }
  }

  @Test func longShapesAreCut() {
    #expect([Int]().shapeText == "[]")
    #expect([2, 3].shapeText == "[2, 3]")
    #expect(Array(1...8).shapeText == "[1, 2, 3, 4, 5, 6, 7, 8]")
    #expect(Array(1...9).shapeText == "[1, 2, 3, 4, 5, 6, 7, 8, … 9 dimensions]")
  }
}
