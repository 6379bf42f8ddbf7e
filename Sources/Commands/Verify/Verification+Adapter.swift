import Adapters
import Checkpoints
import Files
import JSON
import Reports

// An adapter, and whether it fits its base.
extension Verification {
  mutating func checkAdapter(
    _ source: SoundFiles, configPath: String, base: String?
  ) throws(PeftoolError) {
    let json: JSON
    do throws(PeftoolError) {
      let packed = try source.packed?.json(Checkpoint.adapterConfigName)
      json = if let packed { packed } else { try JSON(opening: configPath) }
    } catch {
      faults.append(error.at(path: configPath))
      return
    }
    guard !AdapterFormat.mlx.isConfiguration(json) else {
      checked.append(Adapter.configurationName)
      return try checkForeignAdapter(base: base)
    }
    let configuration: AdapterConfiguration
    do throws(PeftoolError) {
      configuration = try AdapterConfiguration(json)
      checked.append(Adapter.configurationName)
      guard faults.isEmpty else { return }
      let audit = AdapterAudit(configuration, json, source.tensors)
      faults += audit.faults.map { $0.at(path: source.path) }
      notes += audit.notes
    } catch {
      let error = error.at(path: configPath)
      if error.kind == .unsupported, base == nil {
        notes.append("tensors not compared with the configuration: \(error.reason)")
      } else {
        faults.append(error)
      }
      return
    }
    if let base { try checkFit(configuration, base: base) }
  }

  /// Whether a file without a configuration is an adapter, as its names tell.
  func isKohya(_ file: CheckpointFile) throws(PeftoolError) -> Bool {
    guard case .file = file.kind, faults.isEmpty else { return false }
    return try AdapterFormat(of: Checkpoint(opening: path)) == .kohya
  }

  /// Whether `convert` takes an adapter of mlx-lm or kohya, with a base also whether that has its
  /// modules.
  mutating func checkForeignAdapter(base: String?) throws(PeftoolError) {
    // Headers that cannot be read hide what the pairs lack.
    guard faults.isEmpty else { return }
    let model = try BaseModel(at: base)
    do throws(PeftoolError) {
      let read = try AdapterFormat.read(path, AdapterFormat.Hints(base: model, prefix: nil))
      let modules = read.adapter.modules.count.text(of: "module")
      checked.append(modules + (base.map { " of \($0.printable)" } ?? ""))
    } catch {
      // What the base would tell, or another format lacks, is no fault of the file.
      if error.kind == .unsupported {
        notes.append("modules not checked: \(error.reason)")
      } else {
        faults.append(error)
      }
    }
  }

  /// Whether every module of the adapter is found in the base and fits it.
  mutating func checkFit(
    _ configuration: AdapterConfiguration, base path: String
  ) throws(PeftoolError) {
    let checkpoint = try Checkpoint(opening: path)
    let adapter: Adapter
    do throws(PeftoolError) {
      adapter = try Adapter(opening: self.path)
    } catch {
      // The first of the names or dtypes that are told of above, in other words.
      let isKnown = faults.contains { $0.tensor != nil && $0.tensor == error.tensor }
      if !isKnown { faults.append(error) }
      notes.append("not compared with \(path.printable): the adapter's own faults come first")
      return
    }
    do throws(PeftoolError) {
      let base = try BaseModel(checkpoint.adaptable, replication: configuration.layerReplication)
      // A module that lacks a part has been told of without the base.
      let known = Set(faults.compactMap(\.tensor).compactMap(AdapterKey.init).map(\.module))
      let result = ChangeResolver(adapter, base: base).resolve()
      for fault in result.faults {
        if let key = fault.tensor.flatMap(AdapterKey.init), known.contains(key.module) { continue }
        faults.append(fault)
      }
      checked.append("\(adapter.modules.count.text(of: "module")) of \(path.printable)")
    } catch {
      guard error.kind == .different else { throw error }
      faults.append(error)
    }
  }
}
