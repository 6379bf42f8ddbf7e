import Checkpoints
import Files
import JSON
import Tensors

/// An adapter of sparse changes, as PEFT's SHiRA writes it.
///
/// `Formats/shira-adapter.md` has its keys.
struct SparseAdapter: Sendable {
  /// PEFT's r: each module has r·(in + out) entries.
  let rank: Int
  let updates: [SparseUpdate]
  /// What is saved whole; no biases alone, for which SHiRA has no place.
  let saved: [LowRankAdapter.Saved]
  let baseName: String?
  let task: String?

  /// The files that PEFT loads; tensors are those that were computed of `sources`.
  func files(from sources: [any TensorSource]) -> AdapterFiles {
    var tensors = ComputedTensors(of: sources)
    let places = updates.map { update in
      (
        values: tensors.append(
          "\(update.path).values", shape: [update.values.count], update.values),
        indices: tensors.append(
          "\(update.path).indices", shape: [2, update.values.count], update.places)
      )
    }
    var items: [AdapterFiles.Item] = []
    for (update, place) in zip(updates, places) {
      let path = AdapterKey.prefix + update.path
      items.append(.init(path + ".shira_weight", AdapterTensor(place.values, in: tensors)))
      items.append(.init(path + ".shira_indices", AdapterTensor(place.indices, in: tensors)))
    }
    return AdapterFiles(
      folder: items + saved.map(PEFTAdapter.item(for:)), fileName: "adapter_model.safetensors",
      metadata: [("format", "pt")], configuration: configuration, indent: 2)
  }

  private var configuration: JSON {
    let paths: ([String]) -> JSON = { paths in
      .array(paths.sorted { $0.precedesByBytes($1) }.map(JSON.string))
    }
    let whole = Set(saved.map { ExactName($0.path) }).map(\.string)
    return SparseConfiguration.json([
      "base_model_name_or_path": .text(baseName),
      "modules_to_save": whole.isEmpty ? .null : paths(whole), "r": .number(rank),
      "target_modules": paths(updates.map(\.path)), "task_type": .text(task),
    ])
  }
}

extension JSON {
  /// A text, or null for none.
  fileprivate static func text(_ value: String?) -> JSON { value.map { .string($0) } ?? .null }
}
