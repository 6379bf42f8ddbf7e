import Files
import Models
import Training

extension TrainingPlan {
  /// The commands for the method that is recommended, in their order.
  var commands: [String] {
    guard !settings.isOnGPU, let run = recommended.map({ runs[$0] }) else { return [] }
    let method = run.method
    var commands: [[String]] = []
    var model = base.path
    if let coding = method.coding, base.form == .numbers {
      let name = Folder.name(of: model)
      // A name such as `..` says nothing.
      let coded = (name.hasPrefix(".") || name == "/" ? "model" : name) + "-" + coding.name
      commands.append(["quantize", model, "-o", coded] + coding.flags)
      model = coded
    }
    var finetune = ["finetune", model, "--data", "train.jsonl", "-o", "tuned"] + method.flags
    switch method.settings(settings.ranks) {
    case .full: break
    case .rankSearch(let own):
      finetune += [
        "--mean-rank", "\(settings.ranks.adapter)", "--max-rank", "\(own.initialRank)",
      ]
    case .galore(let own): finetune += ["--rank", "\(own.rank)"]
    default: finetune += ["--rank", "\(settings.ranks.adapter)"]
    }
    if case .adaLoRA(let own) = method.settings(settings.ranks),
      own.initialRank != AdaLoRAOptions.initialRank(own.targetRank)
    {
      // Half as much again is more than the smallest layers have.
      finetune += ["--init-r", "\(own.initialRank)"]
    }
    finetune += ["--batch-size", "\(settings.rows)", "--max-length", "\(settings.length)"]
    if run.keeping == .inputs { finetune += ["--checkpoint-activations", "on"] }
    commands.append(finetune)
    if !method.trainsModel {
      if !run.isMerged {
        // Real offsets of the same codes take what zero points would lose.
        commands.append(["convert", model, "-o", "offsets", "--layout", "mlx"])
        model = "offsets"
      }
      commands.append(["merge", model, "tuned", "-o", "merged"])
    }
    return commands.map { (["peftool"] + $0.map(\.shellWord)).joined(separator: " ") }
  }
}

extension String {
  /// The word as a shell takes it: in quotes where it has other signs than paths and options do.
  fileprivate var shellWord: String {
    let isPlain =
      !isEmpty
      && allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "/._-+=:@%,".contains($0)) }
    return isPlain ? self : "'" + replacing("'", with: #"'\''"#) + "'"
  }
}
