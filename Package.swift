// swift-tools-version: 6.3
import PackageDescription

let swiftSettings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableExperimentalFeature("Lifetimes"),
]

/// A Swift module under `Sources/`.
func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(
    name: name, dependencies: dependencies,
    swiftSettings: swiftSettings + [.strictMemorySafety()])
}

/// A suite under `Tests/`, named after the module that it tests.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

let argumentParser: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
  name: "peftool",
  products: [.executable(name: "peftool", targets: ["peftool"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    .systemLibrary(name: "CJSON", pkgConfig: "json-c", providers: [.apt(["libjson-c-dev"])]),
    .systemLibrary(
      name: "COniguruma", pkgConfig: "oniguruma", providers: [.apt(["libonig-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CYAML", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
    // Debian's libutf8proc-dev; SwiftPM would warn of the flag that its pkg-config file has.
    .systemLibrary(name: "CUTF8Proc"),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .target(
      name: "CKernels",
      // -O3 in debug builds too, so that debug tests stay quick; no contraction, because every
      // dispatch variant must round alike: the kernels write fma where they mean it.
      cSettings: [
        .unsafeFlags([
          "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror",
        ])
      ]),
    .target(name: "CLinux"),
    .target(name: "COpenBLAS"),
    module("Files", ["CLinux"]),
    module("JSON", ["CJSON", "Files"]),
    module("YAML", ["CYAML", "Files"]),
    module("Patterns", ["COniguruma", "Files"]),
    module("Tensors", ["CKernels", "Files"]),
    module("LinearAlgebra", ["CLinux", "COpenBLAS", "Files"]),
    module("Quantization", ["CKernels", "Files", "Tensors"]),
    module(
      "Checkpoints",
      ["CZstd", "CXXHash", "Files", "JSON", "Tensors", "LinearAlgebra", "Quantization"]),
    module(
      "Adapters",
      [
        "Files", "JSON", "YAML", "Patterns", "Tensors", "LinearAlgebra", "Quantization",
        "Checkpoints", "CKernels",
      ]),
    module("Tokenizers", ["CUTF8Proc", "Files", "JSON", "Patterns"]),
    module(
      "Examples", ["Files", "JSON", "Tensors", "LinearAlgebra", "Checkpoints", "Tokenizers"]),
    module(
      "Models",
      [
        "Files", "JSON", "Tensors", "LinearAlgebra", "Quantization", "Checkpoints", "Adapters",
        "CKernels",
      ]),
    module(
      "Training",
      [
        "Files", "JSON", "Patterns", "Tensors", "LinearAlgebra", "Quantization", "Checkpoints",
        "Adapters", "Examples", "Models", "CKernels",
      ]),
    module("Reports"),
    module(
      "Commands",
      [
        "Files", "JSON", "YAML", "Patterns", "Tensors", "LinearAlgebra", "Quantization",
        "Checkpoints", "Adapters", "Tokenizers", "Examples", "Models", "Training", "Reports",
        argumentParser,
      ]),
    .executableTarget(
      name: "peftool", dependencies: ["Commands", argumentParser],
      swiftSettings: swiftSettings + [.strictMemorySafety()]),
    .executableTarget(
      name: "peftool-bench", dependencies: ["Files", "Tensors"],
      swiftSettings: swiftSettings + [.strictMemorySafety()]),
    .target(name: "Fixtures", path: "Tests/Fixtures", swiftSettings: swiftSettings),
    tests("FilesTests", ["Files", "Fixtures"]),
    tests("JSONTests", ["Files", "JSON", "Fixtures"]),
    tests("YAMLTests", ["Files", "YAML"]),
    tests("PatternsTests", ["Files", "Patterns"]),
    tests("TensorsTests", ["Files", "Tensors", "Fixtures"]),
    tests(
      "QuantizationTests", ["Files", "Tensors", "Quantization", "Checkpoints", "Fixtures"]),
    tests(
      "CheckpointsTests",
      ["Files", "JSON", "Tensors", "Quantization", "Checkpoints", "Fixtures"]),
    tests("LinearAlgebraTests", ["Files", "LinearAlgebra", "Fixtures"]),
    tests(
      "AdaptersTests",
      [
        "Adapters", "Checkpoints", "Files", "Fixtures", "JSON", "LinearAlgebra", "Patterns",
        "Tensors",
      ]),
    tests("TokenizersTests", ["Files", "Fixtures", "JSON", "Patterns", "Tokenizers"]),
    tests(
      "ExamplesTests", ["Checkpoints", "Examples", "Files", "Fixtures", "JSON", "Tokenizers"]),
    tests(
      "ModelsTests",
      [
        "Models", "Adapters", "Checkpoints", "CKernels", "Files", "Fixtures", "JSON",
        "LinearAlgebra", "Quantization", "Tensors",
      ]),
    tests(
      "TrainingTests",
      [
        "Training", "Models", "Adapters", "Checkpoints", "Examples", "Files", "Fixtures", "JSON",
        "LinearAlgebra", "Quantization", "Tensors", "CKernels", "YAML",
      ]),
    tests("ReportsTests", ["Reports"]),
    tests(
      "CommandsTests",
      [
        "Commands", "Adapters", "Checkpoints", "Files", "Fixtures", "JSON", "Models", "Patterns",
        "Reports", "Tensors",
      ]),
    tests("EndToEndTests", []),
    tests("HouseTests", []),
  ]
)
