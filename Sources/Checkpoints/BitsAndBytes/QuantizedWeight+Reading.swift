package import Files
import Tensors

// A weight's codes and scales whole, for who keeps them in memory.
extension QuantizedWeight {
  /// The codes, two of 4 bits a byte or one of 8 bits.
  ///
  /// - Throws: `io`, and `damaged` where the file is cut short.
  package func readCodes(from source: any TensorSource) throws(PeftoolError) -> Bytes {
    try Bytes(count: codes.byteCount) { (bytes) throws(PeftoolError) in
      try source.read(codes, bytes: 0..<codes.byteCount, into: &bytes)
    }
  }

  /// The scale of each block, in f32, with double quantization undone.
  ///
  /// - Throws: `io`, and `damaged` where the file is cut short, or a scale makes values that are not
  ///   finite.
  package func readScales(
    of state: FourBitState, _ nested: Nested?, from source: any TensorSource
  ) throws(PeftoolError) -> [Float] {
    try WeightDecoder(self, in: source).checkedScales(0..<state.blockCount, nested)
  }

  /// The scale of each row of 8 bits.
  ///
  /// - Throws: as `readScales`.
  package func readRowScales(from source: any TensorSource) throws(PeftoolError) -> [Float] {
    try WeightDecoder(self, in: source).checkedRowScales(0..<codes.shape[0], .f32)
  }
}
