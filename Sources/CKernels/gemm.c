#include "training.h"
#include "dispatch.h"

#include <string.h>

// A tile of the product stays in registers while k runs by. Which tile, and how much of a and b is
// used before the next, is a matter of registers and caches; what happens to one element is not.

// b's rows that are used at a time, and whose products are added up before they are added to what
// is there: a panel of so many (16 KiB) stays in the first cache.
enum { DEPTH = PEF_DEPTH };
// a's rows that are used at a time: so many (96 KiB) stay in the second cache.
enum { HEIGHT = 96 };

typedef float vector __attribute__((ext_vector_type(PEF_PANEL), aligned(sizeof(float))));

// Rows of one or two panels of c.
__attribute__((always_inline)) static inline void tile(
    float *c, size_t c_row, const float *a, size_t a_row, size_t a_column, const float *b,
    size_t b_row, size_t b_panel, size_t k, int accumulate, const size_t rows,
    const size_t panels) {
  vector sums[12][2];
#pragma clang loop unroll(full)
  for (size_t i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (size_t p = 0; p < panels; p++)
      sums[i][p] = (vector)0.0f;
  // Results that are added to are seldom in the first cache.
#pragma clang loop unroll(full)
  for (size_t i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (size_t p = 0; p < panels; p++) __builtin_prefetch(c + i * c_row + p * PEF_PANEL, 1);
  // Three rows a base: what an address of the processor's can add up.
  const float *bases[4] = {a, a + 3 * a_row, a + 6 * a_row, a + 9 * a_row};
#pragma clang loop unroll_count(4)
  for (size_t l = 0; l < k; l++, b += b_row) {
#pragma clang loop unroll(full)
    for (size_t i = 0; i < rows; i++) {
      vector factor = (vector)bases[i / 3][i % 3 * a_row];
#pragma clang loop unroll(full)
      for (size_t p = 0; p < panels; p++)
        sums[i][p] = __builtin_elementwise_fma(factor, *(const vector *)(b + p * b_panel),
                                               sums[i][p]);
    }
#pragma clang loop unroll(full)
    for (size_t j = 0; j < 4; j++) bases[j] += a_column;
  }
#pragma clang loop unroll(full)
  for (size_t i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (size_t p = 0; p < panels; p++) {
      vector *result = (vector *)(c + i * c_row + p * PEF_PANEL);
      *result = accumulate ? *result + sums[i][p] : sums[i][p];
    }
}

// All rows of one or two panels: tiles of so many rows, then of fewer.
__attribute__((always_inline)) static inline void column(
    float *c, size_t c_row, const float *a, size_t a_row, size_t a_column, const float *b,
    size_t b_row, size_t b_panel, size_t m, size_t k, int accumulate, const size_t rows,
    const size_t panels) {
  size_t i = 0;
#define TILES(count)                                                                    \
  for (; i + count <= m; i += count)                                                    \
    tile(c + i * c_row, c_row, a + i * a_row, a_row, a_column, b, b_row, b_panel, k,    \
         accumulate, count, panels);
  TILES(rows)
  if (rows > 8) TILES(8)
  if (rows > 4) TILES(4)
  if (rows > 2) TILES(2)
  TILES(1)
#undef TILES
}

__attribute__((always_inline)) static inline void gemm(
    float *c, size_t c_row, const float *a, size_t a_row, size_t a_column, const float *b,
    size_t b_row, size_t b_panel, size_t m, size_t n, size_t k, int accumulate,
    const size_t rows, const size_t panels) {
  if (k == 0 && !accumulate)
    for (size_t i = 0; i < m; i++) memset(c + i * c_row, 0, n * sizeof(float));
  const size_t whole = n / PEF_PANEL, rest = n % PEF_PANEL;
  for (size_t l = 0; l < k; l += DEPTH) {
    const size_t depth = k - l < DEPTH ? k - l : DEPTH;
    const int add = accumulate || l > 0;
    for (size_t i = 0; i < m; i += HEIGHT) {
      const size_t height = m - i < HEIGHT ? m - i : HEIGHT;
      const float *left = a + i * a_row + l * a_column, *right = b + l * b_row;
      float *product = c + i * c_row;
      size_t left_row = a_row, left_column = a_column;
      float block[(HEIGHT + PEF_PANEL) * (DEPTH + PEF_PANEL)];
      // Rows that are pages apart would push each other out of the first cache.
      if (a_column == 1 && a_row % PEF_PAGE == 0) {
        left_row = DEPTH + PEF_PANEL;
        for (size_t j = 0; j < height; j++)
          memcpy(block + j * left_row, left + j * a_row, depth * sizeof(float));
        left = block;
      } else if (a_row == 1 && a_column >= HEIGHT) {
        // Of a transpose, each row is a part of one that is long.
        left_column = HEIGHT + PEF_PANEL;
        for (size_t j = 0; j < depth; j++)
          memcpy(block + j * left_column, left + j * a_column, height * sizeof(float));
        left = block;
      }
      size_t p = 0;
      for (; p + panels <= whole; p += panels)
        column(product + p * PEF_PANEL, c_row, left, left_row, left_column, right + p * b_panel,
               b_row, b_panel, height, depth, add, rows, panels);
      for (; panels > 1 && p < whole; p++)
        column(product + p * PEF_PANEL, c_row, left, left_row, left_column, right + p * b_panel,
               b_row, b_panel, height, depth, add, rows, 1);
      if (rest == 0) continue;
      // Part of a panel: in copies that are whole.
      float columns[DEPTH * PEF_PANEL], results[HEIGHT * PEF_PANEL];
      memset(columns, 0, depth * PEF_PANEL * sizeof(float));
      for (size_t j = 0; j < depth; j++)
        memcpy(columns + j * PEF_PANEL, right + p * b_panel + j * b_row, rest * sizeof(float));
      if (add)
        for (size_t j = 0; j < height; j++)
          memcpy(results + j * PEF_PANEL, product + p * PEF_PANEL + j * c_row,
                 rest * sizeof(float));
      column(results, PEF_PANEL, left, left_row, left_column, columns, PEF_PANEL, 0, height,
             depth, add, rows, 1);
      for (size_t j = 0; j < height; j++)
        memcpy(product + p * PEF_PANEL + j * c_row, results + j * PEF_PANEL,
               rest * sizeof(float));
    }
  }
}

// The usual products, of rows as they lie or of a transpose and of panels, with the distances
// known: fewer instructions, which tells where two threads share a core.
__attribute__((always_inline)) static inline void gemm_known(
    float *c, size_t c_row, const float *a, size_t a_row, size_t a_column, const float *b,
    size_t b_row, size_t b_panel, size_t m, size_t n, size_t k, int accumulate,
    const size_t rows, const size_t panels) {
  if (a_column == 1 && b_row == PEF_PANEL)
    gemm(c, c_row, a, a_row, 1, b, PEF_PANEL, b_panel, m, n, k, accumulate, rows, panels);
  else if (a_row == 1 && b_row == PEF_PANEL)
    gemm(c, c_row, a, 1, a_column, b, PEF_PANEL, b_panel, m, n, k, accumulate, rows, panels);
  else
    gemm(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate, rows, panels);
}

#if defined(__x86_64__)
PEF_V4 static void gemm_v4(float *c, size_t c_row, const float *a, size_t a_row, size_t a_column,
                           const float *b, size_t b_row, size_t b_panel, size_t m, size_t n,
                           size_t k, int accumulate) {
  gemm_known(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate, 12, 2);
}

PEF_V3 static void gemm_v3(float *c, size_t c_row, const float *a, size_t a_row, size_t a_column,
                           const float *b, size_t b_row, size_t b_panel, size_t m, size_t n,
                           size_t k, int accumulate) {
  gemm_known(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate, 6, 1);
}
#endif

void pef_gemm_f32(float *c, size_t c_row, const float *a, size_t a_row, size_t a_column,
                  const float *b, size_t b_row, size_t b_panel, size_t m, size_t n, size_t k,
                  int accumulate) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) {
    gemm_v4(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate);
    return;
  }
  if (__builtin_cpu_supports("x86-64-v3")) {
    gemm_v3(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate);
    return;
  }
#endif
  gemm_known(c, c_row, a, a_row, a_column, b, b_row, b_panel, m, n, k, accumulate, 4, 1);
}

typedef float eight __attribute__((ext_vector_type(8), aligned(sizeof(float))));

// The transpose of a square of 8 by 8: pairs, then fours, then halves change places.
__attribute__((always_inline)) static inline void transpose8(float *to, size_t to_row,
                                                             const float *from, size_t row) {
  eight x[8], pairs[8], fours[8];
#pragma clang loop unroll(full)
  for (size_t i = 0; i < 8; i++) x[i] = *(const eight *)(from + i * row);
#pragma clang loop unroll(full)
  for (size_t i = 0; i < 8; i += 2) {
    pairs[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma clang loop unroll(full)
  for (size_t i = 0; i < 8; i += 4)
#pragma clang loop unroll(full)
    for (size_t j = 0; j < 2; j++) {
      const eight a = pairs[i + j], b = pairs[i + j + 2];
      fours[i + 2 * j] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      fours[i + 2 * j + 1] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma clang loop unroll(full)
  for (size_t i = 0; i < 4; i++) {
    const eight a = fours[i], b = fours[i + 4];
    *(eight *)(to + i * to_row) = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    *(eight *)(to + (i + 4) * to_row) =
        __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

PEF_CLONES void pef_transpose_panels_f32(float *restrict panels, const float *restrict x,
                                         size_t row, size_t rows, size_t columns) {
  for (size_t j = 0; j < rows; j += PEF_PANEL) {
    float *panel = panels + j * columns;
    const float *from = x + j * row;
    const size_t width = rows - j < PEF_PANEL ? rows - j : PEF_PANEL;
    if (width == PEF_PANEL) {
      size_t l = 0;
      for (; l + 8 <= columns; l += 8)
        for (size_t i = 0; i < PEF_PANEL; i += 8)
          transpose8(panel + l * PEF_PANEL + i, PEF_PANEL, from + i * row + l, row);
      for (; l < columns; l++)
        for (size_t i = 0; i < PEF_PANEL; i++) panel[l * PEF_PANEL + i] = from[i * row + l];
      continue;
    }
    for (size_t l = 0; l < columns; l++) {
      for (size_t i = 0; i < width; i++) panel[l * PEF_PANEL + i] = from[i * row + l];
      for (size_t i = width; i < PEF_PANEL; i++) panel[l * PEF_PANEL + i] = 0;
    }
  }
}

PEF_CLONES void pef_copy_panels_f32(float *restrict panels, size_t panel, const float *restrict x,
                                    size_t row, size_t rows, size_t columns) {
  for (size_t j = 0; j < columns; j += PEF_PANEL, panels += panel) {
    const size_t width = columns - j < PEF_PANEL ? columns - j : PEF_PANEL;
    if (width == PEF_PANEL) {
      for (size_t i = 0; i < rows; i++)
        memcpy(panels + i * PEF_PANEL, x + i * row + j, PEF_PANEL * sizeof(float));
      continue;
    }
    memset(panels, 0, rows * PEF_PANEL * sizeof(float));
    for (size_t i = 0; i < rows; i++)
      memcpy(panels + i * PEF_PANEL, x + i * row + j, width * sizeof(float));
  }
}
