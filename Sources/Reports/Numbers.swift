import Glibc

extension Int {
  /// A size for a reader, in decimal units: `512 bytes`, `2.2 GB`.
  package var byteText: String {
    guard magnitude >= 1000 else { return self == 1 ? "1 byte" : "\(self) bytes" }
    let (number, unit) = Double(self).scaled(["bytes", "kB", "MB", "GB", "TB", "PB", "EB"])
    return "\(number) \(unit)"
  }

  /// A count for a reader: `950`, `22.0M`, `1.1B`.
  package var countText: String {
    guard magnitude >= 1000 else { return "\(self)" }
    let (number, unit) = Double(self).scaled(["", "K", "M", "B", "T", "Q"])
    return number + unit
  }

  /// All digits, in groups of three: `1,100,048,384`.
  package var groupedText: String {
    var text = ""
    let digits = String(magnitude)
    for (place, digit) in digits.enumerated() {
      if place > 0, (digits.count - place) % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return self < 0 ? "-" + text : text
  }

  /// The number with its noun: `1 tensor`, `1,204 tensors`.
  package func text(of noun: String) -> String {
    "\(groupedText) \(noun)\(self == 1 ? "" : "s")"
  }
}

extension Double {
  /// Bytes a second: `1.2 GB/s`.
  package var rateText: String {
    let (number, unit) = scaled(["B", "kB", "MB", "GB", "TB"])
    return "\(number) \(unit)/s"
  }

  /// Seconds for a reader: `0.12 s`, `12.3 s`, `1 min 05 s`, `2 h 03 min`.
  package var durationText: String {
    let whole = Int(Swift.min(max(rounded(), 0), 1e9))
    switch self {
    case ..<9.995: return fixed(2) + " s"
    case ..<59.95: return fixed(1) + " s"
    case ..<3599.5: return "\(whole / 60) min \((whole % 60).paddedText) s"
    default: return "\(whole / 3600) h \((whole / 60 % 60).paddedText) min"
    }
  }

  /// A share of one: `35 %`, `4.2 %`, `0.12 %`; what is less than all is never `100 %`.
  package var percentText: String {
    let percent = self * 100
    switch percent.magnitude {
    case 99.95..<100: return ">99.9 %"
    case 99.5..<100: return percent.fixed(1) + " %"
    case 10...: return percent.fixed(0) + " %"
    case 1...: return percent.fixed(1) + " %"
    default: return percent.fixed(2) + " %"
    }
  }

  /// As short as four significant digits allow: `0.02`, `-1.234`, `3.1e-07`.
  package var measureText: String { formatted("%.4g") }

  /// The value with `places` digits after the point.
  package func fixed(_ places: Int) -> String { formatted("%.\(places)f") }

  /// The number with one digit after the point below 100, and its unit, a thousand apart.
  fileprivate func scaled(_ units: [String]) -> (number: String, unit: String) {
    var value = self
    var unit = 0
    // 999.5 would print as 1000.
    while value.magnitude >= 999.5, unit < units.count - 1 {
      value /= 1000
      unit += 1
    }
    return (value.fixed(value.magnitude < 99.95 ? 1 : 0), units[unit])
  }

  private func formatted(_ format: String) -> String {
    // 400 bytes hold the longest number that %.2f prints (309 digits), and vsnprintf writes no
    // more than it is told.
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 400) { buffer in
      _ = unsafe withVaList([self]) {
        unsafe vsnprintf(buffer.baseAddress, buffer.count, format, $0)
      }
      return unsafe buffer.baseAddress.map { unsafe String(cString: $0) } ?? ""
    }
  }
}

extension Int {
  /// Two digits, for minutes and seconds.
  fileprivate var paddedText: String { self < 10 ? "0\(self)" : "\(self)" }
}
