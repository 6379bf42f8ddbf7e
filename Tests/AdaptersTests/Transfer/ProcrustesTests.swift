import Checkpoints
import Files
import Fixtures
import LinearAlgebra
import Tensors
import Testing

@testable import Adapters

/// Adapters moved to models whose hidden stream is turned, wider, or passed through more layers or
/// fewer.
@Suite struct ProcrustesTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  private static let (width, inner, vocabulary, layers) = (12, 14, 60, 3)
  private static let modules = [
    "self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj",
  ]
  /// (out, in) of each, where heads have 8 numbers together.
  private static let shapes = [
    [8, width], [8, width], [width, 8], [inner, width], [width, inner],
  ]
  private static let norms = ["input_layernorm", "post_attention_layernorm"]

  private func random(_ rows: Int, _ columns: Int, seed: Int, around center: Double = 0) -> Matrix<
    Double
  > {
    var numbers = SplitMix64(seed: seed)
    return Matrix(
      rows: rows, columns: columns,
      elements: (0..<rows * columns).map { _ in
        center + Double.random(in: -0.7...0.7, using: &numbers)
      })
  }

  private func path(_ layer: Int, _ module: String) -> String { "model.layers.\(layer).\(module)" }

  /// All tensors of the old model by name.
  private func old() -> [String: Matrix<Double>] {
    var tensors = [
      "model.embed_tokens": random(Self.vocabulary, Self.width, seed: 1),
      "model.norm": random(1, Self.width, seed: 2, around: 1),
    ]
    for layer in 0..<Self.layers {
      for (place, module) in Self.modules.enumerated() {
        let shape = Self.shapes[place]
        tensors[path(layer, module)] = random(shape[0], shape[1], seed: 10 * layer + place + 3)
      }
      for (place, norm) in Self.norms.enumerated() {
        tensors[path(layer, norm)] = random(1, Self.width, seed: 50 + 2 * layer + place, around: 1)
      }
    }
    return tensors
  }

  private func isNorm(_ name: String) -> Bool { name.hasSuffix("norm") }

  private func norm(of name: String) -> String {
    let layer = name.split(separator: ".").prefix(3).joined(separator: ".")
    return "\(layer).\(name.contains("mlp") ? Self.norms[1] : Self.norms[0])"
  }

  private func reads(_ name: String) -> Bool {
    ["q_proj", "v_proj", "up_proj"].contains { name.hasSuffix($0) }
  }

  /// What a matrix becomes, of the model or of an update, in a stream turned by R, (old, new), and
  /// made so many times as long.
  private func turned(
    _ name: String, _ old: Matrix<Double>, by r: Matrix<Double>, scale: Double,
    _ gains: (old: Matrix<Double>, new: Matrix<Double>)?
  ) -> Matrix<Double> {
    guard let gains else { return product(r, old, transposing: .left).scaled(by: scale) }
    let width = (Double(r.rows) / Double(r.columns)).squareRoot()
    return product(old.scaled(columns: gains.old.elements), r)
      .scaled(columns: gains.new.elements.map { width / $0 })
  }

  /// The model that computes the same in another stream, with norms of its own.
  private func turned(
    _ old: [String: Matrix<Double>], by r: Matrix<Double>, scale: Double = 1
  ) -> [String: Matrix<Double>] {
    var new: [String: Matrix<Double>] = [:]
    for (place, name) in old.keys.sorted().enumerated() where isNorm(name) {
      new[name] = random(1, r.columns, seed: 90 + place, around: 1.2)
    }
    for (name, matrix) in old where !isNorm(name) {
      if name == "model.embed_tokens" {
        new[name] = product(matrix, r).scaled(by: scale)
      } else {
        let gains =
          reads(name)
          ? (old[norm(of: name)], new[norm(of: name)]) : (nil, nil)
        let both = gains.0.flatMap { old in gains.1.map { (old, $0) } }
        new[name] = turned(name, matrix, by: r, scale: scale, both)
      }
    }
    return new
  }

  private func write(
    _ name: String, _ tensors: [String: Matrix<Double>], heads: Int = 2, type: String = "llama"
  ) throws -> BaseModel {
    try scratch.write(
      "\(name)/model.safetensors",
      tensors.sorted { $0.key < $1.key }.map { name, matrix in
        Values(
          "\(name).weight", isNorm(name) ? [matrix.columns] : [matrix.rows, matrix.columns],
          matrix.elements.map { Float($0) })
      })
    try scratch.write(
      "\(name)/config.json",
      """
      {"model_type": "\(type)", "num_attention_heads": \(heads), "head_dim": \(8 / heads),
       "tie_word_embeddings": true}
      """)
    return try BaseModel(Checkpoint(opening: scratch.path(name)))
  }

  /// A LoRA of rank 2 on all modules, of scaling 3.
  private func writeAdapter(_ modules: [String]? = nil) throws -> String {
    let names =
      modules
      ?? (0..<Self.layers).flatMap { layer in Self.modules.map { path(layer, $0) } }
    return try scratch.writeAdapter(
      fields: #""r": 2, "lora_alpha": 6"#,
      names.flatMap { name in
        let place = Self.modules.firstIndex { name.hasSuffix($0) } ?? 0
        let shape = name == "lm_head" ? [Self.vocabulary, Self.width] : Self.shapes[place]
        return [
          Values("base_model.model.\(name).lora_A.weight", [2, shape[1]]),
          Values("base_model.model.\(name).lora_B.weight", [shape[0], 2]),
        ]
      })
  }

  private func transfer(
    _ adapter: String, from source: BaseModel, to target: BaseModel,
    _ change: (inout Transfer.Options) -> Void = { _ in }
  ) throws -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    var options = Transfer.Options()
    options.method = .procrustes
    change(&options)
    return try Transfer(Operand(opening: adapter), from: source, to: target, options)
      .run(as: .f32, threads: 2) { _ in }
  }

  private func refusal(
    _ adapter: String, from source: BaseModel, to target: BaseModel,
    _ change: (inout Transfer.Options) -> Void = { _ in }
  ) -> String {
    do {
      _ = try transfer(adapter, from: source, to: target, change)
      return "moved"
    } catch {
      return "\(error)"
    }
  }

  /// A matrix of orthonormal rows.
  private func map(to width: Int) -> Matrix<Double> {
    QR(random(width, Self.width, seed: 7)).q.transposed()
  }

  /// The right answer is known: the new model computes what the old one does, and so does the change.
  @Test(arguments: [(width, 1), (20, 1), (width, 3), (20, 0.25)] as [(Int, Double)])
  func aTurnedScaledOrWiderStreamIsFound(width: Int, scale: Double) throws {
    try expectFound(by: map(to: width), scale: scale)
  }

  /// [E E] is √2·E·[I I]/√2.
  @Test func aStreamThatIsThereTwiceIsFound() throws {
    var r = Matrix<Double>(rows: Self.width, columns: 2 * Self.width)
    for row in 0..<Self.width {
      for column in [row, row + Self.width] {
        r.elements[row * r.columns + column] = 0.5.squareRoot()
      }
    }
    try expectFound(by: r, scale: 2.0.squareRoot())
  }

  private func expectFound(by r: Matrix<Double>, scale: Double) throws {
    let tensors = old()
    let base = try write("base", tensors)
    let new = turned(tensors, by: r, scale: scale)
    let target = try write("target", new)
    let adapter = try writeAdapter()
    let before = try updates(Operand(opening: adapter).adapter)
    let moved = try transfer(adapter, from: base, to: target)
    let after = try updates(moved.adapter)
    #expect(after.count == before.count && after.count == 15)
    for (name, update) in after {
      let own = try #require(before[name])
      let gains =
        reads(name)
        ? (try #require(tensors[norm(of: name)]), try #require(new[norm(of: name)])) : nil
      let right = turned(name, own, by: r, scale: scale, gains)
      #expect(relativeDistance(update, right) < 1e-5, "\(name)")
    }
    for result in moved.results {
      let overlap = try #require(result.overlap)
      #expect(overlap.outputs > 1 - 1e-4 && overlap.inputs > 1 - 1e-4, "\(result.path)")
      #expect(try #require(result.keptEnergy) > 1 - 1e-6)
    }
    #expect(moved.adapter.modules.allSatisfy { $0.scaling == 3 })
    #expect(
      moved.adapter.notes == [
        "the stream of 12 became one of \(r.columns) by 60 shared tokens, whose embeddings agree to "
          + "a cosine of 1.0, and are \((scale * 1000).rounded() / 1000) times as long"
      ])
  }

  /// A narrower stream takes what lies in it.
  @Test func aNarrowerStreamKeepsLess() throws {
    let r = map(to: 20)
    let tensors = turned(old(), by: r)
    let (wide, narrow) = (try write("wide", tensors), try write("narrow", old()))
    let moved = try transfer(writeAdapter(), from: narrow, to: wide)
    try AdapterWriting(PEFTAdapter.files(for: moved.adapter)).run(
      to: scratch.path("there"), inputs: [], isForced: false, threads: 1, progress: { _ in })
    // What lies in it altogether comes back as it was.
    let back = try transfer(scratch.path("there"), from: wide, to: narrow)
    let before = try updates(Operand(opening: writeAdapter()).adapter)
    for (name, update) in try updates(back.adapter) {
      #expect(relativeDistance(update, try #require(before[name])) < 1e-5)
    }
  }

  @Test(arguments: [
    (3, 3, [0, 1, 2]), (2, 3, [0, 1, 1]), (3, 2, [0, 2]), (3, 5, [0, 1, 1, 2, 2]), (4, 1, [0]),
    (1, 3, [0, 0, 0]), (30, 32, [0, 1, 2, 3]),
  ])
  func layersStandForEachOther(source: Int, target: Int, expected: [Int]) {
    let map = LayerMap(from: source, to: target)
    #expect(map.sources.count == target && map.sources.starts(with: expected))
    #expect(map.sources.last == (target == 1 ? 0 : source - 1))
    for (layer, own) in map.sources.enumerated() where target > 1 {
      let exact = Double(layer) * Double(source - 1) / Double(target - 1)
      #expect(Double(own) == (exact + 0.5).rounded(.down))
    }
    let path = LayerPositions.path("model.layers.7.mlp.up_proj", inLayer: 12)
    #expect(path == "model.layers.12.mlp.up_proj")
    #expect(LayerPositions.path("lm_head", inLayer: 1) == "lm_head")
  }

  @Test(arguments: [(2, [0, 2], "; left out are 1"), (5, [0, 1, 1, 2, 2], "")])
  func otherDepthsTakeTheLayerThatStandsForTheirs(
    count: Int, sources: [Int], rest: String
  ) throws {
    let tensors = old()
    var new = tensors.filter { !$0.key.contains("layers") }
    for (layer, own) in sources.enumerated() {
      for name in Self.modules + Self.norms { new[path(layer, name)] = tensors[path(own, name)] }
    }
    let (base, target) = (try write("base", tensors), try write("target", new))
    let adapter = try writeAdapter()
    let before = try updates(Operand(opening: adapter).adapter)
    let plan = try Transfer(
      Operand(opening: adapter), from: base, to: target,
      {
        var options = Transfer.Options()
        options.method = .procrustes
        return options
      }())
    let list = sources.map(String.init).joined(separator: ", ")
    #expect(
      plan.notes == [
        "\(count) layers for 3: those of the old model that stand for them are \(list)\(rest)"
      ])
    let moved = try plan.run(as: .f32, threads: 2) { _ in }
    let after = try updates(moved.adapter)
    #expect(after.count == 5 * count && moved.results.count == 5 * count)
    for (layer, own) in sources.enumerated() {
      for module in Self.modules {
        let (found, right) = (after[path(layer, module)], before[path(own, module)])
        #expect(try relativeDistance(#require(found), #require(right)) < 1e-5)
      }
    }
  }

  @Test func tokensAreThoseThatAreNamed() throws {
    let tensors = old()
    var new = tensors
    let table = try #require(tensors["model.embed_tokens"])
    // The new model has the tokens in reverse, and five of its own before them.
    new["model.embed_tokens"] = Matrix(
      stacking: [random(5, Self.width, seed: 60)]
        + (0..<Self.vocabulary).reversed().map { table.rows($0..<$0 + 1) })
    let (base, target) = (try write("base", tensors), try write("target", new))
    let adapter = try writeAdapter()
    let refused = refusal(adapter, from: base, to: target)
    #expect(
      refused.hasSuffix(
        "has a vocabulary of 65, the old model one of 60: which tokens are the same a "
          + "tokenizer.json beside each would tell"), "\(refused)")
    // The last is beyond the embedding: a tokenizer may have more tokens than its model.
    let tokens = (0...Self.vocabulary).map {
      Transfer.SharedToken(source: $0, target: 5 + Self.vocabulary - 1 - $0)
    }
    let moved = try transfer(adapter, from: base, to: target) { $0.sharedTokens = tokens }
    let before = try updates(Operand(opening: adapter).adapter)
    for (name, update) in try updates(moved.adapter) {
      #expect(relativeDistance(update, try #require(before[name])) < 1e-5)
    }
    let few = refusal(adapter, from: base, to: target) {
      $0.sharedTokens = Array(tokens.prefix(9))
    }
    #expect(
      few.hasSuffix(
        "the embeddings of the 9 tokens that both models have span 9 of 12 directions, and all are "
          + "needed to turn one stream into the other"), "\(few)")
  }

  @Test func strangersAreRefused() throws {
    let tensors = old()
    var (embedding, layer) = (tensors, tensors)
    embedding["model.embed_tokens"] = random(Self.vocabulary, Self.width, seed: 61)
    layer[path(1, "mlp.up_proj")] = random(Self.inner, Self.width, seed: 62)
    let base = try write("base", tensors)
    let adapter = try writeAdapter()
    let byTokens = refusal(adapter, from: base, to: try write("e", embedding)) {
      $0.threshold = 0.9
    }
    #expect(
      byTokens.contains(": the embeddings of 60 shared tokens agree to a cosine of 0.")
        && byTokens.contains(", below the threshold 0.9: "), "\(byTokens)")
    let byLayer = refusal(adapter, from: base, to: try write("l", layer)) { $0.threshold = 0.9 }
    #expect(
      byLayer.contains(
        "1 of 15 layers are below the threshold 0.9; model.layers.1.mlp.up_proj has overlap of "),
      "\(byLayer)")
  }

  @Test func whatHasNoMapIsRefusedByName() throws {
    let tensors = old()
    let base = try write("base", tensors)
    let adapter = try writeAdapter()
    func refusal(
      _ name: String, heads: Int = 2, type: String = "llama",
      _ change: (inout [String: Matrix<Double>]) -> Void = { _ in }
    ) throws -> String {
      var changed = tensors
      change(&changed)
      return self.refusal(
        adapter, from: base, to: try write(name, changed, heads: heads, type: type))
    }
    let inner = try refusal("inner") {
      for layer in 0..<Self.layers {
        $0[path(layer, "mlp.up_proj")] = random(16, Self.width, seed: 1)
        $0[path(layer, "mlp.down_proj")] = random(Self.width, 16, seed: 2)
      }
    }
    #expect(
      inner.hasSuffix(
        "tensor 'model.layers.0.mlp.up_proj.weight': has shape [16, 12], expected [14, 12]: of "
          + "widths only that of the hidden stream may differ"), "\(inner)")
    let heads = try refusal("heads", heads: 4)
    #expect(
      heads.hasSuffix(
        "num_attention_heads is 4, of the old model 2: heads are carried as they are alone"),
      "\(heads)")
    let family = try refusal("family", type: "gemma")
    #expect(
      family.hasSuffix(
        "model_type is gemma, and it is known of llama, mistral, qwen2, qwen3 where layers meet the "
          + "hidden stream"), "\(family)")
    let missing = try refusal("missing") { $0[path(2, "input_layernorm")] = nil }
    #expect(
      missing.hasSuffix(
        "has no model.layers.2.input_layernorm.weight, through which its layers read the stream"),
      "\(missing)")
    let zero = try refusal("zero") {
      $0[path(2, "input_layernorm")]?.elements[4] = 0
    }
    #expect(zero.contains("layers.2.input_layernorm.weight': is 0 at 4: "), "\(zero)")
    let short = try refusal("short") { $0[path(2, "mlp.up_proj")] = nil }
    #expect(
      short.contains("short: has no module model.layers.2.mlp.up_proj; nearest: ")
        && !short.contains("widths"), "\(short)")
    let beyond = self.refusal(try writeAdapter([path(7, "mlp.up_proj")]), from: base, to: base)
    #expect(
      beyond.contains("base: has no module model.layers.7.mlp.up_proj; nearest: "), "\(beyond)")
    let tied = self.refusal(try writeAdapter(["lm_head"]), from: base, to: base)
    #expect(
      tied.hasSuffix("has no lm_head of its own: it is tied to the input embedding"), "\(tied)")
    let other = self.refusal(
      try writeAdapter(["model.layers.0.mlp.router"]), from: base, to: base)
    #expect(
      other.hasSuffix(
        "model.layers.0.mlp.router is no layer of which it is known where it meets the hidden stream"
      ), "\(other)")
  }

  /// An embedding of another width than its layers.
  @Test(arguments: [
    ("self_attn.q_proj", "has 12 inputs"), ("mlp.down_proj", "has 12 outputs"),
  ])
  func aModelThatDoesNotFitItselfIsRefused(module: String, found: String) throws {
    var tensors = old()
    let target = try write("target", tensors)
    tensors["model.embed_tokens"] = random(Self.vocabulary, 64, seed: 1)
    let refused = refusal(
      try writeAdapter([path(1, module)]), from: try write("base", tensors), to: target)
    #expect(
      refused.hasSuffix(
        "tensor '\(path(1, module)).weight': \(found), and the embedding's rows have 64"),
      "\(refused)")
  }

  /// Its outputs are tokens by their numbers.
  @Test func aHeadIsMovedBetweenTheSameTokensOnly() throws {
    var tensors = old()
    tensors["lm_head"] = random(Self.vocabulary, Self.width, seed: 70)
    let base = try write("base", tensors)
    let adapter = try writeAdapter(["lm_head"])
    let before = try updates(Operand(opening: adapter).adapter)
    for (name, update) in try updates(transfer(adapter, from: base, to: base).adapter) {
      #expect(try relativeDistance(update, #require(before[name])) < 1e-5)
    }
    let tokens = (0..<Self.vocabulary).map {
      Transfer.SharedToken(source: $0, target: $0 < 40 ? $0 : 99 - $0)
    }
    let refused = refusal(adapter, from: base, to: base) { $0.sharedTokens = tokens }
    #expect(
      refused.hasSuffix(
        "lm_head has an output for each token by its number, and token 40 is 59 in the new model"),
      "\(refused)")
  }
}
