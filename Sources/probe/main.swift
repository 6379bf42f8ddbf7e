import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Models
import Tensors
import Training
func need<T>(_ x: T?) -> T { x! }
let root = "/work/shared/fixtures/"
func floats(_ c: Checkpoint, _ name: String) throws -> [Float] { try StoredTensor(need(c[name]), in: c.source).values(Float.self) }
func ints(_ c: Checkpoint, _ name: String) throws -> [Int] {
  let bytes = try c.source.bytes(of: need(c[name]))
  return stride(from: 0, to: bytes.count, by: 8).map { i in (0..<8).reduce(0) { $0 | Int(bytes[i + $1]) << (8 * $1) } }
}
import JSON
for name in ["lora-llama3", "lora-mistral", "lora-qwen2", "lora-qwen3", "dora-llama3", "qlora-llama3", "qdora-llama3"] {
  let folder = root + "training/" + name
  let start = try Checkpoint(opening: folder + "/start")
  let config = try AdapterConfiguration(need(try start.adapterConfig))
  let base = ["lora-mistral": "mistral-f32", "lora-qwen2": "qwen2-f32", "lora-qwen3": "qwen3-f32"][name] ?? "llama3-f32"
  var design = AdapterDesign()
  design.rank = config.rank; design.alpha = config.alpha; design.usesRSLoRA = config.usesRSLoRA; design.usesDoRA = config.usesDoRA
  design.targets = .names(config.targetModules)
  func make(_ m: String, _ w: FrozenWeight) throws(PeftoolError) -> LoRA? { try design.adapter(of: m, w) }
  let model = try Llama(Checkpoint(opening: root + base), quantizing: name.hasPrefix("q"), adapter: make)
  let adapter = TrainedAdapter(model, configuration: design.json(modules: [], base: base))
  try adapter.read(from: folder + "/start")
  var settings = Trainer.Settings(schedule: Schedule(kind: .constant, warmupSteps: 0, stepCount: 12))
  settings.learningRate = 0.002
  let team = ThreadTeam(count: 2)
  let trainer = Trainer(model, settings, team: team)
  let pass = LossPass(model, team: team, tokens: 64, longest: 32, keeping: .everything)
  let batches = try Checkpoint(opening: folder + "/batches.safetensors")
  let ids = try ints(batches, "input_ids").map(Int32.init), mask = try ints(batches, "label_mask").map { $0 != 0 }
  let expected = try JSON(opening: folder + "/expected.json")
  let losses = try expected.array(at: "losses").map { try $0.double(named: "") }, norms = try expected.array(at: "grad_norms").map { try $0.double(named: "") }
  var worst = (0.0, 0.0)
  for s in 0..<12 {
    let batch = TokenBatch((0..<2).map { r in let i = (s * 2 + r) * 32; return (Array(ids[i..<i + 32]), Array(mask[i..<i + 32])) })
    let step = try trainer.step([batch], pass: pass)
    worst.0 = max(worst.0, abs(step.loss / losses[s] - 1)); worst.1 = max(worst.1, abs(step.gradientNorm / norms[s] - 1))
  }
  let end = try Checkpoint(opening: folder + "/end")
  var far = 0.0
  for p in trainer.parameters {
    let e = try floats(end, p.name)
    var d = 0.0, n = 0.0
    for i in 0..<p.values.count { for j in 0..<p.values.columns {
      let y = Double(p.name.contains("lora_B") ? e[j * p.values.count + i] : e[i * p.values.columns + j])
      d += (Double(p.values[i, j]) - y) * (Double(p.values[i, j]) - y); n += y * y } }
    far = max(far, (d / n).squareRoot())
  }
  print(name, "loss", worst.0, "norm", worst.1, "end", far)
}
