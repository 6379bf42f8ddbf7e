import Synchronization

/// A tokenizer's cache of words, lent to one encoding at a time; others go with one of their own.
final class WordCaches: Sendable {
  private let idle = Mutex<WordCache?>(nil)

  /// The cache, or a new one while it is lent.
  func take() -> WordCache {
    idle.withLock { cache in
      defer { cache = nil }
      return cache ?? WordCache()
    }
  }

  /// Takes a cache back.
  func put(back cache: WordCache) {
    idle.withLock { $0 = cache }
  }
}
