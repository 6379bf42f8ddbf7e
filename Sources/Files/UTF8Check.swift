extension [UInt8] {
  /// Checks that the bytes are UTF-8.
  ///
  /// - Parameter baseOffset: the place of the first of them in what a message is about.
  /// - Throws: `damaged` with the place of the first byte that is none.
  package func checkUTF8(baseOffset: Int = 0) throws(PeftoolError) {
    do throws(UTF8.ValidationError) {
      _ = try UTF8Span(validating: span)
    } catch {
      throw PeftoolError(
        .damaged, "the text is no UTF-8", offset: baseOffset + error.byteOffsets.lowerBound)
    }
  }
}
