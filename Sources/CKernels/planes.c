#include <string.h>

#include "CKernels.h"
#include "dispatch.h"

// Elements that lie at any address.
typedef uint16_t pef_u16 __attribute__((aligned(1)));
typedef uint32_t pef_u32 __attribute__((aligned(1)));
typedef uint64_t pef_u64 __attribute__((aligned(1)));

// A float of f32's exponent with the sign below the exponent, which then is the highest byte:
// s eeeeeeee m… becomes eeeeeeee s m….
static inline uint16_t lower_sign_16(uint16_t x) {
  return (uint16_t)((x << 1 & 0xff00) | (x >> 8 & 0x80) | (x & 0x7f));
}
static inline uint16_t raise_sign_16(uint16_t x) {
  return (uint16_t)((x << 8 & 0x8000) | (x >> 1 & 0x7f80) | (x & 0x7f));
}
static inline uint32_t lower_sign_32(uint32_t x) {
  return (x << 1 & 0xff000000) | (x >> 8 & 0x800000) | (x & 0x7fffff);
}
static inline uint32_t raise_sign_32(uint32_t x) {
  return (x << 8 & 0x80000000) | (x >> 1 & 0x7f800000) | (x & 0x7fffff);
}
#define AS_IT_IS(x) (x)

// The planes are written in one pass each: that is quicker than eight streams at once.
#define SPLIT(TYPE, WIDTH, change)                                              \
  {                                                                             \
    const TYPE *x = from;                                                       \
    for (size_t k = 0; k < WIDTH; k++) {                                        \
      uint8_t *plane = to + k * count;                                          \
      for (size_t i = 0; i < count; i++) plane[i] = (uint8_t)(change(x[i]) >> (8 * k)); \
    }                                                                           \
    return;                                                                     \
  }

PEF_CLONES static void split_16(const void *restrict from, uint8_t *restrict to, size_t count)
    SPLIT(pef_u16, 2, AS_IT_IS)
PEF_CLONES static void split_16_sign(const void *restrict from, uint8_t *restrict to, size_t count)
    SPLIT(pef_u16, 2, lower_sign_16)
PEF_CLONES static void split_32(const void *restrict from, uint8_t *restrict to, size_t count)
    SPLIT(pef_u32, 4, AS_IT_IS)
PEF_CLONES static void split_32_sign(const void *restrict from, uint8_t *restrict to, size_t count)
    SPLIT(pef_u32, 4, lower_sign_32)
PEF_CLONES static void split_64(const void *restrict from, uint8_t *restrict to, size_t count)
    SPLIT(pef_u64, 8, AS_IT_IS)

void pef_split_planes(const void *from, uint8_t *to, size_t count, size_t width, int lowers_sign) {
  switch (width) {
    case 2: (lowers_sign ? split_16_sign : split_16)(from, to, count); return;
    case 4: (lowers_sign ? split_32_sign : split_32)(from, to, count); return;
    case 8: split_64(from, to, count); return;
    default: memcpy(to, from, count * width);
  }
}

#define JOIN(TYPE, WIDTH, change)                                                     \
  {                                                                                   \
    TYPE *y = to;                                                                     \
    for (size_t i = 0; i < count; i++) {                                              \
      TYPE joined = 0;                                                                \
      for (size_t k = 0; k < WIDTH; k++)                                              \
        joined = (TYPE)(joined | (TYPE)((TYPE)from[k * count + i] << (8 * k)));       \
      y[i] = change(joined);                                                          \
    }                                                                                 \
    return;                                                                           \
  }

PEF_CLONES static void join_16(const uint8_t *restrict from, void *restrict to, size_t count)
    JOIN(pef_u16, 2, AS_IT_IS)
PEF_CLONES static void join_16_sign(const uint8_t *restrict from, void *restrict to, size_t count)
    JOIN(pef_u16, 2, raise_sign_16)
PEF_CLONES static void join_32(const uint8_t *restrict from, void *restrict to, size_t count)
    JOIN(pef_u32, 4, AS_IT_IS)
PEF_CLONES static void join_32_sign(const uint8_t *restrict from, void *restrict to, size_t count)
    JOIN(pef_u32, 4, raise_sign_32)
PEF_CLONES static void join_64(const uint8_t *restrict from, void *restrict to, size_t count)
    JOIN(pef_u64, 8, AS_IT_IS)

void pef_join_planes(const uint8_t *from, void *to, size_t count, size_t width, int raises_sign) {
  switch (width) {
    case 2: (raises_sign ? join_16_sign : join_16)(from, to, count); return;
    case 4: (raises_sign ? join_32_sign : join_32)(from, to, count); return;
    case 8: join_64(from, to, count); return;
    default: memcpy(to, from, count * width);
  }
}

// d = x - b wraps around; 0, -1, 1, -2, … become 0, 1, 2, 3, ….
#define SUBTRACT(TYPE, BITS)                                                        \
  {                                                                                 \
    const TYPE *a = x, *b = base;                                                   \
    TYPE *d = difference;                                                           \
    for (size_t i = 0; i < count; i++) {                                            \
      TYPE v = (TYPE)(a[i] - b[i]);                                                 \
      d[i] = (TYPE)((TYPE)(v << 1) ^ (TYPE)(0 - (v >> (BITS - 1))));                \
    }                                                                               \
    return;                                                                         \
  }

PEF_CLONES void pef_subtract(const void *restrict x, const void *restrict base,
                             void *restrict difference, size_t count, size_t width) {
  switch (width) {
    case 1: SUBTRACT(uint8_t, 8)
    case 2: SUBTRACT(pef_u16, 16)
    case 4: SUBTRACT(pef_u32, 32)
    case 8: SUBTRACT(pef_u64, 64)
  }
}

#define ADD(TYPE)                                                                \
  {                                                                              \
    const TYPE *d = difference, *b = base;                                       \
    TYPE *y = x;                                                                 \
    for (size_t i = 0; i < count; i++)                                           \
      y[i] = (TYPE)(b[i] + (TYPE)((TYPE)(d[i] >> 1) ^ (TYPE)(0 - (d[i] & 1)))); \
    return;                                                                      \
  }

PEF_CLONES void pef_add_difference(const void *restrict difference, const void *restrict base,
                                   void *restrict x, size_t count, size_t width) {
  switch (width) {
    case 1: ADD(uint8_t)
    case 2: ADD(pef_u16)
    case 4: ADD(pef_u32)
    case 8: ADD(pef_u64)
  }
}
