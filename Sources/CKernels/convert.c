#include "CKernels.h"
#include "dispatch.h"
#include "half.h"

// One element each; the loops below are what the compiler turns into vectors.

static inline float widen_bf16(uint16_t x) { return float_of((uint32_t)x << 16); }

static inline float widen_e5m2(uint8_t x) { return widen_f16((uint16_t)(x << 8)); }

static inline float widen_e4m3(uint8_t x) {
  uint32_t magnitude = (uint32_t)(x & 0x7f) << 20;
  uint32_t finite = bits_of(float_of(magnitude) * 0x1p120f);
  uint32_t bits = (x & 0x7f) == 0x7f ? 0x7fc00000u : finite;
  return float_of(bits | (uint32_t)(x & 0x80) << 24);
}

static inline uint16_t narrow_bf16(float value) {
  uint32_t bits = bits_of(value);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  uint32_t nan = 0x7fc0 | (bits >> 16 & 0x8000);
  return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline uint8_t narrow_e5m2(float value) {
  uint32_t bits = bits_of(value);
  // 61440 is the first that rounds to infinity.
  uint32_t magnitude = narrow_small(bits & 0x7fffffff, 21, 15, 0x47700000, 0x7c, 0x7f);
  return (uint8_t)(magnitude | (bits >> 24 & 0x80));
}

static inline uint8_t narrow_e4m3(float value) {
  uint32_t bits = bits_of(value);
  // 464 lies midway between 448 and what would be 480, and goes to the even 448.
  uint32_t magnitude = narrow_small(bits & 0x7fffffff, 20, 7, 0x43e80001, 0x7f, 0x7f);
  return (uint8_t)(magnitude | (bits >> 24 & 0x80));
}

// A float that still tells on which side of every tie of a narrower format the double lies:
// towards zero, and its last bit set where anything was lost ("round to odd").
static inline float sticky(double value) {
  float nearest = (float)value;
  uint32_t bits = bits_of(nearest);
  double back = (double)nearest;
  uint32_t inexact = back != value && value == value;
  uint32_t above = (back > value) == (value > 0) && inexact;
  return float_of((bits - above) | inexact);
}

static inline float plain_f32(float value) { return value; }
static inline double plain_f64(double value) { return value; }
static inline float widen_f32_f64(double value) { return (float)value; }

#define LOOP(FROM, TO, convert)                                 \
  {                                                             \
    const FROM *x = from;                                       \
    TO *y = to;                                                 \
    for (size_t i = 0; i < count; i++) y[i] = convert(x[i]);    \
    return;                                                     \
  }

PEF_CLONES void pef_widen_f32(enum pef_dtype dtype, const void *restrict from, float *restrict to,
                              size_t count) {
  switch (dtype) {
    case PEF_F64: LOOP(double, float, widen_f32_f64)
    case PEF_F32: LOOP(float, float, plain_f32)
    case PEF_F16: LOOP(uint16_t, float, widen_f16)
    case PEF_BF16: LOOP(uint16_t, float, widen_bf16)
    case PEF_F8_E4M3: LOOP(uint8_t, float, widen_e4m3)
    case PEF_F8_E5M2: LOOP(uint8_t, float, widen_e5m2)
  }
}

void pef_widen_tile_f32(enum pef_dtype dtype, const void *from, size_t row, size_t rows,
                        size_t columns, float *tile) {
  const size_t size = dtype == PEF_F64 ? 8 : dtype == PEF_F32 ? 4 : dtype <= PEF_BF16 ? 2 : 1;
  const char *bytes = from;
  for (size_t i = 0; i < rows; i++, bytes += row * size, tile += columns) {
    // No processor guesses where a row begins; those after the last are mostly read next.
    if (rows > 1)
      for (size_t j = 0; j < columns * size; j += 64)
        __builtin_prefetch(bytes + 8 * row * size + j, 0, 2);
    pef_widen_f32(dtype, bytes, tile, columns);
  }
}

PEF_CLONES void pef_widen_f64(enum pef_dtype dtype, const void *restrict from,
                              double *restrict to, size_t count) {
  switch (dtype) {
    case PEF_F64: LOOP(double, double, plain_f64)
    case PEF_F32: LOOP(float, double, plain_f32)
    case PEF_F16: LOOP(uint16_t, double, widen_f16)
    case PEF_BF16: LOOP(uint16_t, double, widen_bf16)
    case PEF_F8_E4M3: LOOP(uint8_t, double, widen_e4m3)
    case PEF_F8_E5M2: LOOP(uint8_t, double, widen_e5m2)
  }
}

PEF_CLONES void pef_narrow_f32(enum pef_dtype dtype, const float *restrict from,
                               void *restrict to, size_t count) {
  switch (dtype) {
    case PEF_F64: LOOP(float, double, plain_f32)
    case PEF_F32: LOOP(float, float, plain_f32)
    case PEF_F16: LOOP(float, uint16_t, narrow_f16)
    case PEF_BF16: LOOP(float, uint16_t, narrow_bf16)
    case PEF_F8_E4M3: LOOP(float, uint8_t, narrow_e4m3)
    case PEF_F8_E5M2: LOOP(float, uint8_t, narrow_e5m2)
  }
}

#define STICKY(narrow) narrow##_sticky
#define NARROW_STICKY(TYPE, narrow) \
  static inline TYPE narrow##_sticky(double value) { return narrow(sticky(value)); }
NARROW_STICKY(uint16_t, narrow_f16)
NARROW_STICKY(uint16_t, narrow_bf16)
NARROW_STICKY(uint8_t, narrow_e4m3)
NARROW_STICKY(uint8_t, narrow_e5m2)

PEF_CLONES void pef_narrow_f64(enum pef_dtype dtype, const double *restrict from,
                               void *restrict to, size_t count) {
  switch (dtype) {
    case PEF_F64: LOOP(double, double, plain_f64)
    case PEF_F32: LOOP(double, float, widen_f32_f64)
    case PEF_F16: LOOP(double, uint16_t, STICKY(narrow_f16))
    case PEF_BF16: LOOP(double, uint16_t, STICKY(narrow_bf16))
    case PEF_F8_E4M3: LOOP(double, uint8_t, STICKY(narrow_e4m3))
    case PEF_F8_E5M2: LOOP(double, uint8_t, STICKY(narrow_e5m2))
  }
}

#define COUNT(TYPE, mask, least)                                            \
  {                                                                         \
    const TYPE *x = from;                                                   \
    size_t found = 0;                                                       \
    for (size_t i = 0; i < count; i++) found += (x[i] & (mask)) >= (least); \
    return found;                                                           \
  }

PEF_CLONES size_t pef_count_nonfinite(enum pef_dtype dtype, const void *from, size_t count) {
  switch (dtype) {
    case PEF_F64: COUNT(uint64_t, 0x7fffffffffffffff, 0x7ff0000000000000)
    case PEF_F32: COUNT(uint32_t, 0x7fffffff, 0x7f800000)
    case PEF_F16: COUNT(uint16_t, 0x7fff, 0x7c00)
    case PEF_BF16: COUNT(uint16_t, 0x7fff, 0x7f80)
    case PEF_F8_E4M3: COUNT(uint8_t, 0x7f, 0x7f)
    case PEF_F8_E5M2: COUNT(uint8_t, 0x7f, 0x7c)
  }
}
