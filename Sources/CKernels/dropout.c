#include "dispatch.h"
#include "training.h"

enum { LANES = 8 };

// Philox4x32-10 of a few counters at once (Salmon, Moraes, Dror, Shaw 2011); see Philox.swift.
static inline __attribute__((always_inline)) void philox(uint32_t counter[4][LANES],
                                                         uint64_t seed) {
  uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    if (round) low += 0x9E3779B9u, high += 0xBB67AE85u;
    for (int i = 0; i < LANES; i++) {
      const uint64_t first = (uint64_t)0xD2511F53u * counter[0][i];
      const uint64_t second = (uint64_t)0xCD9E8D57u * counter[2][i];
      const uint32_t one = counter[1][i], three = counter[3][i];
      counter[0][i] = (uint32_t)(second >> 32) ^ one ^ low;
      counter[1][i] = (uint32_t)second;
      counter[2][i] = (uint32_t)(first >> 32) ^ three ^ high;
      counter[3][i] = (uint32_t)first;
    }
  }
}

PEF_CLONES void pef_dropout_f32(float *mask, size_t first, size_t rows, size_t columns,
                                uint64_t seed, uint64_t stream, uint32_t batch, uint32_t kept,
                                float factor) {
  const size_t blocks = (columns + 7) / 8;
  for (size_t row = 0; row < rows; row++, mask += columns)
    for (size_t block = 0; block < blocks; block += LANES) {
      uint32_t words[4][LANES];
      for (uint32_t i = 0; i < LANES; i++) {
        const uint64_t number = (first + row) * (uint64_t)blocks + block + i;
        words[0][i] = (uint32_t)number;
        words[1][i] = batch;
        words[2][i] = (uint32_t)stream;
        words[3][i] = (uint32_t)(stream >> 32);
      }
      philox(words, seed);
      float factors[LANES][8];
      for (int i = 0; i < LANES; i++)
        for (int half = 0; half < 8; half++)
          factors[i][half] = (words[half / 2][i] >> half % 2 * 16 & 0xFFFF) < kept ? factor : 0;
      const size_t left = columns - block * 8;
      const float *all = factors[0];
      for (size_t i = 0; i < (left < LANES * 8 ? left : LANES * 8); i++)
        mask[block * 8 + i] = all[i];
    }
}
