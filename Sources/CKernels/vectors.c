#include "CKernels.h"
#include "dispatch.h"
#include "half.h"
#include "training.h"

#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
      pef_widen_tile_f32(dtype, (const char *)weights + (i * row + j) * size, width, 1, width,
                         part);
      for (size_t k = 0; k < width; k++) sums[k] = __builtin_fmaf(part[k], x[j + k], sums[k]);
    }
    y[i] = total(&sums);
  }
}

// A row of codes of 4 bits: 16 at a time, which lie in one block.
static inline float codes4_row(const float *levels, const uint8_t *packed, const float *absmax,
                               size_t block_size, size_t first, const float *x, size_t columns) {
  floats sums = 0;
  for (size_t j = 0; j < columns; j += SUMS) {
    const float factor = absmax[(first + j) / block_size];
    const uint8_t *bytes = packed + (first + j) / 2;
    for (size_t k = 0; k < SUMS; k++)
      sums[k] = __builtin_fmaf(levels[bytes[k / 2] >> (k % 2 ? 0 : 4) & 15] * factor, x[j + k],
                               sums[k]);
  }
  return total(&sums);
}

#if defined(__x86_64__)
// A permutation looks up sixteen levels at once; of an index it reads the lowest four bits.
PEF_V4 static void codes4_v4(const float *levels, const uint8_t *packed, const float *absmax,
                             size_t block_size, size_t first, const float *x, size_t rows,
                             size_t columns, float *y) {
  const __m512 table = _mm512_loadu_ps(levels);
  const unsigned shift = (unsigned)__builtin_ctzll(block_size);
  for (size_t i = 0; i < rows; i++, first += columns) {
    __m512 sums = _mm512_setzero_ps();
    for (size_t j = 0; j < columns; j += SUMS) {
      const __m512i bytes =
          _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(packed + (first + j) / 2)));
      const __m512i indices =
          _mm512_or_si512(_mm512_srli_epi64(bytes, 4), _mm512_slli_epi64(bytes, 32));
      const __m512 values = _mm512_mul_ps(_mm512_permutexvar_ps(indices, table),
                                          _mm512_set1_ps(absmax[(first + j) >> shift]));
      sums = _mm512_fmadd_ps(values, _mm512_loadu_ps(x + j), sums);
    }
    floats partial;
    _mm512_storeu_ps(&partial, sums);
    y[i] = total(&partial);
  }
}

PEF_V3 static inline __m256 look_up(__m128i bytes, __m256 low, __m256 high) {
  const __m256i wide = _mm256_cvtepu8_epi64(bytes);
  const __m256i indices = _mm256_or_si256(_mm256_srli_epi64(wide, 4), _mm256_slli_epi64(wide, 32));
  // The fourth bit, in the sign, chooses the half of the table.
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, indices),
                          _mm256_permutevar8x32_ps(high, indices),
                          _mm256_castsi256_ps(_mm256_slli_epi32(indices, 28)));
}

PEF_V3 static void codes4_v3(const float *levels, const uint8_t *packed, const float *absmax,
                             size_t block_size, size_t first, const float *x, size_t rows,
                             size_t columns, float *y) {
  const __m256 low = _mm256_loadu_ps(levels), high = _mm256_loadu_ps(levels + 8);
  const unsigned shift = (unsigned)__builtin_ctzll(block_size);
  for (size_t i = 0; i < rows; i++, first += columns) {
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t j = 0; j < columns; j += SUMS) {
      const __m256 factor = _mm256_set1_ps(absmax[(first + j) >> shift]);
      const __m128i bytes = _mm_loadl_epi64((const __m128i *)(packed + (first + j) / 2));
      const __m256 left = _mm256_mul_ps(look_up(bytes, low, high), factor);
      const __m256 right = _mm256_mul_ps(look_up(_mm_srli_epi64(bytes, 32), low, high), factor);
      sums[0] = _mm256_fmadd_ps(left, _mm256_loadu_ps(x + j), sums[0]);
      sums[1] = _mm256_fmadd_ps(right, _mm256_loadu_ps(x + j + 8), sums[1]);
    }
    floats partial;
    memcpy(&partial, sums, sizeof partial);
    y[i] = total(&partial);
  }
}
#endif

void pef_codes4_times_vector_f32(enum pef_code4 code, const uint8_t *packed, const float *absmax,
                                 size_t block_size, size_t first, const float *x, size_t rows,
                                 size_t columns, float *y) {
  float levels[16];
  pef_levels4(code, levels);
#if defined(__x86_64__)
  const int is_power = (block_size & (block_size - 1)) == 0;
  if (is_power && __builtin_cpu_supports("x86-64-v4")) {
    codes4_v4(levels, packed, absmax, block_size, first, x, rows, columns, y);
    return;
  }
  if (is_power && __builtin_cpu_supports("x86-64-v3")) {
    codes4_v3(levels, packed, absmax, block_size, first, x, rows, columns, y);
    return;
  }
#endif
  for (size_t i = 0; i < rows; i++)
    y[i] = codes4_row(levels, packed, absmax, block_size, first + i * columns, x, columns);
}
