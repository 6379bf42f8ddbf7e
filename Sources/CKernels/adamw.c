#include "dispatch.h"
#include "training.h"

#include <math.h>

PEF_CLONES void pef_adamw_f32(const struct pef_adamw *step, float *restrict p, float *restrict m,
                              float *restrict v, const float *restrict g, size_t count) {
  const struct pef_adamw s = *step;
  for (size_t i = 0; i < count; i++) {
    const float decayed = p[i] * s.decay;
    m[i] = __builtin_fmaf(s.one_less_beta1, g[i] - m[i], m[i]);
    v[i] = __builtin_fmaf(s.one_less_beta2 * g[i], g[i], v[i] * s.beta2);
    const float divisor = sqrtf(v[i]) / s.root + s.epsilon;
    const float moved = decayed - s.step_size * m[i] / divisor;
    p[i] = __builtin_fmaf(s.late_decay, moved, moved);
  }
}
