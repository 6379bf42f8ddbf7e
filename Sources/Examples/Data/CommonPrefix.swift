/// How many of the first elements two arrays have in common.
func commonPrefixCount(_ a: [Int32], _ b: [Int32]) -> Int {
  zip(a, b).prefix { $0 == $1 }.count
}
