import Files
import Glibc

/// Llama 3: `<|start_header_id|>role<|end_header_id|>`, a blank line, what is said without white
/// space at its ends, `<|eot_id|>`.
///
/// From Llama 3.1 on the system message, which is there always, begins with two dates. Source: the
/// templates of Llama 3, 3.1, 3.2 and 3.3, without tools.
struct Llama3Layout {
  /// The day that the system message calls today.
  enum Day: Equatable, Sendable {
    case fixed(String)
    case today
  }

  /// Nil for Llama 3, which writes no dates.
  let day: Day?

  static let end = "<|eot_id|>"

  private static func header(_ role: ChatMessage.Role) -> String {
    "<|start_header_id|>\(role.rawValue)<|end_header_id|>\n\n"
  }

  func write(
    _ messages: [ChatMessage], bos: String, _ options: ChatTemplate.Options,
    to text: inout ChatSegments
  ) throws(PeftoolError) {
    text.append(bos)
    var rest = messages[...]
    if let day {
      var system = ""
      if let first = messages.first, first.role == .system {
        system = first.content.pythonStripped
        rest = rest.dropFirst()
      }
      text.append(Self.header(.system) + "Cutting Knowledge Date: December 2023\n")
      let date = if let date = options.date { date } else { try date(day) }
      text.append("Today Date: \(date)\n\n" + system + Self.end)
    }
    for message in rest {
      text.append(Self.header(message.role))
      let content = message.content.pythonStripped + Self.end
      if message.role == .assistant { text.appendAnswer(content) } else { text.append(content) }
    }
    if options.isPrompt { text.append(Self.header(.assistant)) }
  }

  private func date(_ day: Day) throws(PeftoolError) -> String {
    switch day {
    case .fixed(let date): date
    case .today: try Self.today
    }
  }

  /// The day that it is here.
  static var today: String {
    get throws(PeftoolError) { try text(of: time(nil)) }
  }

  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  /// A day here as `strftime("%d %b %Y")` prints it where the locale is C.
  static func text(of seconds: time_t) throws(PeftoolError) -> String {
    var seconds = seconds
    var parts = unsafe tm()
    // Both are ours, and localtime_r touches nothing else; the zone's name is not looked at.
    guard unsafe localtime_r(&seconds, &parts) != nil else { throw .system("no date is known") }
    let (day, month, year) = unsafe (parts.tm_mday, Int(parts.tm_mon), Int(parts.tm_year) + 1900)
    return "\(day < 10 ? "0" : "")\(day) \(months[month]) \(year)"
  }
}
