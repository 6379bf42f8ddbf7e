import Foundation
import Testing

private let base = FinetuneSamples.base

@Suite struct FinetuneResumeTests {
  /// What could not be written in one type is not lost, and is written in another.
  @Test func whatCannotBeWrittenIsSaved() throws {
    let place = try FinetuneSamples.place()
    #expect(try place.shell("cp -r '\(base)' big").status == 0)
    try place.write(
      "edit.py",
      Data(
        SafetensorsEdit.program(
          "t['model.norm.weight'][:4] = struct.pack('<f', 1e6)"
        ).utf8))
    #expect(try place.shell("python3 edit.py big").status == 0)
    let all = [
      "finetune", "big", "--data", "train.safetensors", "-o", "out", "--method", "full",
      "--max-steps", "2", "--quiet",
    ]
    let run = try place.run(all + ["--dtype", "f16"])
    #expect(run.status == 2 && run.errors.contains("the last step is saved, and --resume writes"))
    let names = try FileManager.default.contentsOfDirectory(atPath: place.path("out")).sorted()
    #expect(names == ["checkpoint-2", "log.jsonl"])
    let other = try place.run(all + ["--resume", "--dtype", "f32"])
    #expect(other.status == 0, "\(other.errors)")
    #expect(try place.run(all.map { $0 == "out" ? "whole" : $0 } + ["--dtype", "f32"]).status == 0)
    #expect(try place.bytes("out/model.safetensors") == place.bytes("whole/model.safetensors"))
  }

  @Test(arguments: [
    ["--method", "full"], ["--method", "galore", "--update-proj-gap", "4"],
    ["--method", "galore", "--rank", "64", "--optimizer", "adamw_8bit"],
  ])
  func aRunOfAModelGoesOn(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let all =
      ["finetune", base, "--data", "train.safetensors", "--save-every", "5", "--max-steps", "9"]
      + options
    #expect(try place.run(all + ["-o", "whole", "--threads", "1"]).status == 0)
    #expect(
      try place.shell("cp -r whole out && rm out/config.json out/model.safetensors").status == 0)
    let run = try place.run(all + ["-o", "out", "--resume", "--quiet", "--threads", "3"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(try place.bytes("out/model.safetensors") == place.bytes("whole/model.safetensors"))
    let done = try place.run(all + ["-o", "out", "--resume"])
    #expect(done.status == 2 && done.errors.contains("out: has its model already: training is"))
  }

  /// What is trained besides the adapter goes on, too.
  @Test(arguments: [
    ["--modules-to-save", "embed_tokens,norm"], ["--trainable-tokens", "5,17"],
    ["--method", "adalora", "--tinit", "2"], ["--method", "lora-fa"],
    ["--method", "shira", "--rank", "2", "--gradient-accumulation", "2"],
    ["--method", "shira", "--rank", "4", "--mask", "magnitude"],
    ["--rank", "auto"], ["--rank", "auto", "--rank-by", "energy", "--dora"],
    ["--sparsity", "0.6", "--dora"],
    ["--method", "qa-lora", "--dropout", "0.1"],
    ["--quantize", "nf4", "--init", "loftq", "--dora", "--warmup", "0.3"],
    ["--init", "pissa", "--schedule", "cosine", "--loraplus-ratio", "8"],
  ])
  func aRunOfAnotherKindGoesOn(options: [String]) throws {
    let place = try FinetuneSamples.place()
    let all =
      [
        "finetune", FinetuneSamples.model(for: options), "--data", "train.safetensors",
        "--save-every", "5",
      ]
      + ["--max-steps", "9"] + options
    #expect(try place.run(all + ["-o", "whole"]).status == 0)
    // What a run leaves that is cut off after step 5.
    #expect(try place.shell("cp -r whole out && rm out/adapter_*").status == 0)
    let run = try place.run(all + ["-o", "out", "--resume", "--json"])
    #expect(run.status == 0, "\(run.errors)")
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("out/\(adapter)") == place.bytes("whole/\(adapter)"))
    let log = try String(decoding: place.bytes("out/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 9)
    let done = try place.run(all + ["-o", "out", "--resume"])
    #expect(done.status == 2 && done.errors.contains("out: has its adapter already: training is"))
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let changed = try place.run(
      [
        "finetune", FinetuneSamples.model(for: options), "--data", "train.safetensors", "-o", "out",
        "--resume",
        "--max-steps", "9",
      ]
    )
    #expect(changed.status == 2 && changed.errors.contains("was made with"))
  }

  /// Whatever step a signal meets, the run goes on as if there had been none.
  @Test(
    arguments: ["INT", "KILL"],
    [
      (40, ["--save-every", "25", "--packing", "--max-length", "24", "--dropout", "0.1"]),
      (61, ["--save-every", "25", "--packing", "--max-length", "24", "--dropout", "0.1"]),
      (
        130,
        [
          "--dora", "--eval-data", "eval.safetensors", "--eval-every", "40", "--early-stop", "90",
          "--group-by-length", "--schedule", "cosine", "--warmup", "0.1", "--weight-decay", "0.1",
          "--loraplus-ratio", "4",
        ]
      ),
    ])
  func anInterruptedRunGoesOn(signal: String, run: (line: Int, options: [String])) throws {
    let place = try FinetuneSamples.place()
    let options = ["--max-steps", "400"] + run.options
    let whole = try place.run(
      ["finetune", base, "--data", "train.safetensors", "-o", "whole", "--quiet"] + options)
    #expect(whole.status == 0, "\(whole.errors)")
    let command =
      "peftool finetune '\(base)' --data train.safetensors -o out --quiet "
      + options.joined(separator: " ")
    let broken = try place.shell(
      """
      exec 2> errors
      '\(Run.peftool)' \(command.dropFirst("peftool ".count)) & p=$!
      for _ in $(seq 3000); do
        [ "$(cat out/log.jsonl 2> /dev/null | wc -l)" -ge \(run.line) ] && break; sleep 0.005
      done
      kill -\(signal) $p; wait $p; echo $?
      """)
    let status = broken.text.trimmingCharacters(in: .whitespacesAndNewlines)
    // It may have been done before the signal came.
    #expect(["0", signal == "INT" ? "130" : "137"].contains(status), "\(broken.text)")
    if status != "0" {
      let run = try place.shell(command + " --resume")
      #expect(run.status == 0, "\(run.errors)")
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
      #expect(try place.bytes("out/\(name)") == place.bytes("whole/\(name)"))
    }
    func lineCount(_ folder: String) throws -> Int {
      try place.bytes("\(folder)/log.jsonl").count { $0 == UInt8(ascii: "\n") }
    }
    #expect(try lineCount("out") == lineCount("whole"))
  }

  /// Frozen rows of the factors are found again, and stay.
  @Test func aStartFromTheWeightGoesOn() throws {
    let place = try FinetuneSamples.place()
    let options = ["--init", "pissa", "--save-every", "3", "--quiet"]
    for (name, steps, more) in [
      ("whole", "9", []), ("out", "9", ["--resume"]),
    ] {
      if name == "out" {
        try FileManager.default.createDirectory(
          atPath: place.path("out"), withIntermediateDirectories: false)
        try FileManager.default.copyItem(
          atPath: place.path("whole/checkpoint-6"), toPath: place.path("out/checkpoint-6"))
      }
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", name, "--max-steps", steps]
          + options + more)
      #expect(run.status == 0, "\(run.errors)")
    }
    let adapter = "adapter_model.safetensors"
    #expect(try place.bytes("out/\(adapter)") == place.bytes("whole/\(adapter)"))
  }

  /// Llama 3.2's system message has the day in it, which is another one 26 hours to the west.
  @Test func aRunGoesOnWithTheDayOnWhichItBegan() throws {
    let place = try Workplace()
    let messages = [("user", "Hi"), ("assistant", "Ho")].map { role, text in
      "{\"role\": \"\(role)\", \"content\": \"\(text)\"}"
    }
    try place.write("d.jsonl", "{\"messages\": [\(messages.joined(separator: ", "))]}\n")
    let command =
      "peftool finetune \(Repository.sample("generation/tiny-chat")) --data d.jsonl --quiet "
      + "--chat-template llama3.2 --max-steps 2 --save-every 1 -o"
    let whole = try place.shell("TZ=AAA-14 \(command) whole")
    #expect(whole.status == 0, "\(whole.errors)")
    let rest = try place.shell(
      "cp -r whole out && rm out/adapter_* && TZ=AAA12 \(command) out --resume")
    #expect(rest.status == 0, "\(rest.errors)")
    let name = "adapter_model.safetensors"
    #expect(try place.bytes("whole/\(name)") == place.bytes("out/\(name)"))
    #expect(try place.shell("TZ=AAA12 \(command) other").status == 0)
    #expect(try place.bytes("whole/\(name)") != place.bytes("other/\(name)"))
  }

  @Test func aRunThatHasStoppedEarlyStaysSo() throws {
    let place = try FinetuneSamples.place()
    let options = [
      "--eval-data", "eval.safetensors", "--eval-every", "1", "--max-steps", "40",
      "--learning-rate", "1", "--early-stop", "2", "-o", "out", "--json",
    ]
    let first = try place.run(["finetune", base, "--data", "train.safetensors"] + options)
    #expect(first.status == 0, "\(first.errors)")
    let log = try place.bytes("out/log.jsonl")
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let again = try place.run(
      ["finetune", base, "--data", "train.safetensors", "--resume"] + options)
    #expect(again.status == 0, "\(again.errors)")
    #expect(try place.bytes("out/log.jsonl") == log)
  }

  /// Who looks at the first line of what is told does not end the training.
  @Test func aReaderThatGoesEndsNothing() throws {
    let place = try FinetuneSamples.place()
    let run = try place.shell(
      "peftool finetune '\(base)' --data train.safetensors -o out --max-steps 40 2>&1 | head -n 1")
    #expect(run.text.contains("step"))
    #expect(try place.run("verify", "out").status == 0)
  }

  @Test func whatHasNoCheckpointIsBegunAgain() throws {
    let place = try FinetuneSamples.place()
    try place.write("out/log.jsonl", "{\"step\": 1, \"loss\": 2}\n")
    let run = try place.finetune("-o", "out", "--max-steps", "2", "--quiet")
    #expect(run.status == 0, "\(run.errors)")
    let log = try String(decoding: place.bytes("out/log.jsonl"), as: UTF8.self)
    #expect(log.split(separator: "\n").count == 2)
  }

  @Test func aCheckpointOfAnotherBaseIsRefused() throws {
    let place = try FinetuneSamples.place()
    let options = ["--data", "train.safetensors", "-o", "out", "--max-steps", "4"]
    #expect(
      try place.run(["finetune", base, "--save-every", "2", "--quiet"] + options).status == 0)
    let other = try place.run("merge", base, Repository.sample("adapters/lora"), "-o", "other")
    #expect(other.status == 0, "\(other.errors)")
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let run = try place.run(["finetune", "other", "--resume"] + options)
    #expect(run.status == 2 && run.errors.contains("was made with model "), "\(run.errors)")
  }

  @Test func aCheckpointOfOtherSettingsIsRefused() throws {
    let place = try FinetuneSamples.place()
    #expect(try place.finetune("-o", "out", "--max-steps", "4", "--save-every", "2").status == 0)
    #expect(try place.shell("rm out/adapter_*").status == 0)
    let run = try place.finetune(
      "-o", "out", "--max-steps", "4", "--resume", "--learning-rate", "1")
    #expect(run.status == 2)
    #expect(
      run.errors.contains("out/checkpoint-2: was made with learning_rate 0.0002, and now it is 1"))
    for (option, message) in [
      (["--rank", "3"], "was made with rank 8, and now it is 3"),
      (["--eval-data", "eval.safetensors"], "was made with eval_data null, and now it is \""),
    ] {
      let run = try place.run(
        ["finetune", base, "--data", "train.safetensors", "-o", "out", "--max-steps", "4"]
          + ["--resume"] + option)
      #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
    }
    let again = try place.finetune("-o", "out")
    #expect(again.status == 2)
    #expect(again.errors.contains("has the checkpoint of step 2: --resume goes on from there"))
  }
}
