extension String {
  /// What stands between the commas of a list that a user gives, without spaces around it; empty
  /// where nothing stands there.
  package var commaParts: [String] {
    split(separator: ",", omittingEmptySubsequences: false).map { part in
      var part = part.drop { $0 == " " }
      while part.last == " " { part.removeLast() }
      return String(part)
    }
  }
}
