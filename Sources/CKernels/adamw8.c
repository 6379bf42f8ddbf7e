#include "CKernels.h"
#include "adamw.h"
#include "dispatch.h"
#include "half.h"

#include <string.h>

// The value of each code of a second moment, in ascending order: create_dynamic_map(signed=False)
// of bitsandbytes/functional.py, as bits of f32, since computing them anew comes out one place off.
static const uint32_t unsigned8[256] = {
    0x00000000, 0x34ae7baa, 0x35500998, 0x360e9b38, 0x3692ccf6, 0x36de4c51, 0x3714e5d5, 0x3783126e,
    0x37e171a0, 0x381fe868, 0x384f1800, 0x387e479a, 0x3896bb99, 0x38ae5364, 0x38c5eb31, 0x3906594b,
    0x394154ca, 0x397c5049, 0x399ba5e4, 0x39b923a2, 0x39d6a163, 0x39f41f22, 0x3a08ce71, 0x3a178d50,
    0x3a264c30, 0x3a350b10, 0x3a43c9ef, 0x3a5288d0, 0x3a6147af, 0x3a70068e, 0x3a7ec56e, 0x3a958106,
    0x3aba5e35, 0x3adf3b64, 0x3b020c4a, 0x3b147ae1, 0x3b26e978, 0x3b395810, 0x3b4bc6a7, 0x3b5e3540,
    0x3b70a3d7, 0x3b818937, 0x3b8ac082, 0x3b93f7cf, 0x3b9d2f1a, 0x3ba66666, 0x3baf9db2, 0x3bb8d4fd,
    0x3bc20c4a, 0x3bcb4395, 0x3bd47ae1, 0x3bddb22e, 0x3be6e978, 0x3bf020c5, 0x3bf9580f, 0x3c0147ae,
    0x3c05e354, 0x3c0a7ef9, 0x3c0f1aa0, 0x3c13b645, 0x3c1851eb, 0x3c1ced92, 0x3c218937, 0x3c2f5c2a,
    0x3c466667, 0x3c5d70a3, 0x3c747ae2, 0x3c85c28f, 0x3c9147af, 0x3c9ccccd, 0x3ca851eb, 0x3cb3d70b,
    0x3cbf5c29, 0x3ccae147, 0x3cd66667, 0x3ce1eb87, 0x3ced70a3, 0x3cf8f5c3, 0x3d023d70, 0x3d080000,
    0x3d0dc28f, 0x3d13851f, 0x3d1947af, 0x3d1f0a3d, 0x3d24cccd, 0x3d2a8f5c, 0x3d3051eb, 0x3d36147b,
    0x3d3bd70a, 0x3d41999a, 0x3d475c28, 0x3d4d1eb8, 0x3d52e147, 0x3d58a3d7, 0x3d5e6667, 0x3d6428f7,
    0x3d69eb87, 0x3d6fae15, 0x3d7570a3, 0x3d7b3333, 0x3d807ae2, 0x3d835c2a, 0x3d863d71, 0x3d891eb8,
    0x3d8c0000, 0x3d8ee148, 0x3d91c290, 0x3d94a3d7, 0x3d97851f, 0x3d9a6667, 0x3d9d47af, 0x3da028f6,
    0x3da30a3e, 0x3da5eb85, 0x3da8cccd, 0x3dabae15, 0x3dae8f5c, 0x3db170a4, 0x3db451eb, 0x3db73333,
    0x3dba147b, 0x3dbcf5c3, 0x3dbfd70b, 0x3dc2b852, 0x3dc5999a, 0x3dc87ae2, 0x3dcb5c29, 0x3dd40000,
    0x3de26666, 0x3df0cccd, 0x3dff3333, 0x3e06cccc, 0x3e0e0000, 0x3e153334, 0x3e1c6666, 0x3e23999a,
    0x3e2acccc, 0x3e320000, 0x3e393334, 0x3e406666, 0x3e47999a, 0x3e4ecccc, 0x3e560000, 0x3e5d3334,
    0x3e646666, 0x3e6b999a, 0x3e72cccc, 0x3e7a0000, 0x3e809999, 0x3e843333, 0x3e87cccd, 0x3e8b6666,
    0x3e8f0000, 0x3e92999a, 0x3e963333, 0x3e99cccc, 0x3e9d6666, 0x3ea10000, 0x3ea4999a, 0x3ea83333,
    0x3eabcccc, 0x3eaf6666, 0x3eb30000, 0x3eb6999a, 0x3eba3333, 0x3ebdcccc, 0x3ec16666, 0x3ec50000,
    0x3ec8999a, 0x3ecc3333, 0x3ecfcccc, 0x3ed36666, 0x3ed70000, 0x3eda999a, 0x3ede3333, 0x3ee1cccc,
    0x3ee56666, 0x3ee90000, 0x3eec999a, 0x3ef03333, 0x3ef3cccc, 0x3ef76666, 0x3efb0000, 0x3efe9999,
    0x3f01199a, 0x3f02e666, 0x3f04b333, 0x3f068000, 0x3f084ccc, 0x3f0a199a, 0x3f0be666, 0x3f0db334,
    0x3f0f8000, 0x3f114ccd, 0x3f13199a, 0x3f14e666, 0x3f16b334, 0x3f188000, 0x3f1a4ccd, 0x3f1c199a,
    0x3f1de666, 0x3f1fb334, 0x3f218000, 0x3f234ccd, 0x3f25199a, 0x3f26e666, 0x3f28b334, 0x3f2a8000,
    0x3f2c4ccd, 0x3f2e199a, 0x3f2fe666, 0x3f31b334, 0x3f338000, 0x3f354ccd, 0x3f37199a, 0x3f38e666,
    0x3f3ab334, 0x3f3c8000, 0x3f3e4ccd, 0x3f40199a, 0x3f41e666, 0x3f43b334, 0x3f458000, 0x3f474ccc,
    0x3f49199a, 0x3f4ae666, 0x3f4cb334, 0x3f4e8000, 0x3f504ccc, 0x3f52199a, 0x3f53e666, 0x3f55b334,
    0x3f578000, 0x3f594ccc, 0x3f5b199a, 0x3f5ce666, 0x3f5eb334, 0x3f608000, 0x3f624ccc, 0x3f64199a,
    0x3f65e666, 0x3f67b334, 0x3f698000, 0x3f6b4ccc, 0x3f6d199a, 0x3f6ee666, 0x3f70b334, 0x3f728000,
    0x3f744ccc, 0x3f76199a, 0x3f77e666, 0x3f79b334, 0x3f7b8000, 0x3f7d4ccc, 0x3f7f199a, 0x3f800000
};

// Numbers from -1 to 1 are sorted by their sign, exponent and the highest bits of their fraction
// into places so narrow that two midpoints at most are within one. Sizes below LOWEST, which no
// midpoint has, share the first place.
enum { SHIFT = 17, LOWEST = (127 - 24) << 23, ONE = 127 << 23 };
enum { PLACES = ((ONE - LOWEST) >> SHIFT) + 1 };

// A map of codes.
struct map {
  float levels[256];
  // The points midway between neighbouring values, and one that no number is beyond.
  float midpoints[256];
  // For each place of positive and of negative numbers, how many midpoints are below it.
  uint8_t below[2][PLACES];
};

static void fill(struct map *map, int is_signed) {
  if (is_signed)
    pef_levels8(map->levels);
  else
    memcpy(map->levels, unsigned8, sizeof unsigned8);
  for (size_t k = 0; k < 255; k++)
    map->midpoints[k] = 0.5f * (map->levels[k] + map->levels[k + 1]);
  map->midpoints[255] = __builtin_inff();
  uint8_t code = 0;
  for (uint32_t k = PLACES; k-- > 0;) {
    const float least = -float_of(LOWEST + ((k + 1) << SHIFT));
    while (map->midpoints[code] < least) code++;
    map->below[1][k] = code;
  }
  for (uint32_t k = 0; k < PLACES; k++) {
    const float least = k == 0 ? 0 : float_of(LOWEST + (k << SHIFT));
    while (map->midpoints[code] < least) code++;
    map->below[0][k] = code;
  }
}

// The code whose value is nearest, of two equally near the lower: how many midpoints are below.
// What is no number has some code.
static inline uint8_t nearest(float value, const struct map *map) {
  const uint32_t bits = bits_of(value);
  uint32_t size = bits & 0x7fffffff;
  size = size < LOWEST ? LOWEST : size < ONE ? size : ONE;
  uint32_t code = map->below[bits >> 31][(size - LOWEST) >> SHIFT];
  code += map->midpoints[code] < value;
  code += map->midpoints[code] < value;
  return (uint8_t)code;
}

static inline void encode(const float *x, size_t count, const struct map *map, uint8_t *codes,
                          float *scale) {
  float most = 0;
  for (size_t i = 0; i < count; i++) {
    const float size = __builtin_fabsf(x[i]);
    most = size > most ? size : most;
  }
  *scale = most;
  for (size_t i = 0; i < count; i++)
    codes[i] = nearest(most == 0 ? 0 : x[i] / most, map);
}

PEF_CLONES void pef_adamw8_f32(const struct pef_adamw *step, float *restrict p,
                               uint8_t *restrict m, float *restrict m_scales, uint8_t *restrict v,
                               float *restrict v_scales, const float *restrict g, size_t count) {
  const struct pef_adamw s = *step;
  struct map first, second;
  fill(&first, 1);
  fill(&second, 0);
  for (size_t start = 0, block = 0; start < count; start += PEF_MOMENT_BLOCK, block++) {
    const size_t length =
        count - start < PEF_MOMENT_BLOCK ? count - start : (size_t)PEF_MOMENT_BLOCK;
    float own_m[PEF_MOMENT_BLOCK], own_v[PEF_MOMENT_BLOCK];
    for (size_t i = 0; i < length; i++) {
      own_m[i] = first.levels[m[start + i]] * m_scales[block];
      own_v[i] = second.levels[v[start + i]] * v_scales[block];
    }
    for (size_t i = 0; i < length; i++)
      p[start + i] = adamw_step(&s, p[start + i], own_m + i, own_v + i, g[start + i]);
    encode(own_m, length, &first, m + start, m_scales + block);
    encode(own_v, length, &second, v + start, v_scales + block);
  }
}
