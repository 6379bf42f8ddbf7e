"""Builds Sources/CKernels as a shared library and wraps it for numpy."""

import ctypes
import pathlib
import re
import shutil
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "Sources/CKernels"
# As Package.swift has them.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror"]

# A number per dtype, as in CKernels.h, and the integer type that holds its bits.
DTYPES = {
    "F64": (0, np.uint64),
    "F32": (1, np.uint32),
    "F16": (2, np.uint16),
    "BF16": (3, np.uint16),
    "F8_E4M3": (4, np.uint8),
    "F8_E5M2": (5, np.uint8),
}

# What the kernels promise, one operation after the other; compiled without optimization.
TWINS = """
#include <math.h>
#include <stddef.h>
#define TWINS(REAL, NAME, FMA) \\
  void twin_lowrank_##NAME(REAL *product, const REAL *left, const REAL *right, size_t rows, \\
                           size_t columns, size_t rank, REAL scaling) { \\
    for (size_t i = 0; i < rows; i++) \\
      for (size_t j = 0; j < columns; j++) { \\
        REAL sum = 0; \\
        for (size_t k = 0; k < rank; k++) \\
          sum = FMA(left[i * rank + k], right[k * columns + j], sum); \\
        product[i * columns + j] = sum * scaling; \\
      } \\
  } \\
  void twin_add_change_##NAME(REAL *y, const REAL *x, const REAL *w, REAL weight, size_t n) { \\
    for (size_t i = 0; i < n; i++) y[i] = FMA(weight, x[i] - w[i], y[i]); \\
  } \\
  void twin_add_squares_##NAME(double *sums, const REAL *x, size_t n) { \\
    for (size_t i = 0; i < n; i++) sums[i] = fma((double)x[i], (double)x[i], sums[i]); \\
  } \\
  double twin_sum_squares_##NAME(const REAL *x, const REAL *w, size_t n) { \\
    double sums[16] = {0}; \\
    for (size_t i = 0; i < n; i++) { \\
      double t = (double)x[i] - (w ? (double)w[i] : 0); \\
      sums[i % 16] = fma(t, t, sums[i % 16]); \\
    } \\
    for (size_t half = 8; half > 0; half /= 2) \\
      for (size_t k = 0; k < half; k++) sums[k] += sums[k + half]; \\
    return sums[0]; \\
  } \\
  void twin_rows_times_vector_##NAME(REAL *y, const REAL *w, size_t row, const REAL *x, \\
                                     size_t rows, size_t columns) { \\
    for (size_t i = 0; i < rows; i++) { \\
      REAL sums[16] = {0}; \\
      for (size_t j = 0; j < columns; j++) \\
        sums[j % 16] = FMA(w[i * row + j], x[j], sums[j % 16]); \\
      for (size_t half = 8; half > 0; half /= 2) \\
        for (size_t k = 0; k < half; k++) sums[k] += sums[k + half]; \\
      y[i] = sums[0]; \\
    } \\
  }
TWINS(float, f32, fmaf)
TWINS(double, f64, fma)
"""

# Each does what those before it do.
ARCHITECTURES = ["x86-64", "x86-64-v3", "x86-64-v4"]
# The 4-bit codes, as in types.h.
CODES4 = {"nf4": 0, "fp4": 1}

REALS = {"f32": (np.float32, ctypes.c_float), "f64": (np.float64, ctypes.c_double)}


class Statistics(ctypes.Structure):
    _fields_ = [(n, ctypes.c_double) for n in ("minimum", "maximum", "sum", "squares")] + [
        (n, ctypes.c_uint64) for n in ("zeros", "nans", "infinities")
    ]


class Comparison(ctypes.Structure):
    _fields_ = [
        (n, ctypes.c_double) for n in ("largest", "change", "left", "right", "products")
    ] + [(n, ctypes.c_uint64) for n in ("differing", "beyond", "nonfinite")]


def compile_library(sources, include, output, flags):
    subprocess.run(
        ["clang", *flags, "-shared", "-fPIC", f"-I{include}", *map(str, sources), "-lm", "-o",
         str(output)],
        check=True,
    )
    return ctypes.CDLL(str(output))


def build(folder):
    """The library as peftool has it: the processor chooses among the variants."""
    return Kernels(
        compile_library(sorted(SOURCES.glob("*.c")), SOURCES / "include",
                        folder / "dispatched.so", FLAGS)
    )


def build_variant(folder, architecture):
    """The library for one kind of processor only, with no choice at run time."""
    copy = folder / architecture
    shutil.copytree(SOURCES, copy)

    def includes(other):
        return ARCHITECTURES.index(other) <= ARCHITECTURES.index(architecture)

    for path in [*copy.glob("*.h"), *copy.glob("*.inc")]:
        text = re.sub(r"#if defined\(__x86_64__\)", "#if 0", path.read_text())
        # What the whole library is compiled for, or less, no kernel asks for by itself.
        path.write_text(re.sub(
            r'\btarget\("arch=([\w-]+)"\)(, )?',
            lambda found: "" if includes(found[1]) else found[0], text))
    for path in copy.glob("*.c"):
        # What is written for one kind of processor, the others pass over.
        path.write_text(re.sub(
            r'__builtin_cpu_supports\("([\w-]+)"\)',
            lambda found: str(int(includes(found[1]))), path.read_text()))
    return Kernels(
        compile_library(sorted(copy.glob("*.c")), copy / "include",
                        folder / f"{architecture}.so", [*FLAGS, f"-march={architecture}"])
    )


def build_variants(folder):
    """The same kernels for each kind of processor that this machine can stand in for."""
    with open("/proc/cpuinfo") as file:
        flags = set(next(line for line in file if line.startswith("flags")).split())
    found = [("x86-64", set()), ("x86-64-v3", {"avx2", "fma"}), ("x86-64-v4", {"avx512vl"})]
    return [build_variant(folder, name) for name, needs in found if needs <= flags]


def build_twins(folder):
    source = folder / "twins.c"
    source.write_text(TWINS)
    return compile_library([source], folder, folder / "twins.so", ["-O0", "-ffp-contract=off"])


def pointer(array):
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def size(n):
    return ctypes.c_size_t(n)


class Kernels:
    """One build of the library; arrays of bits in and out where the dtype has no numpy type."""

    def __init__(self, library):
        self.library = library

    def widen(self, dtype, bits, real):
        out = np.empty(bits.size, REALS[real][0])
        getattr(self.library, f"pef_widen_{real}")(
            DTYPES[dtype][0], pointer(bits), pointer(out), size(bits.size))
        return out

    def narrow(self, dtype, values, real):
        assert values.dtype == REALS[real][0]
        out = np.empty(values.size, DTYPES[dtype][1])
        getattr(self.library, f"pef_narrow_{real}")(
            DTYPES[dtype][0], pointer(values), pointer(out), size(values.size))
        return out

    def count_nonfinite(self, dtype, bits):
        function = self.library.pef_count_nonfinite
        function.restype = ctypes.c_size_t
        return function(DTYPES[dtype][0], pointer(bits), size(bits.size))

    def lowrank(self, real, left, right, scaling, prefix="pef"):
        rows, rank = left.shape
        columns = right.shape[1]
        out = np.full((rows, columns), np.nan, REALS[real][0])
        getattr(self.library, f"{prefix}_lowrank_{real}")(
            pointer(out), pointer(left), pointer(right), size(rows), size(columns), size(rank),
            REALS[real][1](scaling))
        return out

    def rows_times_vector(self, w, x, prefix="pef"):
        """Each row of w, of which x may have fewer elements, times x, in f32."""
        out = np.full(w.shape[0], np.nan, np.float32)
        getattr(self.library, f"{prefix}_rows_times_vector_f32")(
            pointer(out), pointer(w), size(w.shape[1]), pointer(x), size(w.shape[0]), size(x.size))
        return out

    def weights_times_vector(self, dtype, bits, x):
        """The same of the bits of a dtype."""
        out = np.full(bits.shape[0], np.nan, np.float32)
        self.library.pef_weights_times_vector_f32(
            DTYPES[dtype][0], pointer(bits), size(bits.shape[1]), pointer(x), size(bits.shape[0]),
            size(x.size), pointer(out))
        return out

    def codes4(self, code, packed, absmax, block_size, first, rows, columns):
        """Rows without gaps of 4-bit codes, in f32."""
        out = np.full((rows, columns), np.nan, np.float32)
        self.library.pef_dequantize4_tile(
            CODES4[code], pointer(packed), pointer(absmax), size(block_size), size(first),
            size(columns), size(rows), size(columns), pointer(out))
        return out

    def codes4_times_vector(self, code, packed, absmax, block_size, first, rows, x):
        out = np.full(rows, np.nan, np.float32)
        self.library.pef_codes4_times_vector_f32(
            CODES4[code], pointer(packed), pointer(absmax), size(block_size), size(first),
            pointer(x), size(rows), size(x.size), pointer(out))
        return out

    def in_place(self, name, real, y, *arguments):
        """Calls a kernel that changes a copy of `y`; numbers in `arguments` are factors."""
        out = y.copy()
        values = [
            pointer(a) if isinstance(a, np.ndarray) else REALS[real][1](a) for a in arguments
        ]
        getattr(self.library, f"{name}_{real}")(pointer(out), *values, size(out.size))
        return out

    def sum(self, name, real, *arrays):
        function = getattr(self.library, f"{name}_{real}")
        function.restype = ctypes.c_double
        values = [None if a is None else pointer(a) for a in arrays]
        return function(*values, size(arrays[0].size))

    def statistics(self, real, x):
        result = Statistics()
        getattr(self.library, f"pef_statistics_{real}")(
            pointer(x), size(x.size), ctypes.byref(result))
        return result

    def compare(self, real, a, b, atol, rtol):
        result = Comparison()
        getattr(self.library, f"pef_compare_{real}")(
            pointer(a), pointer(b), size(a.size), ctypes.c_double(atol), ctypes.c_double(rtol),
            ctypes.byref(result))
        return result
