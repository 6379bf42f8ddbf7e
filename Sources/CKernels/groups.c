#include "CKernels.h"
#include "dispatch.h"
#include "half.h"

#include <string.h>

// The groups whose scales are rounded at a time.
enum { GROUPS = 64, GROUP_MAX = 128 };

// Adding and taking off 1.5 * 2^23 rounds to the nearest integer, ties to the even one; what is
// rounded here is a few times 16 at most.
static inline float nearest(float value) { return value + 12582912.0f - 12582912.0f; }

static inline float between(float value, float low, float high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

// The least and the largest of a group and zero; of a group of zeros -1 and 1.
static inline void bounds(const float *x, size_t count, float *low, float *high) {
  float least = 0, most = 0;
  for (size_t i = 0; i < count; i++) least = x[i] < least ? x[i] : least;
  for (size_t i = 0; i < count; i++) most = x[i] > most ? x[i] : most;
  int is_zero = least == 0 && most == 0;
  *low = is_zero ? -1 : least;
  *high = is_zero ? 1 : most;
}

static inline float scale_of(const float *x, size_t count, enum pef_zero_rule rule) {
  float low, high;
  int has_nan = 0;
  for (size_t i = 0; i < count; i++) has_nan |= x[i] != x[i];
  bounds(x, count, &low, &high);
  float most = -low > high ? -low : high;
  float scale = (rule == PEF_ZERO_8 ? 2 * most : high - low) / 15;
  if (rule == PEF_ZERO_FROM_1 && nearest(-low / scale) < 1) scale = high / 14;
  return has_nan ? __builtin_nanf("") : scale;
}

PEF_CLONES void pef_quantize_groups4(const float *restrict x, size_t count, size_t group_size,
                                     enum pef_zero_rule rule, enum pef_dtype dtype,
                                     uint8_t *restrict packed, float *restrict scales,
                                     float *restrict zeros) {
  float rounded[GROUPS];
  float codes[GROUP_MAX];
  const float unit = 2.0f / 15;
  float stored_unit;
  pef_narrow_f32(dtype, &unit, rounded, 1);
  pef_widen_f32(dtype, rounded, &stored_unit, 1);
  for (size_t start = 0; start < count / group_size; start += GROUPS) {
    size_t groups = count / group_size - start;
    groups = groups < GROUPS ? groups : GROUPS;
    for (size_t k = 0; k < groups; k++)
      scales[start + k] = scale_of(x + (start + k) * group_size, group_size, rule);
    pef_narrow_f32(dtype, scales + start, rounded, groups);
    pef_widen_f32(dtype, rounded, scales + start, groups);
    for (size_t k = start; k < start + groups; k++) {
      const float *from = x + k * group_size;
      float low, high, scale = scales[k];
      bounds(from, group_size, &low, &high);
      if (scale == 0) {
        scales[k] = scale = stored_unit;
        low = -1;
      }
      float least = rule == PEF_ZERO_FROM_1;
      float zero = rule == PEF_ZERO_8 ? 8 : between(nearest(-low / scale), least, 15);
      zeros[k] = zero;
      for (size_t i = 0; i < group_size; i++)
        // Beyond 2^22 nothing is rounded, and it is cut to 0 or 15.
        codes[i] = between(nearest(from[i] / scale) + zero, 0, 15);
      uint8_t *to = packed + k * group_size / 2;
      for (size_t i = 0; i < group_size / 2; i++) {
        // A NaN, whose scale says so, has any code.
        int32_t first = codes[2 * i] >= 0 ? (int32_t)codes[2 * i] : 0;
        int32_t second = codes[2 * i + 1] >= 0 ? (int32_t)codes[2 * i + 1] : 0;
        to[i] = (uint8_t)(first | second << 4);
      }
    }
  }
}

// Elements of one group, from an element of the packed codes on: the codes first, so that both
// loops go many elements at a time.
static inline void group_values(const uint8_t *packed, size_t element, size_t count, float scale,
                                float zero, float offset, float *restrict to) {
  uint8_t codes[GROUP_MAX];
  const uint8_t *bytes = packed + element / 2;
  if (element % 2 && count) {
    *to++ = scale * ((float)(*bytes++ >> 4) - zero) + offset;
    count--;
  }
  for (size_t start = 0; start < count; start += GROUP_MAX, bytes += GROUP_MAX / 2) {
    const size_t part = count - start < GROUP_MAX ? count - start : GROUP_MAX;
    for (size_t i = 0; i < part / 2; i++) {
      codes[2 * i] = bytes[i] & 15;
      codes[2 * i + 1] = bytes[i] >> 4;
    }
    if (part % 2) codes[part - 1] = bytes[part / 2] & 15;
    for (size_t i = 0; i < part; i++)
      to[start + i] = scale * ((float)codes[i] - zero) + offset;
  }
}

PEF_CLONES void pef_dequantize_groups4_tile(const uint8_t *restrict packed,
                                            const float *restrict scales,
                                            const float *restrict shifts,
                                            enum pef_shift shift,
                                            const int32_t *restrict group_of, size_t group_size,
                                            size_t row, size_t first_row, size_t first_column,
                                            size_t rows, size_t columns, float *restrict tile) {
  const size_t groups = (row + group_size - 1) / group_size;
  const size_t end = first_column + columns;
  for (size_t i = 0; i < rows; i++, tile += columns) {
    const size_t start = (first_row + i) * row;
    const float *row_scales = scales + (first_row + i) * groups;
    const float *row_shifts = shifts + (first_row + i) * groups;
    for (size_t j = first_column; j < end;) {
      const size_t group = group_of ? (size_t)group_of[j] : j / group_size;
      const size_t rest = group_of ? j + 1 : (group + 1) * group_size;
      const size_t part = (rest < end ? rest : end) - j;
      const float zero = shift == PEF_ZEROS ? row_shifts[group] : 0;
      const float offset = shift == PEF_ZEROS ? 0 : row_shifts[group];
      group_values(packed, start + j, part, row_scales[group], zero, offset,
                   tile + (j - first_column));
      j += part;
    }
  }
}

// The nibble of a word that holds each of eight numbers.
static const uint8_t places[2][8] = {
    [PEF_IN_ORDER] = {0, 1, 2, 3, 4, 5, 6, 7},
    [PEF_AWQ_ORDER] = {0, 4, 1, 5, 2, 6, 3, 7},
};

PEF_CLONES void pef_pack_nibbles(const float *restrict values, size_t count,
                                 enum pef_nibble_order order, unsigned less,
                                 uint32_t *restrict words) {
  for (size_t i = 0; i < count / 8; i++) {
    uint32_t word = 0;
    for (size_t k = 0; k < 8; k++)
      word |= (((uint32_t)values[8 * i + k] - less) & 15) << (4 * places[order][k]);
    words[i] = word;
  }
}

PEF_CLONES void pef_unpack_nibbles(const uint32_t *restrict words, size_t count,
                                   enum pef_nibble_order order, unsigned less,
                                   float *restrict values) {
  for (size_t i = 0; i < count / 8; i++)
    for (size_t k = 0; k < 8; k++)
      values[8 * i + k] = (float)(((words[i] >> (4 * places[order][k])) + less) & 15);
}

PEF_CLONES void pef_pack_awq(const uint8_t *restrict packed, size_t rows, size_t columns,
                             uint32_t *restrict words) {
  for (size_t c = 0; c < rows / 8; c++)
    for (size_t w = 0; w < columns / 8; w++) {
      uint32_t from[8];
      for (size_t k = 0; k < 8; k++)
        memcpy(from + k, packed + (8 * c + k) * (columns / 2) + 4 * w, 4);
      for (size_t i = 0; i < 8; i++) {
        uint32_t word = 0;
        for (size_t k = 0; k < 8; k++)
          word |= ((from[k] >> (4 * i)) & 15) << (4 * places[PEF_AWQ_ORDER][k]);
        words[(8 * w + i) * (rows / 8) + c] = word;
      }
    }
}

PEF_CLONES void pef_unpack_awq(const uint32_t *restrict words, size_t rows, size_t columns,
                               uint8_t *restrict packed) {
  for (size_t c = 0; c < rows / 8; c++)
    for (size_t w = 0; w < columns / 8; w++) {
      uint32_t to[8] = {0};
      for (size_t i = 0; i < 8; i++) {
        uint32_t word = words[(8 * w + i) * (rows / 8) + c];
        for (size_t k = 0; k < 8; k++)
          to[k] |= ((word >> (4 * places[PEF_AWQ_ORDER][k])) & 15) << (4 * i);
      }
      for (size_t k = 0; k < 8; k++)
        memcpy(packed + (8 * c + k) * (columns / 2) + 4 * w, to + k, 4);
    }
}

static inline uint8_t code_at(const uint8_t *packed, size_t k) {
  return (uint8_t)(packed[k / 2] >> (4 * (k % 2))) & 15;
}

PEF_CLONES void pef_pack_halves(const uint8_t *restrict packed, size_t total, size_t first,
                                size_t count, uint8_t *restrict bytes) {
  for (size_t i = 0; i < count; i++)
    bytes[i] = (uint8_t)(code_at(packed, first + i) << 4 | code_at(packed, total / 2 + first + i));
}

PEF_CLONES void pef_unpack_halves(const uint8_t *restrict bytes, size_t total,
                                  uint8_t *restrict packed) {
  for (size_t i = 0; i < total / 4; i++) {
    const uint8_t *pair = bytes + 2 * i;
    packed[i] = (uint8_t)(pair[0] >> 4 | (pair[1] & 0xF0));
    packed[total / 4 + i] = (uint8_t)((pair[0] & 15) | pair[1] << 4);
  }
}

PEF_CLONES void pef_pack_q4_1(const uint8_t *restrict packed, const float *restrict scales,
                              const float *restrict shifts, enum pef_shift shift,
                              size_t group_size, size_t count, void *restrict blocks) {
  uint8_t *to = blocks;
  for (size_t start = 0; start < count; start += 32, to += 20) {
    const uint8_t *from = packed + start / 2;
    const size_t group = start / group_size;
    const float scale = scales[group];
    uint16_t head[2] = {
        narrow_f16(scale),
        narrow_f16(shift == PEF_ZEROS ? 0 - scale * shifts[group] : shifts[group])};
    memcpy(to, head, 4);
    for (size_t j = 0; j < 16; j++) {
      uint8_t low = code_at(from, j), high = code_at(from, 16 + j);
      to[4 + j] = (uint8_t)(low | high << 4);
    }
  }
}
