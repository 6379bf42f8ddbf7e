import Foundation
import Testing

@Suite struct UsageTests {
  @Test func versionIsOneLine() throws {
    let run = try Workplace().run("--version")
    #expect(run.status == 0)
    #expect(run.text.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
    #expect(run.errors == "")
  }

  @Test func helpGoesToStandardOutput() throws {
    let run = try Workplace().run("--help")
    #expect(run.status == 0)
    #expect(run.text.hasPrefix("OVERVIEW: "))
    #expect(run.text.contains("Exit status: 0 done; 1 the answer is no"))
    #expect(run.errors == "")
  }

  @Test(arguments: [["--none"], ["none"]])
  func wrongUsageIsStatus64(arguments: [String]) throws {
    let place = try Workplace()
    let run = try place.shell("peftool \(arguments.joined(separator: " "))")
    #expect(run.status == 64)
    #expect(run.text == "")
    #expect(run.errors.hasPrefix("peftool: "))
  }

  @Test func fullStandardOutputIsAnError() throws {
    let run = try Workplace().shell("peftool --help > /dev/full")
    #expect(run.status == 2)
    #expect(
      run.errors == "peftool: standard output: cannot write: No space left on device\n")
  }

  @Test func closedStandardOutputIsAnError() throws {
    let run = try Workplace().shell("peftool --help >&-")
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: standard output: cannot write: "))
  }

  @Test func readerThatHasGoneEndsItQuietly() throws {
    let run = try Workplace().shell(
      "trap '' PIPE; { sleep 0.2; peftool --help; echo $? >&2; } | true")
    #expect(run.errors == "141\n")
  }
}

@Suite struct CompletionTests {
  @Test func bashTakesTheCompletionScript() throws {
    let place = try Workplace()
    let run = try place.shell(
      """
      peftool --generate-completion-script bash > completion && source completion \
        && complete -p peftool && COMP_WORDS=(peftool insp) COMP_CWORD=1 _peftool peftool insp peftool \
        && echo "${COMPREPLY[@]}"
      """)
    #expect(run.status == 0)
    #expect(run.errors == "")
    #expect(run.text.hasSuffix("\ninspect\n"))
  }

  @Test(arguments: ["bash", "zsh", "fish"])
  func everyShellHasAScript(shell: String) throws {
    let run = try Workplace().run("--generate-completion-script", shell)
    #expect(run.status == 0)
    #expect(run.text.contains("peftool"))
    #expect(run.errors == "")
  }
}

@Suite struct ManualTests {
  /// The verbs that the help lists.
  private static func verbs() throws -> [String] {
    let help = try Workplace().run("--help").text
    guard let list = help.components(separatedBy: "SUBCOMMANDS:\n").last else { return [] }
    return list.components(separatedBy: "\n").compactMap {
      $0.wholeMatch(of: /[ ]{2}([a-z]+)( .*)?/).map { String($0.1) }
    }
  }

  @Test func everyVerbHasAPage() throws {
    let verbs = try Self.verbs()
    for verb in verbs {
      #expect(try Repository.text("man/peftool.\(verb).1").contains(".Nm \"peftool \(verb)\""))
    }
  }

  @Test func everyVerbHasALineInTheReadme() throws {
    let readme = try Repository.text("README.md")
    for verb in try Self.verbs() {
      #expect(readme.contains("| `\(verb) "))
    }
  }
}
