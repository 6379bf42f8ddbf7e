#include "CKernels.h"
#include "dispatch.h"

#define REAL float
#define LANES 16
#define NAME(name) pef_##name##_f32
#define FMA __builtin_fmaf
#include "lowrank.inc"
#undef REAL
#undef LANES
#undef NAME
#undef FMA

#define REAL double
#define LANES 8
#define NAME(name) pef_##name##_f64
#define FMA __builtin_fma
#include "lowrank.inc"
