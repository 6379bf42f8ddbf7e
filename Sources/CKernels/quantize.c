#include "CKernels.h"
#include "dispatch.h"
#include "half.h"

#include <string.h>

// The tables are bits of f32, since computing them anew comes out one place off in many entries:
// get_4bit_type and create_dynamic_map of bitsandbytes/functional.py, as torch gives them on a CPU.

// The value of each 4-bit code.
static const uint32_t levels4[2][16] = {
    [PEF_NF4] = {
    0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
    0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000},
    [PEF_FP4] = {
    0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000,
    0x00000000, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000, 0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000},
};

// The points midway between neighbouring values, in ascending order.
static const uint32_t midpoints4[2][15] = {
    [PEF_NF4] = {
    0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec, 0xbe0d38bc, 0xbd3a7871, 0x3d22faff,
    0x3df64862, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da},
    [PEF_FP4] = {
    0xbf555556, 0xbf155556, 0xbed55556, 0xbe955556, 0xbe555556, 0xbdb00000, 0xbb2aaaab, 0x00000000,
    0x3b2aaaab, 0x3db00000, 0x3e555556, 0x3e955556, 0x3ed55556, 0x3f155556, 0x3f555556},
};

// The code below the first midpoint, and what passing each of them adds to it.
static const int32_t first4[2] = {[PEF_NF4] = 0, [PEF_FP4] = 11};
static const int32_t steps4[2][15] = {
    [PEF_NF4] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    [PEF_FP4] = {-1, 3, -1, 3, -1, -5, -9, 8, -7, 5, 1, -3, 1, -3, 1},
};

// The value of each 8-bit code, in ascending order.
static const uint32_t levels8[256] = {
    0xbf7e3333, 0xbf7a999a, 0xbf770000, 0xbf736666, 0xbf6fcccd, 0xbf6c3333, 0xbf68999a, 0xbf650000,
    0xbf616666, 0xbf5dcccd, 0xbf5a3333, 0xbf56999a, 0xbf530000, 0xbf4f6666, 0xbf4bcccd, 0xbf483333,
    0xbf44999a, 0xbf410000, 0xbf3d6666, 0xbf39cccd, 0xbf363334, 0xbf32999a, 0xbf2f0000, 0xbf2b6666,
    0xbf27cccd, 0xbf243334, 0xbf20999a, 0xbf1d0000, 0xbf196666, 0xbf15cccd, 0xbf123334, 0xbf0e999a,
    0xbf0b0000, 0xbf076666, 0xbf03cccc, 0xbf003333, 0xbef93332, 0xbef20000, 0xbeeacccc, 0xbee3999a,
    0xbedc6666, 0xbed53333, 0xbece0000, 0xbec6cccc, 0xbebf999a, 0xbeb86666, 0xbeb13333, 0xbeaa0000,
    0xbea2cccc, 0xbe9b999a, 0xbe946666, 0xbe8d3334, 0xbe860000, 0xbe7d9999, 0xbe6f3333, 0xbe60cccd,
    0xbe526666, 0xbe440000, 0xbe35999a, 0xbe273333, 0xbe18cccd, 0xbe0a6666, 0xbdf80000, 0xbddb3334,
    0xbdc9eb85, 0xbdc428f7, 0xbdbe6667, 0xbdb8a3d7, 0xbdb2e148, 0xbdad1eb8, 0xbda75c2a, 0xbda1999a,
    0xbd9bd70a, 0xbd96147b, 0xbd9051eb, 0xbd8a8f5d, 0xbd84cccd, 0xbd7e147b, 0xbd728f5d, 0xbd670a3d,
    0xbd5b851f, 0xbd500000, 0xbd447ae1, 0xbd38f5c3, 0xbd2d70a3, 0xbd21eb85, 0xbd166667, 0xbd0ae148,
    0xbcfeb852, 0xbce7ae15, 0xbcd0a3d7, 0xbcb9999a, 0xbca28f5d, 0xbc8b851f, 0xbc68f5c3, 0xbc3ae148,
    0xbc1f3b64, 0xbc160418, 0xbc0ccccd, 0xbc039581, 0xbbf4bc6a, 0xbbe24dd3, 0xbbcfdf3b, 0xbbbd70a4,
    0xbbab020d, 0xbb989374, 0xbb8624dd, 0xbb676c8a, 0xbb428f5c, 0xbb1db22d, 0xbaf1a9fc, 0xbaa7ef9d,
    0xba7765ff, 0xba59e83e, 0xba3c6a80, 0xba1eecc1, 0xba016f01, 0xb9c7e283, 0xb98ce705, 0xb923d70b,
    0xb8ba1f4b, 0xb88aefb3, 0xb8378034, 0xb7b24206, 0xb70205ff, 0xb65a1a94, 0xb513a3b7, 0x00000000,
    0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b,
    0x398ce705, 0x39c7e283, 0x3a016f01, 0x3a1eecc1, 0x3a3c6a80, 0x3a59e83e, 0x3a7765ff, 0x3aa7ef9d,
    0x3af1a9fc, 0x3b1db22d, 0x3b428f5c, 0x3b676c8a, 0x3b8624dd, 0x3b989374, 0x3bab020d, 0x3bbd70a4,
    0x3bcfdf3b, 0x3be24dd3, 0x3bf4bc6a, 0x3c039581, 0x3c0ccccd, 0x3c160418, 0x3c1f3b64, 0x3c3ae148,
    0x3c68f5c3, 0x3c8b851f, 0x3ca28f5d, 0x3cb9999a, 0x3cd0a3d7, 0x3ce7ae15, 0x3cfeb852, 0x3d0ae148,
    0x3d166667, 0x3d21eb85, 0x3d2d70a3, 0x3d38f5c3, 0x3d447ae1, 0x3d500000, 0x3d5b851f, 0x3d670a3d,
    0x3d728f5d, 0x3d7e147b, 0x3d84cccd, 0x3d8a8f5d, 0x3d9051eb, 0x3d96147b, 0x3d9bd70a, 0x3da1999a,
    0x3da75c2a, 0x3dad1eb8, 0x3db2e148, 0x3db8a3d7, 0x3dbe6667, 0x3dc428f7, 0x3dc9eb85, 0x3ddb3334,
    0x3df80000, 0x3e0a6666, 0x3e18cccd, 0x3e273333, 0x3e35999a, 0x3e440000, 0x3e526666, 0x3e60cccd,
    0x3e6f3333, 0x3e7d9999, 0x3e860000, 0x3e8d3334, 0x3e946666, 0x3e9b999a, 0x3ea2cccc, 0x3eaa0000,
    0x3eb13333, 0x3eb86666, 0x3ebf999a, 0x3ec6cccc, 0x3ece0000, 0x3ed53333, 0x3edc6666, 0x3ee3999a,
    0x3eeacccc, 0x3ef20000, 0x3ef93332, 0x3f003333, 0x3f03cccc, 0x3f076666, 0x3f0b0000, 0x3f0e999a,
    0x3f123334, 0x3f15cccd, 0x3f196666, 0x3f1d0000, 0x3f20999a, 0x3f243334, 0x3f27cccd, 0x3f2b6666,
    0x3f2f0000, 0x3f32999a, 0x3f363334, 0x3f39cccd, 0x3f3d6666, 0x3f410000, 0x3f44999a, 0x3f483333,
    0x3f4bcccd, 0x3f4f6666, 0x3f530000, 0x3f56999a, 0x3f5a3333, 0x3f5dcccd, 0x3f616666, 0x3f650000,
    0x3f68999a, 0x3f6c3333, 0x3f6fcccd, 0x3f736666, 0x3f770000, 0x3f7a999a, 0x3f7e3333, 0x3f800000};

// The largest magnitude, NaN where there is one: as integers, magnitudes sort by size and NaN is
// above infinity.
static inline float largest(const float *x, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return float_of(most);
}

// 1e-38 is what bitsandbytes divides by in a block of zeros.
static inline float at_least_tiny(float value) { return value < 1e-38f ? 1e-38f : value; }

// The elements that are coded at a time: every block size is a multiple of it.
enum { STRIP = 32 };

// The codes of scaled values: a value on a midpoint goes to the code below it, NaN above all.
static inline void choose4(enum pef_code4 code, const float *scaled, int32_t *chosen) {
  for (size_t i = 0; i < STRIP; i++) chosen[i] = first4[code];
  for (size_t k = 0; k < 15; k++) {
    float midpoint = float_of(midpoints4[code][k]);
    int32_t step = steps4[code][k];
    for (size_t i = 0; i < STRIP; i++) chosen[i] += midpoint >= scaled[i] ? 0 : step;
  }
}

PEF_CLONES void pef_quantize4(enum pef_code4 code, const float *restrict x, size_t count,
                              size_t block_size, uint8_t *restrict packed,
                              float *restrict absmax) {
  float scaled[STRIP];
  int32_t chosen[STRIP];
  for (size_t start = 0; start < count; start += block_size) {
    size_t length = count - start < block_size ? count - start : block_size;
    float most = largest(x + start, length);
    if (length == block_size) {
      absmax[start / block_size] = most;
      float factor = 1.0f / at_least_tiny(most);
      for (size_t i = start; i < start + length; i += STRIP) {
        for (size_t k = 0; k < STRIP; k++) scaled[k] = x[i + k] * factor;
        choose4(code, scaled, chosen);
        for (size_t k = 0; k < STRIP / 2; k++)
          packed[i / 2 + k] = (uint8_t)(chosen[2 * k] << 4 | chosen[2 * k + 1]);
      }
      continue;
    }
    most = at_least_tiny(most);
    absmax[start / block_size] = most;
    for (size_t i = start; i < count; i += STRIP) {
      size_t part = count - i < STRIP ? count - i : STRIP;
      for (size_t k = 0; k < part; k++) scaled[k] = x[i + k] / most;
      for (size_t k = part; k < STRIP; k++) scaled[k] = 0;
      choose4(code, scaled, chosen);
      for (size_t k = 0; k < (part + 1) / 2; k++)
        packed[i / 2 + k] = (uint8_t)(chosen[2 * k] << 4 | chosen[2 * k + 1]);
    }
  }
}

// The largest magnitude of each block by the bits of its elements, which are widened afterwards.
#define ABSMAX(TYPE, mask)                                                            \
  {                                                                                   \
    const TYPE *from = x;                                                             \
    for (size_t start = 0; start < count; start += block_size) {                      \
      size_t length = count - start < block_size ? count - start : block_size;        \
      TYPE most = 0;                                                                  \
      for (size_t i = start; i < start + length; i++) {                               \
        TYPE bits = from[i] & (mask);                                                 \
        most = bits > most ? bits : most;                                             \
      }                                                                               \
      pef_widen_f32(dtype, &most, absmax + start / block_size, 1);                    \
      if (length < block_size)                                                        \
        absmax[start / block_size] = at_least_tiny(absmax[start / block_size]);       \
    }                                                                                 \
    return;                                                                           \
  }

PEF_CLONES void pef_absmax(enum pef_dtype dtype, const void *restrict x, size_t count,
                           size_t block_size, float *restrict absmax) {
  switch (dtype) {
    case PEF_F32: ABSMAX(uint32_t, 0x7fffffff)
    case PEF_F16:
    case PEF_BF16: ABSMAX(uint16_t, 0x7fff)
    default: return;
  }
}

// The two values of each byte.
__attribute__((always_inline)) static inline void pairs_of(enum pef_code4 code,
                                                           float (*pairs)[2]) {
  for (size_t byte = 0; byte < 256; byte++) {
    pairs[byte][0] = float_of(levels4[code][byte >> 4]);
    pairs[byte][1] = float_of(levels4[code][byte & 15]);
  }
}

PEF_CLONES void pef_dequantize4_tile(enum pef_code4 code, const uint8_t *restrict packed,
                                     const float *restrict absmax, size_t block_size,
                                     size_t first, size_t row, size_t rows, size_t columns,
                                     float *restrict tile) {
  float pairs[256][2];
  pairs_of(code, pairs);
  for (size_t i = 0; i < rows; i++, first += row, tile += columns) {
    // No processor guesses where a row begins.
    if (i + 8 < rows)
      for (size_t j = 0; j < columns; j += 128)
        __builtin_prefetch(packed + (first + 8 * row + j) / 2);
    for (size_t j = 0; j < columns;) {
      const size_t element = first + j, block = element / block_size;
      const size_t rest = (block + 1) * block_size - element;
      const size_t end = columns - j < rest ? columns : j + rest;
      const float factor = absmax[block];
      const uint8_t *bytes = packed + element / 2;
      if (element % 2) tile[j++] = pairs[*bytes++][1] * factor;
      for (; j + 1 < end; j += 2, bytes++) {
        tile[j] = pairs[*bytes][0] * factor;
        tile[j + 1] = pairs[*bytes][1] * factor;
      }
      if (j < end) tile[j++] = pairs[*bytes][0] * factor;
    }
  }
}

PEF_CLONES void pef_dequantize4(enum pef_code4 code, const uint8_t *restrict packed,
                                const float *restrict absmax, size_t count, size_t block_size,
                                float *restrict y) {
  float pairs[256][2];
  pairs_of(code, pairs);
  for (size_t start = 0; start < count; start += block_size) {
    size_t length = count - start < block_size ? count - start : block_size;
    float factor = absmax[start / block_size];
    for (size_t i = start; i + 1 < start + length; i += 2) {
      y[i] = pairs[packed[i / 2]][0] * factor;
      y[i + 1] = pairs[packed[i / 2]][1] * factor;
    }
    if (length % 2) y[start + length - 1] = pairs[packed[(start + length) / 2]][0] * factor;
  }
}

// The 8-bit code of a value in [-1, 1]: bitsandbytes looks it up by one of 65,536 places, for each
// of which it has counted the midpoints below the place's own value (build_quantize_lut and
// norm_to_lut_index in csrc/cpu_ops.cpp).
static inline uint8_t choose8(float value, const float *midpoints) {
  value = value < -1 ? -1 : value;
  value = value > 1 ? 1 : value;
  // NaN has no place; bitsandbytes leaves to the processor what becomes of it.
  uint32_t place = value == value ? (uint32_t)((value + 1.0f) * 0.5f * 65535 + 0.5f) : 0;
  float own = -1.0f + (2.0f * (float)place) / 65535;
  uint32_t code = 0;
  for (uint32_t half = 128; half > 0; half /= 2)
    code += midpoints[code + half - 1] < own ? half : 0;
  return (uint8_t)code;
}

PEF_CLONES void pef_quantize8(const float *restrict x, size_t count, uint8_t *restrict codes,
                              float *restrict absmax) {
  float midpoints[255];
  for (size_t k = 0; k < 255; k++)
    midpoints[k] = 0.5f * (float_of(levels8[k]) + float_of(levels8[k + 1]));
  for (size_t start = 0; start < count; start += PEF_NESTED_BLOCK) {
    size_t length = count - start < PEF_NESTED_BLOCK ? count - start : PEF_NESTED_BLOCK;
    float most = largest(x + start, length);
    absmax[start / PEF_NESTED_BLOCK] = most;
    if (most == 0) {
      memset(codes + start, 0, length);
      continue;
    }
    float factor = 1.0f / most;
    for (size_t i = start; i < start + length; i++)
      codes[i] = choose8(x[i] * factor, midpoints);
  }
}

PEF_CLONES void pef_dequantize8(const float *restrict map, const uint8_t *restrict codes,
                                const float *restrict absmax, size_t count, float offset,
                                float *restrict y) {
  for (size_t i = 0; i < count; i++)
    y[i] = map[codes[i]] * absmax[i / PEF_NESTED_BLOCK] + offset;
}

void pef_levels4(enum pef_code4 code, float *levels) {
  memcpy(levels, levels4[code], sizeof levels4[code]);
}

void pef_levels8(float *levels) { memcpy(levels, levels8, sizeof levels8); }

PEF_CLONES void pef_quantize_int8(const float *restrict x, size_t rows, size_t columns,
                                  int8_t *restrict codes, float *restrict absmax) {
  for (size_t row = 0; row < rows; row++) {
    const float *from = x + row * columns;
    int8_t *to = codes + row * columns;
    float most = largest(from, columns);
    absmax[row] = most;
    // Python's 127.0 / tensor is the reciprocal times 127 in torch.
    float factor = 1.0f / most * 127.0f;
    for (size_t i = 0; i < columns; i++) {
      // Adding and taking off 1.5 * 2^23 rounds to the nearest integer, ties to the even one.
      float rounded = from[i] * factor + 12582912.0f - 12582912.0f;
      // A row of zeros makes 0 * infinity, which torch turns into 0.
      to[i] = (int8_t)(int32_t)(rounded == rounded ? rounded : 0);
    }
  }
}

PEF_CLONES void pef_dequantize_int8(const int8_t *restrict codes, const float *restrict absmax,
                                    size_t rows, size_t columns, float *restrict y) {
  for (size_t row = 0; row < rows; row++)
    for (size_t i = 0; i < columns; i++)
      y[row * columns + i] = (float)codes[row * columns + i] * absmax[row] * 7.874015718698502e-3f;
}

void pef_dequantize_int8_tile(const int8_t *codes, const float *absmax, size_t row, size_t rows,
                              size_t columns, float *tile) {
  for (size_t i = 0; i < rows; i++)
    pef_dequantize_int8(codes + i * row, absmax + i, 1, columns, tile + i * columns);
}

#define TRANSPOSE(TYPE)                                                                       \
  {                                                                                           \
    const TYPE *x = from;                                                                     \
    TYPE *y = to;                                                                             \
    for (size_t row = 0; row < rows; row += 16)                                               \
      for (size_t column = 0; column < columns; column++)                                     \
        for (size_t i = row; i < rows && i < row + 16; i++)                                   \
          y[column * rows + i] = x[i * columns + column];                                     \
    return;                                                                                   \
  }

void pef_transpose(size_t element_size, const void *restrict from, size_t rows, size_t columns,
                   void *restrict to) {
  if (element_size == 2) TRANSPOSE(uint16_t)
  if (element_size == 4) TRANSPOSE(uint32_t)
}

// torch's sums (aten/src/ATen/native/cpu/SumKernel.cpp): rows of lanes are added up in runs of a
// power of two, whose sums are added up in runs again, through four levels.
enum { LEVELS = 4, MOST_LANES = 32 };

static inline void sum_lanes(const float *x, size_t rows, size_t lanes, float *sums) {
  float level[LEVELS][MOST_LANES] = {{0}};
  size_t log2 = 1;  // of the number of rows, rounded up, and at least 1
  while (log2 < 63 && ((size_t)1 << log2) < rows) log2++;
  size_t power = log2 / LEVELS > 4 ? log2 / LEVELS : 4;
  size_t run = (size_t)1 << power;
  size_t row = 0;
  while (row + run <= rows) {
    for (size_t end = row + run; row < end; row++)
      for (size_t k = 0; k < lanes; k++) level[0][k] += x[row * lanes + k];
    for (size_t j = 1; j < LEVELS; j++) {
      for (size_t k = 0; k < lanes; k++) {
        level[j][k] += level[j - 1][k];
        level[j - 1][k] = 0;
      }
      if (row & ((run - 1) << (j * power))) break;
    }
  }
  for (; row < rows; row++)
    for (size_t k = 0; k < lanes; k++) level[0][k] += x[row * lanes + k];
  for (size_t j = 1; j < LEVELS; j++)
    for (size_t k = 0; k < lanes; k++) level[0][k] += level[j][k];
  memcpy(sums, level[0], lanes * sizeof *sums);
}

// The sum over vectors of `width` elements, four vectors in a row; width is 8 or 1.
static inline void sum_vectors(const float *x, size_t count, size_t width, float *sums) {
  float lanes[MOST_LANES];
  size_t vectors = count / width;
  sum_lanes(x, vectors / 4, 4 * width, lanes);
  for (size_t v = vectors / 4 * 4; v < vectors; v++)
    for (size_t k = 0; k < width; k++) lanes[k] += x[v * width + k];
  for (size_t v = 1; v < 4; v++)
    for (size_t k = 0; k < width; k++) lanes[k] += lanes[v * width + k];
  memcpy(sums, lanes, width * sizeof *sums);
}

float pef_mean(const float *x, size_t count) {
  float sum = 0;
  if (count < 8) {
    sum_vectors(x, count, 1, &sum);
  } else {
    float sums[8];
    sum_vectors(x, count, 8, sums);
    for (size_t i = count / 8 * 8; i < count; i++) sum += x[i];
    for (size_t k = 0; k < 8; k++) sum += sums[k];
  }
  return sum / (float)count;
}
