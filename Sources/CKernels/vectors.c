#include "dispatch.h"
#include "half.h"
#include "training.h"

#include <stddef.h>

// Four rows at a time: each has a chain of additions of its own, and x is read once for them.
enum { ROWS = 4, SUMS = 16 };

typedef float floats __attribute__((ext_vector_type(SUMS), aligned(sizeof(float))));
typedef uint32_t words __attribute__((ext_vector_type(SUMS), aligned(sizeof(float))));
typedef uint16_t halves __attribute__((ext_vector_type(SUMS), aligned(sizeof(uint16_t))));

// By pointers, as what a vector is passed in depends on the processor.
__attribute__((always_inline)) static inline float total(const floats *partial) {
  floats sums = *partial;
  for (size_t half = SUMS / 2; half > 0; half /= 2)
    for (size_t k = 0; k < half; k++) sums[k] += sums[k + half];
  return sums[0];
}

__attribute__((always_inline)) static inline void load_f32(const float *w, floats *values) {
  *values = *(const floats *)w;
}

__attribute__((always_inline)) static inline void load_bf16(const uint16_t *w, floats *values) {
  const words bits = __builtin_convertvector(*(const halves *)w, words) << 16;
  memcpy(values, &bits, sizeof bits);
}

__attribute__((always_inline)) static inline void load_f16(const uint16_t *w, floats *values) {
  // As widen_f16.
  const words x = __builtin_convertvector(*(const halves *)w, words);
  const words magnitude = (x & 0x7fff) << 13;
  floats finite;
  memcpy(&finite, &magnitude, sizeof finite);
  finite *= 0x1p112f;
  words bits;
  memcpy(&bits, &finite, sizeof bits);
  const words isLarge = (words)(magnitude >= 0x0f800000u);
  bits = (isLarge & (magnitude | 0x7f800000u)) | (~isLarge & bits) | (x & 0x8000) << 16;
  memcpy(values, &bits, sizeof bits);
}

__attribute__((always_inline)) static inline float one_f32(float w) { return w; }
__attribute__((always_inline)) static inline float one_bf16(uint16_t w) {
  return float_of((uint32_t)w << 16);
}

// `count` rows at once.
#define GROUP(type, load, one, count)                                                     \
  {                                                                                       \
    floats sums[count] = {0};                                                             \
    size_t j = 0;                                                                         \
    for (; j + SUMS <= columns; j += SUMS) {                                              \
      const floats factor = *(const floats *)(x + j);                                     \
      for (size_t r = 0; r < count; r++) {                                                \
        floats values;                                                                    \
        load(w + (i + r) * row + j, &values);                                             \
        sums[r] = __builtin_elementwise_fma(values, factor, sums[r]);                     \
      }                                                                                   \
    }                                                                                     \
    for (size_t r = 0; r < count; r++) {                                                  \
      for (size_t k = 0; j + k < columns; k++)                                            \
        sums[r][k] = __builtin_fmaf(one(w[(i + r) * row + j + k]), x[j + k], sums[r][k]); \
      y[i + r] = total(&sums[r]);                                                          \
    }                                                                                     \
  }

#define PRODUCTS(type, load, one)                                                         \
  {                                                                                       \
    const type *w = weights;                                                              \
    size_t i = 0;                                                                         \
    for (; i + ROWS <= rows; i += ROWS) GROUP(type, load, one, ROWS)                      \
    for (; i < rows; i++) GROUP(type, load, one, 1)                                       \
    return;                                                                               \
  }

PEF_CLONES void pef_weights_times_vector_f32(enum pef_dtype dtype, const void *weights,
                                             size_t row, const float *restrict x, size_t rows,
                                             size_t columns, float *restrict y) {
  switch (dtype) {
    case PEF_F32: PRODUCTS(float, load_f32, one_f32)
    case PEF_BF16: PRODUCTS(uint16_t, load_bf16, one_bf16)
    case PEF_F16: PRODUCTS(uint16_t, load_f16, widen_f16)
    default: break;
  }
  // The other types are rare: a part of a row is widened first.
  const size_t size = dtype == PEF_F64 ? 8 : 1;
  for (size_t i = 0; i < rows; i++) {
    floats sums = 0;
    for (size_t j = 0; j < columns; j += SUMS) {
      const size_t width = columns - j < SUMS ? columns - j : SUMS;
      float part[SUMS];
      pef_widen_tile_f32(dtype, (const char *)weights + (i * row + j) * size, width, 1, width, part);
      for (size_t k = 0; k < width; k++) sums[k] = __builtin_fmaf(part[k], x[j + k], sums[k]);
    }
    y[i] = total(&sums);
  }
}
