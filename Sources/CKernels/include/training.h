/// What training computes: matrix products, and the layers of a language model, each forward and
/// backward. The rules of CKernels.h hold; everything is f32.
#ifndef PEF_TRAINING_H
#define PEF_TRAINING_H
#include <stddef.h>
#include <stdint.h>

#include "types.h"

/// A tile of a matrix in f32, without gaps: `rows` rows of `columns` elements, which are `row`
/// elements apart in the matrix. Exact, but for F64, which rounds to nearest even.
void pef_widen_tile_f32(enum pef_dtype dtype, const void *from, size_t row, size_t rows,
                        size_t columns, float *tile);

/// The same of a matrix whose elements pef_quantize4 has coded row after row, in blocks of an even
/// size: the tile begins at the matrix's element `first`.
void pef_dequantize4_tile(enum pef_code4 code, const uint8_t *packed, const float *absmax,
                          size_t block_size, size_t first, size_t row, size_t rows,
                          size_t columns, float *tile);

/// The same of codes of pef_quantize_int8, with the scales of the tile's rows.
void pef_dequantize_int8_tile(const int8_t *codes, const float *absmax, size_t row, size_t rows,
                              size_t columns, float *tile);

/// The columns of a panel.
enum { PEF_PANEL = 16 };

/// The floats of a page of 4096 bytes: addresses so far apart share a place in the first cache.
enum { PEF_PAGE = 1024 };

/// The products that are added up in one chain.
enum { PEF_DEPTH = 256 };

/// c = a . b, or c += a . b: c (m, n), a (m, k), b (k, n).
///
/// Rows of c are c_row apart; a's element (i, l) is a[i * a_row + l * a_column]; b's element (l, j)
/// is b[j / PEF_PANEL * b_panel + l * b_row + j % PEF_PANEL]: a matrix as it lies has b_panel
/// PEF_PANEL. Each element of c is a chain of fused multiply-adds from 0 over PEF_DEPTH of k in
/// ascending order, to which the next such chain is added, and so on, or all in that order to what
/// it was: no tile and no processor changes it, and sums of thousands keep their digits. c overlaps
/// neither a nor b.
void pef_gemm_f32(float *c, size_t c_row, const float *a, size_t a_row, size_t a_column,
                  const float *b, size_t b_row, size_t b_panel, size_t m, size_t n, size_t k,
                  int accumulate);

/// The transpose of x (rows, columns), rows `row` apart, in panels: element (l, j) of the result,
/// which is x's (j, l), is at j / PEF_PANEL * columns * PEF_PANEL + l * PEF_PANEL + j % PEF_PANEL.
/// What the last panel lacks of rows is 0.
void pef_transpose_panels_f32(float *panels, const float *x, size_t row, size_t rows,
                              size_t columns);

/// x (rows, columns), rows `row` apart, in panels that begin `panel` floats apart: element (i, j)
/// is at j / PEF_PANEL * panel + i * PEF_PANEL + j % PEF_PANEL. What the last panel lacks of
/// columns is 0.
void pef_copy_panels_f32(float *panels, size_t panel, const float *x, size_t row, size_t rows,
                         size_t columns);

/// y = w * x * rho, rho = 1 / sqrt(mean(x * x) + epsilon) of each row (rows, columns).
void pef_rmsnorm_forward_f32(float *y, float *rho, const float *x, const float *w, size_t rows,
                             size_t columns, float epsilon);

/// dx += rho * (g - x^ * mean(g * x^)) with x^ = x * rho and g = w * dy.
void pef_rmsnorm_backward_f32(float *dx, const float *dy, const float *x, const float *rho,
                              const float *w, size_t rows, size_t columns);

/// dw += the sum over the rows of dy * x * rho; rows of dy and x are `row` apart.
void pef_rmsnorm_weight_f32(float *dw, const float *dy, const float *x, const float *rho,
                            size_t row, size_t rows, size_t columns);

/// Turns each head of each row: pairs (i, i + size / 2) by the angle whose cosine and sine stand in
/// row position[row] of the tables (positions, size / 2); backwards with inverse. Rows of x are
/// `row` apart and hold `heads` heads of `size`.
void pef_rope_f32(float *x, size_t row, size_t rows, size_t heads, size_t size,
                  const int32_t *positions, const float *cosines, const float *sines, int inverse);

/// m = silu(a) * b.
void pef_swiglu_forward_f32(float *m, const float *a, const float *b, size_t count);

/// da and db from dm, which da holds before.
void pef_swiglu_backward_f32(float *da, float *db, const float *a, const float *b, size_t count);

/// The rows of queries, and of keys, that attention takes at a time.
enum { PEF_QUERIES = 48, PEF_KEYS = 64 };

/// One head of one sequence. Rows of q, o are q_row apart, of k, v are k_row apart.
struct pef_attention {
  const float *q, *k, *v;
  size_t q_row, k_row;
  size_t count, size;  // tokens, and elements of a head
  size_t window;       // how many keys a query sees, its own included; 0 for all
  float scaling;       // of the scores
};

/// The floats that the two functions below need as scratch.
size_t pef_attention_scratch(size_t count, size_t size);

/// o = softmax(scaling * q . k^T) . v, causal; lse is the logarithm of each row's sum of
/// exponentials. Streamed: no matrix of scores.
void pef_attention_forward_f32(const struct pef_attention *head, float *o, float *lse,
                               float *scratch);

/// The same for the tokens from `first` on, whose queries q holds, where the keys of all lie in
/// panels of a cache, which k points to: the same numbers, whatever was computed before. Scratch as
/// for a sequence of no tokens.
void pef_attention_cached_f32(const struct pef_attention *head, size_t first, float *o,
                              float *scratch);

/// The rows of x (rows, columns), rows `row` apart, as columns `first` and following of the panels
/// of pef_transpose_panels_f32.
void pef_append_panels_f32(float *panels, size_t first, const float *x, size_t row, size_t rows,
                           size_t columns);

/// dq, dk and dv from d_out, which has o's layout, as dq; rows of dk and dv are dk_row apart.
void pef_attention_backward_f32(const struct pef_attention *head, const float *o, const float *lse,
                                const float *d_out, float *dq, float *dk, float *dv,
                                size_t dk_row, float *scratch);

/// The loss of each row of logits (rows, columns): lse(z) - z[label]. With a scale, z becomes
/// dz = scale * (softmax(z) - onehot).
void pef_cross_entropy_f32(float *z, const int32_t *labels, double *losses, size_t rows,
                           size_t columns, float scale, int backward);

/// y = y * factors + offsets, column by column; either may be null. Rows of y are `row` apart.
void pef_scale_columns_f32(float *y, size_t row, size_t rows, size_t columns,
                           const float *factors, const float *offsets);

/// sums[j] += the sum over the rows of x * (y - offsets[j]); offsets may be null, and y with them,
/// for the sum of x alone.
void pef_column_products_f32(float *sums, const float *x, size_t x_row, const float *y,
                             size_t y_row, size_t rows, size_t columns, const float *offsets);

/// y = x * factors, element by element; rows of each are its `row` apart.
void pef_multiply_elements_f32(float *y, size_t y_row, const float *x, size_t x_row,
                               const float *factors, size_t factors_row, size_t rows,
                               size_t columns);

/// y += x * factors, likewise, in one rounding.
void pef_add_products_f32(float *y, size_t y_row, const float *x, size_t x_row,
                          const float *factors, size_t factors_row, size_t rows, size_t columns);

/// y = y * factors[row] - x of rows without gaps, in one rounding.
void pef_scale_rows_minus_f32(float *y, const float *factors, const float *x, size_t rows,
                              size_t columns);

/// y: each of `count` floats of x `group` times.
void pef_repeat_columns_f32(float *y, const float *x, size_t count, size_t group);

/// y += the sums of `count` groups of x, each in f64 in its order and rounded once.
void pef_sum_columns_f32(float *y, const float *x, size_t count, size_t group);

/// Masks of dropout (rows, columns) for the tokens from `first` on: `factor` where one of 65536
/// numbers is below `kept`, 0 elsewhere. Number (row, column) is half-word column % 8 of
/// Philox4x32-10's block row * ceil(columns / 8) + column / 8, under the seed: a counter of that
/// number's low word, the batch, and the stream.
void pef_dropout_f32(float *mask, size_t first, size_t rows, size_t columns, uint64_t seed,
                     uint64_t stream, uint32_t batch, uint32_t kept, float factor);

/// y's group g is the sum of x's heads g * repeats to (g + 1) * repeats, in that order.
void pef_fold_heads_f32(float *y, size_t y_row, const float *x, size_t x_row, size_t rows,
                        size_t groups, size_t repeats, size_t size);

/// The product of each row of w (rows, columns) with x, over 16 partial sums.
void pef_rows_times_vector_f32(float *y, const float *w, size_t row, const float *x, size_t rows,
                               size_t columns);

/// y[i] = the product of row i of w, `columns` elements of that type, with x, over 16 partial sums;
/// rows of w are `row` elements apart. Each element is widened as pef_widen_f32 does. Reads what
/// lies in memory once: for one token a model is no faster than that.
void pef_weights_times_vector_f32(enum pef_dtype dtype, const void *w, size_t row, const float *x,
                                  size_t rows, size_t columns, float *y);

/// The same for rows of codes of pef_quantize4, without gaps, the first of which begins at the
/// element `first`: level * absmax, rounded, times x. `columns`, `first` and block_size are
/// multiples of 16.
void pef_codes4_times_vector_f32(enum pef_code4 code, const uint8_t *packed, const float *absmax,
                                 size_t block_size, size_t first, const float *x, size_t rows,
                                 size_t columns, float *y);

/// One step of AdamW (Loshchilov and Hutter 2019), rounded where torch 2.13 rounds on a CPU
/// (`_single_tensor_adamw`): p *= decay; m += (1 - beta1) * (g - m) and v = beta2 * v +
/// ((1 - beta2) * g) * g, both fused; p -= step_size * m / (sqrt(v) / root + epsilon). The square
/// root is the nearest number, which that of torch's vectors is not always. With a decay of 1, a
/// root of 1 and step_size = rate * sqrt(1 - beta2^t) / (1 - beta1^t), it is the step that
/// transformers once had (`optimization.AdamW`), which PEFT's LoraFAOptimizer and GaLore's AdamW
/// have from there: epsilon counts for more in the first steps, and weights decay at the end.
struct pef_adamw {
  float decay;      // 1 - rate * weight decay
  float beta2;
  float one_less_beta1, one_less_beta2;
  float step_size;  // rate / (1 - beta1^t)
  float root;       // sqrt(1 - beta2^t)
  float epsilon;
  float late_decay; // what is added of p once it has moved: -rate * weight decay, or 0
};
void pef_adamw_f32(const struct pef_adamw *step, float *p, float *m, float *v, const float *g,
                   size_t count);

/// The numbers that share a scale of their moments.
enum { PEF_MOMENT_BLOCK = 256 };

/// The same with the moments in 8 bits, as bitsandbytes keeps them: a code, whose value is that of
/// a map from -1 to 1 (of squares from 0 to 1), times the largest of its block. The numbers are
/// moved by the moments before these are coded again, each as the nearest value. bitsandbytes
/// 0.50.2 does so on GPUs; on CPUs it looks codes up by one of 65,536 places, of which none is near
/// 0, so that a square of 0 comes back as 1.5e-5 of the largest.
void pef_adamw8_f32(const struct pef_adamw *step, float *p, uint8_t *m, float *m_scales,
                    uint8_t *v, float *v_scales, const float *g, size_t count);

/// How important each number p with a gradient g is, averaged over the steps, and how far it strays
/// from that average, each in PEFT's roundings (`adalora/layer.py`, update_ipt): i = |p * g|;
/// average = beta1 * average + (1 - beta1) * i; distance likewise of |i - average| with beta2.
struct pef_importance {
  float beta1, one_less_beta1, beta2, one_less_beta2;
};
void pef_importance_f32(const struct pef_importance *step, float *average, float *distance,
                        const float *p, const float *g, size_t count);

#endif
