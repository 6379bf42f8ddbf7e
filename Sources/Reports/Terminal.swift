import Glibc

/// Where text goes, as far as its layout depends on that.
package enum Terminal {
  /// The width of lines that go to a file or a pipe.
  package static let defaultWidth = 80

  /// Whether a person reads what is written to the descriptor.
  package static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

  /// The terminal's columns, or nil where the descriptor is none.
  package static func width(_ descriptor: Int32) -> Int? {
    guard isTerminal(descriptor) else { return nil }
    var size = winsize()
    // The call fills the one struct that it is given.
    guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
      return defaultWidth
    }
    return Int(size.ws_col)
  }
}
