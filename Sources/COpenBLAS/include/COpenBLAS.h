/// What peftool calls of OpenBLAS, which it opens at run time: CBLAS, LAPACK in its Fortran form
/// (Debian ships no LAPACKE) and what OpenBLAS tells of itself. Integers are 32 bits wide (LP64).
#ifndef COPENBLAS_H
#define COPENBLAS_H
#include <stddef.h>

// CBLAS's enumerations travel as int.
enum { PEF_ROW_MAJOR = 101 };
enum { PEF_AS_IT_IS = 111, PEF_TRANSPOSED = 112 };

/// How a build makes threads.
enum { PEF_WITHOUT_THREADS = 0, PEF_POSIX_THREADS = 1, PEF_OPENMP = 2 };

/// The functions by their own names.
struct pef_openblas {
  /// What dlopen(3) gave.
  void *handle;

  /// c ← alpha·op(a)·op(b) + beta·c, op(a) rows × inner, op(b) inner × columns.
  void (*cblas_sgemm)(int order, int transpose_a, int transpose_b, int rows, int columns,
                      int inner, float alpha, const float *a, int stride_a, const float *b,
                      int stride_b, float beta, float *c, int stride_c);
  void (*cblas_dgemm)(int order, int transpose_a, int transpose_b, int rows, int columns,
                      int inner, double alpha, const double *a, int stride_a, const double *b,
                      int stride_b, double beta, double *c, int stride_c);

  /// b ← alpha·op(a), a rows × columns: an extension of OpenBLAS.
  void (*cblas_somatcopy)(int order, int transpose, int rows, int columns, float alpha,
                          const float *a, int stride_a, float *b, int stride_b);
  void (*cblas_domatcopy)(int order, int transpose, int rows, int columns, double alpha,
                          const double *a, int stride_a, double *b, int stride_b);

  /// QR factorization; matrices of LAPACK are stored by columns.
  void (*sgeqrf_)(const int *rows, const int *columns, float *a, const int *stride, float *tau,
                  float *work, const int *work_count, int *info);
  void (*dgeqrf_)(const int *rows, const int *columns, double *a, const int *stride, double *tau,
                  double *work, const int *work_count, int *info);

  /// The first columns of the Q that geqrf has left as reflectors.
  void (*sorgqr_)(const int *rows, const int *columns, const int *reflectors, float *a,
                  const int *stride, const float *tau, float *work, const int *work_count,
                  int *info);
  void (*dorgqr_)(const int *rows, const int *columns, const int *reflectors, double *a,
                  const int *stride, const double *tau, double *work, const int *work_count,
                  int *info);

  /// SVD by divide and conquer. gfortran passes the length of a string after all other arguments.
  void (*sgesdd_)(const char *job, const int *rows, const int *columns, float *a,
                  const int *stride, float *s, float *u, const int *stride_u, float *vt,
                  const int *stride_vt, float *work, const int *work_count, int *integer_work,
                  int *info, size_t job_length);
  void (*dgesdd_)(const char *job, const int *rows, const int *columns, double *a,
                  const int *stride, double *s, double *u, const int *stride_u, double *vt,
                  const int *stride_vt, double *work, const int *work_count, int *integer_work,
                  int *info, size_t job_length);

  /// The processor whose kernels are in use: a constant string.
  char *(*openblas_get_corename)(void);
  /// How the library was built to make threads.
  int (*openblas_get_parallel)(void);
  int (*openblas_get_num_threads)(void);
};

/// Opens a library and finds the functions in it.
/// Returns null, or what dlerror(3) says of what is missing.
const char *pef_openblas_open(const char *library, struct pef_openblas *openblas);

/// Closes what has been opened. No function may be called any more.
void pef_openblas_close(struct pef_openblas *openblas);
#endif
