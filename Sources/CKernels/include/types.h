/// The types of elements.
#ifndef PEF_TYPES_H
#define PEF_TYPES_H

/// The element types that peftool computes with.
enum pef_dtype {
  PEF_F64,
  PEF_F32,
  PEF_F16,
  PEF_BF16,
  PEF_F8_E4M3,  // no infinity, NaN 0x7f and 0xff, largest 448 (OCP "E4M3FN")
  PEF_F8_E5M2
};

/// The 4-bit codes of bitsandbytes.
enum pef_code4 { PEF_NF4, PEF_FP4 };

#endif
