/// Loops over elements: no allocation, no I/O, no state.
///
/// The same bytes on every machine: each element's operations come in a fixed order, rounded as
/// written (-ffp-contract=off), and a fused multiply-add is one in every dispatch variant (the
/// C library's fma where the processor has none). Sums run over a fixed number of partial sums.
/// `_f32` and `_f64` name the type that is computed in. Pointers need no alignment but their
/// type's, and never overlap unless said.
#ifndef CKERNELS_H
#define CKERNELS_H
#include <stddef.h>
#include <stdint.h>

#include "training.h"
#include "types.h"

/// Widens `count` elements; exact, but for F64 into f32, which rounds to nearest even.
void pef_widen_f32(enum pef_dtype dtype, const void *from, float *to, size_t count);
void pef_widen_f64(enum pef_dtype dtype, const void *from, double *to, size_t count);

/// Narrows with one rounding, to nearest even. What is too large becomes infinity, and NaN in
/// F8_E4M3: never a silent 448, which is what torch makes of it since 2.12.
void pef_narrow_f32(enum pef_dtype dtype, const float *from, void *to, size_t count);
void pef_narrow_f64(enum pef_dtype dtype, const double *from, void *to, size_t count);

/// ggml's types of blocks, which Formats/gguf.md describes.
enum pef_block_type {
  PEF_Q1_0,
  PEF_Q4_0,
  PEF_Q4_1,
  PEF_Q5_0,
  PEF_Q5_1,
  PEF_Q8_0,
  PEF_Q8_1,
  PEF_Q2_K,
  PEF_Q3_K,
  PEF_Q4_K,
  PEF_Q5_K,
  PEF_Q6_K,
  PEF_Q8_K,
  PEF_IQ1_S,
  PEF_IQ1_M,
  PEF_IQ2_XXS,
  PEF_IQ2_XS,
  PEF_IQ2_S,
  PEF_IQ3_XXS,
  PEF_IQ3_S,
  PEF_IQ4_NL,
  PEF_IQ4_XS,
  PEF_TQ1_0,
  PEF_TQ2_0,
  PEF_MXFP4,
  PEF_NVFP4
};

/// The values of `count` blocks, in f32 as ggml computes them: bit for bit those of the Python
/// package gguf. NaN stays NaN.
void pef_dequantize_f32(enum pef_block_type type, const void *from, float *to, size_t count);

/// Codes `count` blocks of 32 elements as Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0; nothing for other types.
/// The bytes are those of the Python package gguf 0.19, but for the bits of a NaN, and for the sign
/// of a minimum of 0 in a block that has both zeros, which numpy leaves to the processor: here it
/// is the first one's.
void pef_quantize_f32(enum pef_block_type type, const float *from, void *to, size_t count);

/// How many blocks of these types have a scale or a minimum that is NaN or infinite: a block coded
/// by pef_quantize_f32 has, where one of its elements was, or was too large.
size_t pef_count_nonfinite_blocks(enum pef_block_type type, const void *from, size_t count);

/// How many elements are NaN or infinite.
size_t pef_count_nonfinite(enum pef_dtype dtype, const void *from, size_t count);

/// product = scaling * (left . right): left (rows, rank), right (rank, columns), product
/// (rows, columns), row-major. Each element is the chain of fused multiply-adds over the rank in
/// ascending order, from 0, then one multiplication.
void pef_lowrank_f32(float *product, const float *left, const float *right, size_t rows,
                     size_t columns, size_t rank, float scaling);
void pef_lowrank_f64(double *product, const double *left, const double *right, size_t rows,
                     size_t columns, size_t rank, double scaling);

/// y += x.
void pef_add_f32(float *y, const float *x, size_t count);
void pef_add_f64(double *y, const double *x, size_t count);

/// y *= x, element by element.
void pef_multiply_f32(float *y, const float *x, size_t count);
void pef_multiply_f64(double *y, const double *x, size_t count);

/// y *= factor.
void pef_scale_f32(float *y, float factor, size_t count);
void pef_scale_f64(double *y, double factor, size_t count);

/// Finite numbers beyond the limit become the limit, with their sign; NaN and infinity stay.
void pef_clamp_f32(float *x, float limit, size_t count);
void pef_clamp_f64(double *x, double limit, size_t count);

/// y += weight * (x - w), the difference rounded first, then one fused multiply-add.
void pef_add_change_f32(float *y, const float *x, const float *w, float weight, size_t count);
void pef_add_change_f64(double *y, const double *x, const double *w, double weight,
                        size_t count);

/// y += factor * x.
void pef_add_scaled_f32(float *y, const float *x, float factor, size_t count);
void pef_add_scaled_f64(double *y, const double *x, double factor, size_t count);

/// The sum of the squares, in f64 over 16 partial sums.
double pef_sum_squares_f32(const float *x, size_t count);
double pef_sum_squares_f64(const double *x, size_t count);

/// The sum of the products x * y, likewise.
double pef_sum_products_f32(const float *x, const float *y, size_t count);
double pef_sum_products_f64(const double *x, const double *y, size_t count);

/// The sum of the squares of x - w, likewise.
double pef_sum_squared_change_f32(const float *x, const float *w, size_t count);
double pef_sum_squared_change_f64(const double *x, const double *w, size_t count);

/// sums[j] += x[j] * x[j], in f64.
void pef_add_squares_f32(double *sums, const float *x, size_t count);
void pef_add_squares_f64(double *sums, const double *x, size_t count);

/// What a run of elements holds; the first four figures are of the finite ones.
struct pef_statistics {
  double minimum, maximum;  // INFINITY and -INFINITY where no element is finite
  double sum, squares;      // over 16 partial sums
  uint64_t zeros, nans, infinities;
};
void pef_statistics_f32(const float *x, size_t count, struct pef_statistics *result);
void pef_statistics_f64(const double *x, size_t count, struct pef_statistics *result);

/// How two runs of elements differ; the first five figures are of the pairs of finite elements.
/// NaN equals NaN whatever its bits, and 0 equals -0.
struct pef_comparison {
  double largest;                         // of |a - b|
  double change, left, right, products;   // sums of (a - b)^2, a^2, b^2 and a b
  uint64_t differing;                     // pairs that are not equal
  uint64_t beyond;     // of those, the pairs without |a - b| <= atol + rtol |b|
  uint64_t nonfinite;  // of those, the pairs with a NaN or an infinity
};
void pef_compare_f32(const float *a, const float *b, size_t count, double atol, double rtol,
                     struct pef_comparison *result);
void pef_compare_f64(const double *a, const double *b, size_t count, double atol, double rtol,
                     struct pef_comparison *result);

/// The values of the sixteen codes.
void pef_levels4(enum pef_code4 code, float *levels);
/// The values of the 256 codes that double quantization gives the blocks' scales.
void pef_levels8(float *levels);

/// Codes elements, two a byte, the first in the high half, and keeps the largest magnitude of each
/// block; block_size is a multiple of 32. The last block may be shorter, and an odd last element is
/// followed by the code of 0. The bits are those of bitsandbytes 0.50.2 on a CPU (quantize_4bit in
/// backends/default/ops.py): x * (1 / absmax), but x / absmax in a short last block, and a value
/// midway between two codes gets the lower. A block with a NaN has absmax NaN and the highest code.
void pef_quantize4(enum pef_code4 code, const float *x, size_t count, size_t block_size,
                   uint8_t *packed, float *absmax);

/// The scales alone of what pef_quantize4 would code, for elements of F32, F16 or BF16.
void pef_absmax(enum pef_dtype dtype, const void *x, size_t count, size_t block_size,
                float *absmax);

/// y = level * absmax, in f32.
void pef_dequantize4(enum pef_code4 code, const uint8_t *packed, const float *absmax,
                     size_t count, size_t block_size, float *y);

/// The elements that share a scale in double quantization.
enum { PEF_NESTED_BLOCK = 256 };

/// Codes elements in 8 bits, and keeps the largest magnitude of each PEF_NESTED_BLOCK: the bits of
/// bitsandbytes 0.50.2 on an x86-64 (quantize_cpu in csrc/cpu_ops.cpp), which are not always the
/// nearest code's.
void pef_quantize8(const float *x, size_t count, uint8_t *codes, float *absmax);

/// y = map[code] * absmax + offset, each step rounded to f32; map has 256 values.
void pef_dequantize8(const float *map, const uint8_t *codes, const float *absmax, size_t count,
                     float offset, float *y);

/// Codes the rows of a matrix as round(x * ((1 / absmax) * 127)), ties to even, with absmax of each
/// row.
void pef_quantize_int8(const float *x, size_t rows, size_t columns, int8_t *codes,
                       float *absmax);

/// y = code * absmax * (1 / 127), the last factor rounded to f32 first.
void pef_dequantize_int8(const int8_t *codes, const float *absmax, size_t rows, size_t columns,
                         float *y);

/// Which zero points groups may have: 0 to 15, 1 to 15, or 8 alone.
enum pef_zero_rule { PEF_ZERO_FROM_0, PEF_ZERO_FROM_1, PEF_ZERO_8 };

/// Codes groups of consecutive elements in 4 bits, two a byte, the first in the low half:
/// low = min(x, 0) and high = max(x, 0) of a group, -1 and 1 where both are 0; scale = (high - low)
/// / 15, rounded to dtype (F32, F16 or BF16); zero = round(-low / scale); code = round(x / scale) +
/// zero, cut to 0 … 15; ties to even. PEF_ZERO_FROM_1: where zero would be 0, scale = high / 14 and
/// zero = 1. PEF_ZERO_8: scale = 2 * max(|low|, high) / 15. Each step is rounded to f32: AutoGPTQ's
/// Quantizer (quantization/quantizer.py) without its search. A scale of 0 in dtype becomes that of
/// zeros, and one is NaN or infinite where an element is, or dtype does not hold it. group_size is
/// 32, 64 or 128, and count a multiple of it.
void pef_quantize_groups4(const float *x, size_t count, size_t group_size,
                          enum pef_zero_rule rule, enum pef_dtype dtype, uint8_t *packed,
                          float *scales, float *zeros);

/// What a group has besides its scale: y = scale * (code - zero), or y = scale * code + offset.
enum pef_shift { PEF_ZEROS, PEF_OFFSETS };

/// The values of a tile of a matrix of such codes, whose rows have `row` elements, an even number,
/// and ⌈row / group_size⌉ scales: `rows` rows from first_row, `columns` elements of each from
/// first_column. Each step is rounded to f32. `group_of` has the group of each column; NULL where
/// that is column / group_size.
void pef_dequantize_groups4_tile(const uint8_t *packed, const float *scales, const float *shifts,
                                 enum pef_shift shift, const int32_t *group_of,
                                 size_t group_size, size_t row, size_t first_row,
                                 size_t first_column, size_t rows, size_t columns, float *tile);

/// Where eight numbers of 4 bits lie in a word: number k in nibble k, the lowest first, or in
/// AWQ's order, in nibble 0, 4, 1, 5, 2, 6, 3, 7.
enum pef_nibble_order { PEF_IN_ORDER, PEF_AWQ_ORDER };

/// Packs `count` zero points, a multiple of 8, as (zero - less) mod 16; and (nibble + less) mod 16
/// of them again.
void pef_pack_nibbles(const float *values, size_t count, enum pef_nibble_order order,
                      unsigned less, uint32_t *words);
void pef_unpack_nibbles(const uint32_t *words, size_t count, enum pef_nibble_order order,
                        unsigned less, float *values);

/// words (columns, rows / 8) = packed codes (rows, columns), eight rows a word in AWQ's order, and
/// back; rows and columns are multiples of 8.
void pef_pack_awq(const uint8_t *packed, size_t rows, size_t columns, uint32_t *words);
void pef_unpack_awq(const uint32_t *words, size_t rows, size_t columns, uint8_t *packed);

/// HQQ's bytes first to first + count of packed codes, of which there are `total`, a multiple of 4:
/// byte k has code k in its high half and code total / 2 + k in its low half. And all packed codes
/// of all bytes again.
void pef_pack_halves(const uint8_t *packed, size_t total, size_t first, size_t count,
                     uint8_t *bytes);
void pef_unpack_halves(const uint8_t *bytes, size_t total, uint8_t *packed);

/// The same codes in blocks of Q4_1, scales and offsets rounded to f16, an offset of a zero point
/// being -scale * zero in f32 before; group_size and count are multiples of 32.
void pef_pack_q4_1(const uint8_t *packed, const float *scales, const float *shifts,
                   enum pef_shift shift, size_t group_size, size_t count, void *blocks);

/// to (columns, rows) = the transpose of from (rows, columns), of elements of 2 or 4 bytes.
void pef_transpose(size_t element_size, const void *from, size_t rows, size_t columns, void *to);

/// The mean as torch 2.13 computes it in f32, with one thread and AVX2 or AVX-512; count is not 0.
float pef_mean(const float *x, size_t count);

/// Byte planes: plane k holds byte k of every element, the lowest byte first, and plane k + 1
/// follows it. `width` is 1, 2, 4 or 8 bytes. `lowers_sign`, for the widths 2 and 4, first puts the
/// sign of a float with 8 bits of exponent below the exponent, so that the exponent is a plane by
/// itself. At any address.
void pef_split_planes(const void *from, uint8_t *to, size_t count, size_t width, int lowers_sign);
/// The elements of their planes again.
void pef_join_planes(const uint8_t *from, void *to, size_t count, size_t width, int raises_sign);

/// difference = x - base, of integers of 1, 2, 4 or 8 bytes that wrap around, with the differences
/// 0, -1, 1, -2, … numbered 0, 1, 2, 3, …. At any address.
void pef_subtract(const void *x, const void *base, void *difference, size_t count, size_t width);
/// x = base + difference: what `pef_subtract` has taken apart.
void pef_add_difference(const void *difference, const void *base, void *x, size_t count,
                        size_t width);
#endif
