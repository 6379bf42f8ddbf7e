import Files
import JSON
import Tensors

/// A name that may stand in a pickle of tensors.
///
/// None of them is ever looked up or called: the interpreter does what little each would do to the
/// tensors' descriptions.
enum TorchGlobal: Equatable, Sendable {
  case orderedDict
  case size
  case device
  case rebuildTensor
  case rebuildTensorV2
  case rebuildTensorV3
  case rebuildParameter
  case rebuildParameterWithState
  case rebuildFromType
  /// `torch.Tensor` or `Parameter`, named where a tensor has attributes.
  case tensorClass
  /// The type of a storage; nil for one of bytes.
  case storage(DType?)
  /// A dtype; nil for one that safetensors does not have.
  case dtype(DType?)

  /// Looks a name up, module and name each as a whole.
  init?(module: String, name: String) {
    guard let global = Self.table[Key(module, name)] else { return nil }
    self = global
  }

  /// Why a name is refused, in words that follow the name of the file.
  static func refusal(module: String, name: String) -> String {
    let full = "\(module.printable).\(name.printable)"
    if let what = unsupported[Key(module, name)] { return "holds \(what) (\(full)), not read" }
    return "would call \(full): of a pickle only tensors are read, and nothing in it is run"
  }

  private struct Key: Hashable {
    let module: ExactName
    let name: ExactName

    init(_ module: String, _ name: String) {
      self.module = ExactName(module)
      self.name = ExactName(name)
    }
  }

  /// The storage types of torch, each with the dtype of its elements.
  private static let storages: [(name: String, dtype: DType)] = [
    ("DoubleStorage", .f64), ("FloatStorage", .f32), ("HalfStorage", .f16),
    ("BFloat16Storage", .bf16), ("LongStorage", .i64), ("IntStorage", .i32),
    ("ShortStorage", .i16), ("CharStorage", .i8), ("ByteStorage", .u8), ("BoolStorage", .bool),
    ("ComplexFloatStorage", .c64),
  ]

  /// The dtypes of torch by the names that `str` gives them.
  private static let dtypes: [(name: String, dtype: DType?)] = [
    ("float64", .f64), ("float32", .f32), ("float16", .f16), ("bfloat16", .bf16),
    ("int64", .i64), ("int32", .i32), ("int16", .i16), ("int8", .i8), ("uint8", .u8),
    ("uint16", .u16), ("uint32", .u32), ("uint64", .u64), ("bool", .bool), ("complex64", .c64),
    ("float8_e4m3fn", .f8E4M3), ("float8_e5m2", .f8E5M2), ("float8_e4m3fnuz", .f8E4M3FNUZ),
    ("float8_e5m2fnuz", .f8E5M2FNUZ), ("float8_e8m0fnu", .f8E8M0), ("complex128", nil),
    ("complex32", nil), ("float4_e2m1fn_x2", nil), ("qint8", nil), ("quint8", nil),
    ("qint32", nil), ("quint4x2", nil), ("quint2x4", nil),
  ]

  private static let table: [Key: TorchGlobal] = {
    var table: [Key: TorchGlobal] = [
      Key("collections", "OrderedDict"): .orderedDict,
      Key("torch", "Size"): .size,
      Key("torch", "device"): .device,
      Key("torch", "Tensor"): .tensorClass,
      Key("torch.nn.parameter", "Parameter"): .tensorClass,
      Key("torch._utils", "_rebuild_tensor"): .rebuildTensor,
      Key("torch._utils", "_rebuild_tensor_v2"): .rebuildTensorV2,
      Key("torch._utils", "_rebuild_tensor_v3"): .rebuildTensorV3,
      Key("torch._utils", "_rebuild_parameter"): .rebuildParameter,
      Key("torch._utils", "_rebuild_parameter_with_state"): .rebuildParameterWithState,
      Key("torch._tensor", "_rebuild_from_type_v2"): .rebuildFromType,
      Key("torch", "UntypedStorage"): .storage(nil),
      Key("torch.storage", "UntypedStorage"): .storage(nil),
    ]
    for (name, dtype) in storages {
      table[Key("torch", name)] = .storage(dtype)
      // Tensors that were saved from a GPU by old versions.
      table[Key("torch.cuda", name)] = .storage(dtype)
    }
    for (name, dtype) in dtypes { table[Key("torch", name)] = .dtype(dtype) }
    return table
  }()

  /// Harmless names of what peftool has no use for.
  private static let unsupported: [Key: String] = [
    Key("torch._utils", "_rebuild_sparse_tensor"): "a sparse tensor",
    Key("torch._utils", "_rebuild_qtensor"): "a quantized tensor of torch's own",
    Key("torch._utils", "_rebuild_nested_tensor"): "a nested tensor",
    Key("torch._utils", "_rebuild_meta_tensor_no_storage"): "a meta tensor, which has no values",
    Key("torch._utils", "_rebuild_wrapper_subclass"): "a tensor of a class of its own",
    Key("torch", "ComplexDoubleStorage"): "complex128 numbers",
    Key("torch", "QInt8Storage"): "quantized numbers of torch's own",
    Key("torch", "QUInt8Storage"): "quantized numbers of torch's own",
    Key("torch", "QInt32Storage"): "quantized numbers of torch's own",
    Key("torch", "QUInt4x2Storage"): "quantized numbers of torch's own",
    Key("torch", "QUInt2x4Storage"): "quantized numbers of torch's own",
  ]
}

extension TorchGlobal: CustomStringConvertible {
  /// What it is, in a message.
  var description: String {
    switch self {
    case .orderedDict: "OrderedDict"
    case .size: "torch.Size"
    case .device: "torch.device"
    case .rebuildTensor: "_rebuild_tensor"
    case .rebuildTensorV2: "_rebuild_tensor_v2"
    case .rebuildTensorV3: "_rebuild_tensor_v3"
    case .rebuildParameter: "_rebuild_parameter"
    case .rebuildParameterWithState: "_rebuild_parameter_with_state"
    case .rebuildFromType: "_rebuild_from_type_v2"
    case .tensorClass: "a class of tensors"
    case .storage: "a type of storages"
    case .dtype: "a dtype"
    }
  }
}
