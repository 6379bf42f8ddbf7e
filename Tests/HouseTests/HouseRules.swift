import Testing

/// The order of the modules in which imports only look back.
private let moduleOrder = [
  "CJSON", "CYAML", "COniguruma", "CZstd", "CUTF8Proc", "CXXHash", "CKernels", "CLinux",
  "COpenBLAS",
  "Files", "JSON", "YAML", "Patterns", "Tensors", "LinearAlgebra", "Quantization", "Checkpoints",
  "Adapters", "Tokenizers", "Examples", "Models", "Training", "Reports", "Commands", "peftool",
  "peftool-bench",
]

/// Members that a protocol asks for, which its documentation describes.
private let witnesses = [
  "static let configuration", "init()", "func run()", "mutating func run()", "func validate()",
  "mutating func validate()", "var description: String", "static func ==", "static func <",
  "func hash(", "let rawValue: Int", "static func gemm(", "static func omatcopy(",
  "static func geqrf(", "static func orgqr(", "static func gesdd(",
  "var path: String", "var files: [InputFile]", "var metadata: [(key: String, value: String)]",
  "var tensors: [TensorInfo]", "let tensors: [TensorInfo]", "let path: String",
  "let files: [InputFile]", "let metadata: [(key: String, value: String)]",
  "var origins: [any TensorSource]", "func place(of tensor: TensorInfo)", "func read(",
  "func verifyUnchanged()",
]

/// Places in a module's source that break a rule, one line each.
private func breaches(
  in files: [(path: String, lines: [String])], _ isBreach: (_ lines: [String], _ at: Int) -> Bool
) -> [String] {
  files.flatMap { path, lines in
    lines.indices.filter { isBreach(lines, $0) }.map { "\(path):\($0 + 1): \(lines[$0])" }
  }
}

/// Whether a `package` declaration stands here without a documentation comment above it.
private func isUndocumented(_ lines: [String], _ at: Int) -> Bool {
  let line = lines[at].drop { $0 == " " }
  guard line.hasPrefix("package "), !line.hasPrefix("package import") else { return false }
  let declaration = line.dropFirst("package ".count)
  if declaration.hasPrefix("extension") { return false }
  if witnesses.contains(where: { declaration.hasPrefix($0) }) { return false }
  if isMemberwise(lines, at) { return false }
  var above = at - 1
  while above >= 0, lines[above].drop(while: { $0 == " " }).hasPrefix("@") { above -= 1 }
  return above < 0 || !lines[above].drop(while: { $0 == " " }).hasPrefix("///")
}

/// Whether an initialiser begins here that only sets fields, whose documentation is its own.
private func isMemberwise(_ lines: [String], _ at: Int) -> Bool {
  let assignment = #/\s*(?:self\.)?\w+ = .*/#
  if let body = lines[at].wholeMatch(of: #/\s*package init\(.*\) \{(.+)\}/#)?.1 {
    return body.wholeMatch(of: assignment) != nil
  }
  guard lines[at].contains("package init("),
    let open = lines[at...].firstIndex(where: { $0.hasSuffix("{") })
  else { return false }
  let body = lines[(open + 1)...].prefix { $0.drop { $0 == " " } != "}" }
  return body.allSatisfy { $0.wholeMatch(of: assignment) != nil }
}

/// The module that a line imports, if it does.
private func importedModule(_ line: String) -> String? {
  var words = line.split(separator: " ").map(String.init)
  if ["package", "public", "internal", "private", "fileprivate"].contains(words.first) {
    words.removeFirst()
  }
  guard words.first == "import", words.count >= 2 else { return nil }
  return words.last.map { String($0.split(separator: ".").first ?? "") }
}

/// Whether the module is ours and does not stand before `module` in the order.
private func looksForward(from module: String, to imported: String) -> Bool {
  guard let place = moduleOrder.firstIndex(of: imported) else { return false }
  return place >= (moduleOrder.firstIndex(of: module) ?? 0)
}

@Suite struct HouseRules {
  @Test func everyPackageDeclarationIsDocumented() throws {
    let found = breaches(in: try Repository.swiftSources(), isUndocumented)
    #expect(found == [])
  }

  @Test func importsLookBackInTheOrderOfModules() throws {
    let found = try Repository.swiftSources().flatMap { file in
      let module = String(file.path.split(separator: "/")[0])
      #expect(moduleOrder.contains(module) || module == "peftool-bench")
      return breaches(in: [file]) { lines, at in
        importedModule(lines[at]).map { looksForward(from: module, to: $0) } ?? false
      }
    }
    #expect(found == [])
  }

  @Test func sourcesDoWithoutFoundation() throws {
    let found = breaches(in: try Repository.swiftSources()) { lines, at in
      importedModule(lines[at])?.hasPrefix("Foundation") ?? false
    }
    #expect(found == [])
  }

  @Test(arguments: ["TODO", "FIXME", "fatalError(", "try! ", "as! ", "print(\""])
  func sourcesDoWithout(word: String) throws {
    let found = breaches(in: try Repository.swiftSources()) { lines, at in
      lines[at].contains(word)
    }
    #expect(found == [])
  }

  @Test func theRulesSeeABreach() {
    #expect(isUndocumented(["", "  package let x = 1"], 1))
    #expect(isUndocumented(["// no", "@safe", "package struct S {"], 2))
    #expect(!isUndocumented(["/// Yes.", "@safe", "package struct S {"], 2))
    #expect(!isUndocumented(["", "package import Files"], 1))
    #expect(!isUndocumented(["package init(_ x: Int) {", "  self.x = x", "}"], 0))
    #expect(isUndocumented(["package init(_ x: Int) {", "  self.x = x", "  f()", "}"], 0))
    #expect(!isUndocumented(["package init(_ x: Int) { self.x = x }"], 0))
    #expect(importedModule("package import Files") == "Files")
    #expect(importedModule("import struct Foundation.URL") == "Foundation")
    #expect(importedModule("let important = 1") == nil)
    #expect(looksForward(from: "Files", to: "Tensors"))
    #expect(!looksForward(from: "Tensors", to: "Files"))
    #expect(!looksForward(from: "Files", to: "Glibc"))
  }
}
