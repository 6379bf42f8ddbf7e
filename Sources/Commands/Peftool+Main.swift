import ArgumentParser
import Files
import Glibc
import Reports

extension Peftool {
  /// Parses the arguments, runs the verb and tells the user of what went wrong.
  ///
  /// - Returns: the exit status.
  package static func status(running arguments: [String]) -> Int32 {
    reserveStandardStreams()
    // A reader that has gone ends peftool quietly, also where the caller had ignored the signal.
    signal(SIGPIPE, SIG_DFL)
    Interruption.install()
    raiseDescriptorLimit()
    SystemMemory.takeBackWhatIsFreed()
    if let text = refusal(ofVerbIn: arguments) {
      writeToStandardError("peftool: \(text)\n")
      return exitCode(for: ValidationError(text)).rawValue
    }
    do {
      var command = try parseAsRoot(FinetuneConfiguration.expanding(arguments))
      try command.run()
      return 0
    } catch let status as ExitCode {
      return status.rawValue
    } catch let error as PeftoolError {
      writeToStandardError("peftool: \(error)\n")
      return 2
    } catch {
      return status(telling: error)
    }
  }

  /// What is said where the first argument, or that of `help`, is no verb; nil where it is one.
  private static func refusal(ofVerbIn arguments: [String]) -> String? {
    let help = "help"
    let given = arguments.first == help ? arguments.dropFirst().first : arguments.first
    guard let given, !given.hasPrefix("-") else { return nil }
    // Without a name of its own a command has that of its type.
    let verbs = configuration.subcommands.map { verb in
      verb.configuration.commandName ?? "\(verb)".lowercased()
    }
    guard given != help, !verbs.contains(given) else { return nil }
    return "'\(given.printable)' is no verb; there are \(verbs.joined(separator: ", ")) and \(help)"
  }

  /// Prints what the argument parser has thrown: help and version to standard output, a wrong
  /// usage to standard error.
  private static func status(telling error: any Error) -> Int32 {
    let status = exitCode(for: error).rawValue
    let text = fullMessage(for: error)
    guard status == 0 else {
      let prefix = "Error: "
      writeToStandardError(
        "peftool: \(text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : text)\n")
      return status
    }
    do throws(PeftoolError) {
      try StandardOutput.print(text + "\n")
      return 0
    } catch {
      writeToStandardError("peftool: \(error)\n")
      return 2
    }
  }

  /// Lets the process open as many files as it may: a model can have hundreds of shards, and the
  /// usual limit is kept low for the sake of select(2) alone, which peftool does not call.
  private static func raiseDescriptorLimit() {
    var limit = rlimit()
    // Both calls touch only the struct that they are given.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  /// Opens those of descriptors 0, 1 and 2 that are closed, so that no file gets their numbers.
  ///
  /// Each is opened the wrong way round: reading from a closed standard input and writing to a
  /// closed standard output must still fail.
  private static func reserveStandardStreams() {
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
      // The lowest free number is this one: those below it are open by now.
      _ = unsafe open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY)
    }
  }
}
