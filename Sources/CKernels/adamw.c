#include "adamw.h"
#include "dispatch.h"

PEF_CLONES void pef_adamw_f32(const struct pef_adamw *step, float *restrict p, float *restrict m,
                              float *restrict v, const float *restrict g, size_t count) {
  const struct pef_adamw s = *step;
  for (size_t i = 0; i < count; i++) p[i] = adamw_step(&s, p[i], m + i, v + i, g[i]);
}
