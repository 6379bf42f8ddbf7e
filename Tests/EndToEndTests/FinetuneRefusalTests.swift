import Foundation
import Testing

private let base = FinetuneSamples.base

@Suite struct FinetuneRefusalTests {
  @Test(arguments: [
    (["--max-rank", "30", "--mean-rank", "29"], "ranks, and --max-rank asks for 30"),
    (["--budget", "2"], "rank 1 in each of 14 modules takes"),
    (["--budget", "100000000"], "leaves nothing to cut of"),
  ])
  func aSearchThatCannotBeIsTold(options: [String], message: String) throws {
    let run = try FinetuneSamples.place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--rank", "auto"] + options)
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
  }

  @Test(arguments: ["llama3-f32", "qwen3-f32"]) func theHeadGetsNoSparseChange(
    model: String
  ) throws {
    let place = try FinetuneSamples.place()
    let run = try place.run(
      "finetune", Repository.sample("training/bases/" + model), "--data", "train.safetensors",
      "--method", "shira", "--rank", "2", "--target-modules", "q_proj,lm_head", "-o", "out")
    #expect(run.status == 2 && run.errors.contains("'lm_head.weight': gets no sparse change"))
  }

  @Test func aSparseChangeThatIsTooLargeIsTold() throws {
    let place = try FinetuneSamples.place()
    let run = try place.finetune("--method", "shira", "--rank", "500", "-o", "out")
    #expect(run.status == 2 && run.errors.contains("entries, and --rank 500 asks for 500·"))
  }

  @Test func longTextsAreNotForAModelWithAWindow() throws {
    let place = try FinetuneSamples.place()
    let mistral = Repository.sample("training/bases/mistral-f32")
    let run = try place.run(
      "finetune", mistral, "--data", "train.safetensors", "-o", "out", "--long")
    #expect(run.status == 2 && run.errors.contains("has layers with a sliding window of 8 tokens"))
  }

  @Test func aQuantizedModelIsNotTrainedWhole() throws {
    let place = try FinetuneSamples.place()
    #expect(try place.run("quantize", base, "-o", "q", "--quiet").status == 0)
    let run = try place.run(
      "finetune", "q", "--data", "train.safetensors", "-o", "out", "--method", "galore")
    #expect(
      run.status == 2 && run.errors.contains("is quantized, and codes cannot be trained whole"))
    let again = try place.run(
      "finetune", "q", "--data", "train.safetensors", "-o", "out", "--quantize", "nf4")
    #expect(again.status == 2 && again.errors.contains("q: is quantized already: leave --quantize"))
  }

  @Test(arguments: [
    (["--lora-bias", "--dora"], "--lora-bias goes without --dora, as in PEFT"),
    (["--init", "loftq"], "it goes with --quantize nf4"),
    (["--dropout", "1"], "--dropout is 1.0, expected 0 to 0.99"),
    (["--rank-pattern", "q_proj"], "--rank-pattern is 'q_proj', expected an expression, = and a"),
    (["--rank-pattern", "q_proj=0"], "--rank-pattern q_proj is 0, expected 1 to 65536"),
    (["--rank", "0"], "--rank is 0, expected 1 to 65536"),
    (["--epochs", "1e300"], "--epochs is 1e+300, expected at most 1000000"),
    (["--warmup", "1e300"], "--warmup is 1e+300, expected at most 1000000"),
    (["--eval-every", "2"], "--eval-every goes with --eval-data"),
    (["--early-stop", "2"], "--early-stop goes with --eval-data"),
    (["--tinit", "2"], "--tinit goes with --method adalora"),
    (["--method", "adalora", "--tfinal", "0"], "--tfinal is 0, expected 1 to 1000000000"),
    (["--method", "adalora", "--dora"], "--dora goes without --method adalora, as in PEFT"),
    (["--method", "adalora", "--rslora"], "--rslora goes without --method adalora, whose"),
    (["--method", "adalora", "--lora-bias"], "--lora-bias goes without --method adalora, as in"),
    (["--method", "adalora", "--init", "pissa"], "--init goes without --method adalora, which"),
    (
      ["--method", "adalora", "--rank-pattern", "q_proj=4"],
      "--rank-pattern goes without --method adalora"
    ),
    (["--rank", "all"], "The value 'all' is invalid for '--rank"),
    (["--sparsity", "1"], "--sparsity is 1.0, expected more than 0 and less than 1"),
    (["--sparsity", "0.5", "--method", "galore"], "--sparsity is for adapters, and --method"),
    (["--sparsity", "0.5", "--method", "adalora"], "--sparsity goes without --method adalora"),
    (["--sparsity", "0.5", "--rank", "auto"], "--sparsity goes without --rank auto, which turns"),
    (["--sparsity", "0.5", "--init", "olora"], "--sparsity goes without --init olora: its frozen"),
    (
      ["--rank", "auto", "--max-rank", "4", "--mean-rank", "8"],
      "--mean-rank is 8.0, expected less than --max-rank, 4"
    ),
    (["--mask", "random"], "--mask goes with --method shira"),
    (["--method", "shira", "--dora"], "--dora goes without --method shira, which has no A and B"),
    (["--method", "shira", "--alpha", "4"], "--alpha goes without --method shira, which has no"),
    (["--method", "shira", "--quantize", "nf4"], "--quantize goes without --method shira"),
    (["--method", "shira", "--rank", "auto"], "--method shira goes without --rank auto"),
    (["--method", "shira", "--long"], "--long goes without --method shira, which trains linear"),
    (["--method", "shira", "--dtype", "f16"], "--dtype goes without --method shira, which trains"),
    (["--method", "shira", "--modules-to-save", "norm"], "--modules-to-save goes beside an"),
    (["--mean-rank", "4"], "--mean-rank goes with --rank auto"),
    (["--rank", "auto", "--energy", "0.5"], "--energy goes with --rank-by energy"),
    (["--rank", "auto", "--budget", "9", "--mean-rank", "2"], "say the same: give one"),
    (["--rank", "auto", "--max-rank", "0"], "--max-rank is 0, expected 1 to 65536"),
    (["--rank", "auto", "--init", "pissa"], "--init pissa goes without --rank auto: its frozen"),
    (["--rank", "auto", "--method", "adalora"], "--method adalora goes without --rank auto"),
    (["--rank", "auto", "--rank-pattern", "q_proj=4"], "--rank-pattern goes without --rank auto"),
    (["--rank", "auto", "--optimizer", "adamw_8bit"], "--optimizer adamw_8bit goes without"),
    (["--method", "full", "--rank", "4"], "--rank is for adapters, and --method full trains the"),
    (["--method", "galore", "--dora"], "--dora is for adapters, and --method galore trains the"),
    (["--method", "galore", "--quantize", "nf4"], "--quantize is for adapters, and --method"),
    (["--method", "galore", "--target-modules", "x"], "--target-modules is for adapters, and"),
    (["--method", "galore", "--modules-to-save", "x"], "--modules-to-save goes beside an adapter"),
    (["--epochs", "2", "--max-steps", "9"], "--epochs and --max-steps both say how long"),
    (["--method", "full", "--loraplus-ratio", "2"], "--loraplus-ratio goes beside an adapter"),
    (["--method", "full", "--scale", "2"], "--scale goes with --method galore"),
    (["--update-proj-gap", "2"], "--update-proj-gap goes with --method galore"),
    (["--method", "galore", "--proj-type", "up"], "--proj-type is 'up', expected one of std,"),
    (["--method", "galore", "--scale", "0"], "--scale is 0.0, expected a number above 0"),
    (["--rope-scaling", "linear"], "--rope-scaling is 'linear', expected linear:F, yarn:F or"),
    (["--group-size", "4"], "--group-size goes with --long"),
    (["--long", "--group-size", "1"], "--group-size is 1, expected 2 to 16777216"),
    (["--dtype", "f16"], "--dtype is for a model: of adapters all is F32"),
    (["--method", "qa-lora", "--dora"], "--dora goes without --method qa-lora, as in PEFT"),
    (["--method", "qa-lora", "--lora-bias"], "--lora-bias goes without --method qa-lora, as in"),
    (["--method", "qa-lora", "--init", "pissa"], "--init goes without --method qa-lora, whose A"),
    (["--method", "qa-lora", "--quantize", "nf4"], "--quantize goes without --method qa-lora"),
    (["--method", "qa-lora", "--adapter", "a"], "--adapter goes without --method qa-lora, which"),
    (["--method", "lora-fa", "--lora-bias"], "--lora-bias goes without --method lora-fa, as in"),
    (["--method", "lora-fa", "--dora"], "--dora goes without --method lora-fa, as in PEFT"),
    (["--method", "lora-fa", "--adapter", "a"], "--adapter goes without --method lora-fa, which"),
    (
      ["--method", "lora-fa", "--loraplus-ratio", "16"],
      "--loraplus-ratio goes without --method lora-fa, which has"
    ),
  ])
  func wrongUsageIsTold(options: [String], message: String) throws {
    let run = try FinetuneSamples.place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out"] + options)
    #expect(run.status == 64 && run.errors.contains(message), "\(run.errors)")
  }

  @Test(arguments: [
    (["--init-r", "4"], "--init-r is 4, expected --rank at least, 8"),
    (["--init-r", "60000"], "ranks, and --init-r asks for 60000"),
    (["--max-steps", "1"], "no step of 1 is left to prune in"),
    (["--tinit", "2", "--tfinal", "2", "--max-steps", "4"], "--tinit is 2 and --tfinal 2, exp"),
  ])
  func aBudgetThatCannotBeMetIsTold(options: [String], message: String) throws {
    let run = try FinetuneSamples.place().run(
      ["finetune", base, "--data", "train.safetensors", "-o", "out", "--method", "adalora"]
        + options)
    #expect(run.status == 2 && run.errors.contains(message), "\(run.errors)")
  }

  @Test(arguments: [
    (["--data", "none.safetensors"], "none.safetensors: cannot open: No such file"),
    (["--data", "text.jsonl"], "llama-f32/tokenizer.json: is not there: text needs the model's"),
    (
      ["--target-modules", "q_prj"],
      "has no linear layer 'q_prj' (--target-modules), but down_proj, gate_proj, k_proj, lm_head,"
    ),
    (["--rank-pattern", "q_prj=3"], "the pattern 'q_prj' matches none of the layers with"),
    (["--adapter", "none"], "none: "),
    (["--init", "pissa", "--rank", "41"], "has 40 ranks, of which --init pissa takes 41"),
    (["--target-modules", "(x"], "peftool: --target-modules: '(x' is no regular expression"),
    (["--modules-to-save", "embed"], "llama-f32: has no module 'embed' (--modules-to-save)"),
    (["--trainable-tokens", "5,9999"], "llama-f32: has no token 9999 (--trainable-tokens)"),
    (["--trainable-tokens", "<a>"], "llama-f32/tokenizer.json: "),
    (
      ["--modules-to-save", "q_proj", "--quantize", "nf4"],
      "q_proj.weight': is quantized, and codes cannot be trained whole"
    ),
    (
      ["--init", "loftq", "--quantize", "nf4", "--target-modules", "lm_head"],
      "tensor 'lm_head.weight': is not quantized here, which --init loftq makes up for"
    ),
    (["--max-steps", "1", "--learning-rate", "1e38"], "after step 1; a lower --learning-rate"),
    (["--max-length", "5"], "has 12 tokens, expected at most 5 (--max-length)"),
    (["--max-length", "65"], "--max-length is 65, the model has 64 positions"),
    (["--learning-rate", "1e30", "--epochs", "5"], "a lower --learning-rate may help"),
    (["--resume"], "out: has no checkpoint to go on from"),
    (["-o", "no/out"], "no: is no folder, in which -o is to make one"),
    (["-o", "both", "--report", "both"], "both: is the output itself: --report names a page"),
    (["--report", "train.safetensors"], "train.safetensors: exists already; name another file"),
    (["--adapter", "checkpoints"], "checkpoints: has a checkpoint of training and no adapter"),
  ])
  func whatCannotBeDoneIsOneLine(options: [String], message: String) throws {
    let place = try FinetuneSamples.place()
    try place.write("text.jsonl", "{\"text\": \"a\"}\n")
    let checkpoint = "cp -r '\(Repository.sample("adapters/lora"))' checkpoints/checkpoint-3"
    #expect(try place.shell("mkdir checkpoints && \(checkpoint)").status == 0)
    var arguments = ["finetune", base, "-o", "out", "--quiet"] + options
    if !options.contains("--data") { arguments += ["--data", "train.safetensors"] }
    let run = try place.run(arguments)
    #expect(run.status == 2)
    #expect(run.errors.hasPrefix("peftool: ") && run.errors.contains(message), "\(run.errors)")
    #expect(run.errors.split(separator: "\n").count == 1)
    #expect(!FileManager.default.fileExists(atPath: place.path("out/adapter_config.json")))
  }
}
