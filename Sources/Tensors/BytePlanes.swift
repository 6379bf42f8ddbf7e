import CKernels

/// How the bytes of a dtype's elements are put together with their like, so that they pack well.
///
/// Plane k holds byte k of every element. Of a float whose exponent has 8 bits, F32 and BF16, the
/// sign goes below the exponent first, which then has the highest plane for itself; the other
/// planes of a trained weight are noise. C64 is pairs of F32.
package struct BytePlanes: Equatable, Sendable {
  /// The bytes of what is split: 1, 2, 4 or 8; with 1 there is one plane, and nothing to do.
  package let width: Int
  /// Whether the sign goes below the exponent.
  package let lowersSign: Bool

  /// Bytes without elements, such as those of a text.
  package static let none = BytePlanes(width: 1, lowersSign: false)

  private init(width: Int, lowersSign: Bool) {
    self.width = width
    self.lowersSign = lowersSign
  }

  /// The planes of a dtype of safetensors.
  package init(_ dtype: DType) {
    switch dtype {
    case .bf16: self.init(width: 2, lowersSign: true)
    case .f32, .c64: self.init(width: 4, lowersSign: true)
    case .f16, .i16, .u16: self.init(width: 2, lowersSign: false)
    case .i32, .u32: self.init(width: 4, lowersSign: false)
    case .f64, .i64, .u64: self.init(width: 8, lowersSign: false)
    default: self = .none
    }
  }

  /// The planes of differences, which have no sign.
  package var ofDifferences: BytePlanes { BytePlanes(width: width, lowersSign: false) }

  // Each pointer below lives through its call, and the preconditions hold the kernel to the counts.

  /// Splits elements into planes, as many bytes.
  package func split(_ elements: RawSpan, into planes: inout MutableRawSpan) {
    let count = elementCount(elements.byteCount, planes.byteCount)
    unsafe elements.withUnsafeBytes { from in
      unsafe planes.withUnsafeMutableBytes { to in
        unsafe pef_split_planes(
          from.baseAddress, to.baseAddress, count, width, lowersSign ? 1 : 0)
      }
    }
  }

  /// Puts elements together of their planes.
  package func join(_ planes: RawSpan, into elements: inout MutableRawSpan) {
    let count = elementCount(planes.byteCount, elements.byteCount)
    unsafe planes.withUnsafeBytes { from in
      unsafe elements.withUnsafeMutableBytes { to in
        unsafe pef_join_planes(
          from.baseAddress, to.baseAddress, count, width, lowersSign ? 1 : 0)
      }
    }
  }

  /// The differences of elements and a base's, as integers; small ones have small numbers.
  package func subtract(
    _ base: RawSpan, from elements: RawSpan, into differences: inout MutableRawSpan
  ) {
    let count = elementCount(elements.byteCount, differences.byteCount)
    precondition(base.byteCount == elements.byteCount, "a base of the same size")
    unsafe elements.withUnsafeBytes { elements in
      unsafe base.withUnsafeBytes { base in
        unsafe differences.withUnsafeMutableBytes {
          unsafe pef_subtract(
            elements.baseAddress, base.baseAddress, $0.baseAddress, count, width)
        }
      }
    }
  }

  /// The elements whose differences to a base's these are.
  package func add(
    _ differences: RawSpan, to base: RawSpan, into elements: inout MutableRawSpan
  ) {
    let count = elementCount(differences.byteCount, elements.byteCount)
    precondition(base.byteCount == differences.byteCount, "a base of the same size")
    unsafe differences.withUnsafeBytes { differences in
      unsafe base.withUnsafeBytes { base in
        unsafe elements.withUnsafeMutableBytes {
          unsafe pef_add_difference(
            differences.baseAddress, base.baseAddress, $0.baseAddress, count, width)
        }
      }
    }
  }

  private func elementCount(_ a: Int, _ b: Int) -> Int {
    precondition(a == b && a % width == 0, "whole elements, as many on both sides")
    return a / width
  }
}
