"""The C kernels against torch's conversions, an exact oracle and scalar twins."""

import ctypes

import numpy as np
import pytest
import torch
from bitsandbytes.functional import create_dynamic_map

import kernels

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
SMALL = ["F16", "BF16", "F8_E4M3", "F8_E5M2"]
TORCH_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return kernels.build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    return kernels.Kernels(kernels.build_twins(tmp_path_factory.mktemp("twins")))


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return kernels.build_variants(tmp_path_factory.mktemp("variants"))


def patterns(dtype):
    """Every bit pattern of a dtype of one or two bytes."""
    kind = kernels.DTYPES[dtype][1]
    return np.arange(1 << (8 * np.dtype(kind).itemsize), dtype=np.uint32).astype(kind)


def as_torch(bits, dtype):
    signed = bits.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[bits.itemsize])
    return torch.from_numpy(signed.copy()).view(TORCH[dtype])


def torch_bits(tensor):
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[tensor.element_size()]
    return tensor.contiguous().view(TORCH_BITS[tensor.element_size()]).numpy().view(kind)


def is_nan(bits, dtype):
    return torch.isnan(as_torch(bits, dtype).to(torch.float32)).numpy()


def assert_same(found, expected, dtype, inputs=None):
    """Bits are equal; a NaN has its sign and any payload."""
    nan = is_nan(expected, dtype)
    different = np.where(nan, ~is_nan(found, dtype), found != expected)
    if different.any():
        place = np.flatnonzero(different)[:5]
        values = None if inputs is None else [float(v).hex() for v in inputs[place]]
        pytest.fail(f"{different.sum()} differ: {values}: {found[place]}, {expected[place]}")


class Oracle:
    """One correct rounding to nearest even, from the sorted list of a dtype's values."""

    def __init__(self, dtype):
        bits = patterns(dtype)
        half = bits[: bits.size // 2]
        values = as_torch(half, dtype).to(torch.float64).numpy()
        finite = np.isfinite(values)
        self.values, self.bits = values[finite], half[finite]
        assert (np.diff(self.values) > 0).all()
        self.sign = bits.size // 2
        # The step past the largest value; at its middle or beyond comes infinity, or NaN, but
        # the largest of F8_E4M3 is even, so that it takes the middle itself.
        last = self.values[-1] + (self.values[-1] - self.values[-2])
        self.limit = (self.values[-1] + last) / 2
        self.takes_limit = self.bits[-1] % 2 == 0
        self.over = half[np.isposinf(values)][0] if np.isposinf(values).any() else half[-1]
        self.nan = half[-1]

    def round(self, x):
        magnitude = np.abs(x)
        above = np.searchsorted(self.values, magnitude).clip(1, self.values.size - 1)
        low, high = self.values[above - 1], self.values[above]
        # Differences of neighbours are exact in f64: no format here has more than 11 bits.
        middle = (low + high) / 2
        up = (magnitude > middle) | ((magnitude == middle) & (self.bits[above] % 2 == 0))
        result = np.where(up, self.bits[above], self.bits[above - 1])
        result = np.where(magnitude == 0, self.bits[0], result)
        over = magnitude > self.limit if self.takes_limit else magnitude >= self.limit
        result = np.where(over, self.over, result)
        result = np.where(np.isnan(x), self.nan, result)
        return (result + np.where(np.signbit(x), self.sign, 0)).astype(self.bits.dtype)


def hard_values(dtype, real):
    """Random bit patterns, and all values and ties of a dtype with their close neighbours."""
    generator = np.random.default_rng(0)
    kind, unsigned = (np.float32, np.uint32) if real == "f32" else (np.float64, np.uint64)
    oracle = Oracle(dtype)
    values = np.append(oracle.values, oracle.limit)
    ties = np.concatenate([values, (values[1:] + values[:-1]) / 2])
    smallest = np.finfo(kind).smallest_subnormal
    ties = np.concatenate(
        [ties, [smallest, np.finfo(kind).max, np.finfo(kind).tiny, np.inf, np.nan]]).astype(kind)
    with np.errstate(over="ignore", under="ignore"):
        near = [ties, np.nextafter(ties, kind(0)), np.nextafter(ties, kind(np.inf))]
        for distance in (1e-3, 1e-6, 1e-9, 1e-12):
            near += [(ties * (1 + distance)).astype(kind), (ties * (1 - distance)).astype(kind)]
    spread = np.exp(generator.uniform(-30, 30, 300_000)).astype(kind)
    bits = generator.integers(0, np.iinfo(unsigned).max, 300_000, unsigned, endpoint=True)
    all_values = np.concatenate([*near, spread, np.abs(bits.view(kind))])
    return np.concatenate([all_values, -all_values])


@pytest.mark.parametrize("dtype", SMALL)
def test_widening_is_exact(library, dtype):
    bits = patterns(dtype)
    for real, kind in (("f32", torch.float32), ("f64", torch.float64)):
        found = library.widen(dtype, bits, real)
        expected = torch_bits(as_torch(bits, dtype).to(kind))
        assert_same(found.view(expected.dtype), expected, "F32" if real == "f32" else "F64")


@pytest.mark.parametrize("dtype", SMALL)
def test_narrowing_f32_rounds_once_as_torch_does(library, dtype):
    values = hard_values(dtype, "f32")
    found = library.narrow(dtype, values, "f32")
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    assert_same(found, Oracle(dtype).round(wide), dtype, values)
    expected = torch_bits(torch.from_numpy(values).to(TORCH[dtype]))
    if dtype == "F8_E4M3":
        # torch puts 448 for whatever is too large; the kernel tells it from 448.
        with np.errstate(invalid="ignore"):
            over = np.abs(values) > 464
        assert is_nan(found, dtype)[over].all() and (expected[over] & 0x7F == 0x7E).all()
        found, expected, values = found[~over], expected[~over], values[~over]
    assert_same(found, expected, dtype, values)


@pytest.mark.parametrize("dtype", SMALL)
def test_narrowing_f64_rounds_once(library, dtype):
    # torch goes by way of f32 and rounds twice, so that only the oracle can tell.
    values = hard_values(dtype, "f64")
    assert_same(library.narrow(dtype, values, "f64"), Oracle(dtype).round(values), dtype, values)


def test_f64_and_f32_convert_as_torch_does(library):
    values = hard_values("BF16", "f64")
    expected = torch_bits(torch.from_numpy(values).to(torch.float32))
    assert_same(library.narrow("F32", values, "f64"), expected, "F32", values)
    assert_same(library.widen("F64", values, "f32").view(np.uint32), expected, "F32", values)
    floats = expected.view(np.float32)
    wide = torch_bits(torch.from_numpy(floats).to(torch.float64))
    assert_same(library.narrow("F64", floats, "f32"), wide, "F64", floats)
    assert_same(library.widen("F32", expected, "f64").view(np.uint64), wide, "F64", floats)


@pytest.mark.parametrize("dtype", SMALL)
def test_every_pattern_comes_back(library, dtype):
    bits = patterns(dtype)
    for real in kernels.REALS:
        assert_same(library.narrow(dtype, library.widen(dtype, bits, real), real), bits, dtype)


@pytest.mark.parametrize("dtype", list(kernels.DTYPES))
def test_nonfinite_elements_are_counted(library, dtype):
    kind = kernels.DTYPES[dtype][1]
    if dtype in SMALL:
        bits = patterns(dtype)
    else:
        float_kind = np.float32 if dtype == "F32" else np.float64
        bits = hard_values("BF16", "f32" if dtype == "F32" else "f64").astype(float_kind).view(kind)
    expected = int((~torch.isfinite(as_torch(bits, dtype).to(torch.float64))).sum())
    assert expected > 0
    assert library.count_nonfinite(dtype, bits) == expected
    assert library.count_nonfinite(dtype, bits[:7]) == int(
        (~torch.isfinite(as_torch(bits[:7], dtype).to(torch.float64))).sum())


def random(generator, real, *shape):
    return generator.standard_normal(shape).astype(kernels.REALS[real][0])


def odd_sizes():
    generator = np.random.default_rng(1)
    sizes = [(1, 1, 1), (40, 40, 40), (4, 64, 8), (5, 65, 1), (3, 127, 7), (2, 32, 0)]
    return sizes + [tuple(int(v) for v in generator.integers(1, 41, 3)) for _ in range(150)] + [
        (int(generator.integers(1, 10)), int(generator.integers(1, 200)), 4) for _ in range(100)]


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_lowrank_is_the_chain_of_fused_multiply_adds(library, twins, variants, real):
    generator = np.random.default_rng(2)
    for rows, columns, rank in odd_sizes():
        left, right = random(generator, real, rows, rank), random(generator, real, rank, columns)
        found = library.lowrank(real, left, right, 0.3)
        expected = twins.lowrank(real, left, right, 0.3, prefix="twin")
        assert found.tobytes() == expected.tobytes(), (rows, columns, rank)
        for variant in variants:
            assert variant.lowrank(real, left, right, 0.3).tobytes() == expected.tobytes()
        # And the chain is the product that is meant.
        wide = 0.3 * (left.astype(np.float64) @ right.astype(np.float64))
        bound = (rank + 2) * np.finfo(found.dtype).eps * 0.3 * (
            np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64))
        assert (np.abs(found - wide) <= bound + 1e-300).all()


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_sums_keep_their_order(library, twins, variants, real):
    generator = np.random.default_rng(3)
    for count in [0, 1, 15, 16, 17, 31, 32, 33, 100, 1000, 4099]:
        x, w = random(generator, real, count), random(generator, real, count)
        for build in [library, *variants]:
            assert build.sum("pef_sum_squares", real, x) == twins.sum(
                "twin_sum_squares", real, x, None)
            assert build.sum("pef_sum_squared_change", real, x, w) == twins.sum(
                "twin_sum_squares", real, x, w)
            sums = random(generator, "f64", count)
            for name in ("pef", "twin"):
                result = sums.copy()
                getattr((twins if name == "twin" else build).library,
                        f"{name}_add_squares_{real}")(
                    kernels.pointer(result), kernels.pointer(x), kernels.size(count))
                if name == "pef":
                    found = result
            assert found.tobytes() == result.tobytes()
        assert np.isclose(library.sum("pef_sum_squares", real, x),
                          (x.astype(np.float64) ** 2).sum(), rtol=1e-13)


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_elementwise_kernels(library, twins, variants, real):
    generator = np.random.default_rng(4)
    kind = kernels.REALS[real][0]
    for count in [1, 7, 16, 33, 1001]:
        x, w, y = (random(generator, real, count) for _ in range(3))
        for build in [library, *variants]:
            assert (build.in_place("pef_add", real, y, x) == y + x).all()
            assert (build.in_place("pef_multiply", real, y, x) == y * x).all()
            assert (build.in_place("pef_scale", real, y, 0.7) == y * kind(0.7)).all()
            found = build.in_place("pef_add_change", real, y, x, w, -0.3)
            assert (found == twins.in_place("twin_add_change", real, y, x, w, -0.3)).all()


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_statistics(library, variants, real):
    generator = np.random.default_rng(5)
    for count in [1, 16, 50, 3001]:
        x = random(generator, real, count)
        x[::7] = 0
        x[3::11] = np.nan
        x[5::13] = np.inf
        x[6::17] = -np.inf
        finite = x[np.isfinite(x)].astype(np.float64)
        for build in [library, *variants]:
            found = build.statistics(real, x)
            assert (found.minimum, found.maximum) == (finite.min(), finite.max())
            assert np.isclose(found.sum, finite.sum(), rtol=1e-12, atol=1e-12)
            assert np.isclose(found.squares, (finite**2).sum(), rtol=1e-13)
            assert found.zeros == (x == 0).sum()
            assert found.nans == np.isnan(x).sum()
            assert found.infinities == np.isinf(x).sum()
            first = library.statistics(real, x)
            assert bytes(found) == bytes(first)
    empty = library.statistics(real, np.empty(0, kernels.REALS[real][0]))
    assert (empty.minimum, empty.maximum, empty.sum) == (np.inf, -np.inf, 0)


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_comparison(library, variants, real):
    generator = np.random.default_rng(6)
    for count in [1, 16, 50, 3001]:
        a = random(generator, real, count)
        b = a + random(generator, real, count) * kernels.REALS[real][0](1e-3)
        b[::3] = a[::3]
        a[1::7], b[2::7] = np.nan, np.inf
        a[4::21] = b[4::21] = np.nan
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        u, v = a[finite].astype(np.float64), b[finite].astype(np.float64)
        near = np.zeros(count, bool)
        near[finite] = np.abs(u - v) <= 1e-4 + 1e-3 * np.abs(v)
        for build in [library, *variants]:
            found = build.compare(real, a, b, 1e-4, 1e-3)
            assert found.largest == np.abs(u - v).max(initial=0)
            assert np.isclose(found.change, ((u - v) ** 2).sum(), rtol=1e-12)
            assert np.isclose(found.left, (u * u).sum(), rtol=1e-12)
            assert np.isclose(found.right, (v * v).sum(), rtol=1e-12)
            assert np.isclose(found.products, (u * v).sum(), rtol=1e-12)
            assert found.differing == (~same).sum()
            assert found.nonfinite == (~same & ~finite).sum()
            assert found.beyond == (~same & ~near).sum()
            assert bytes(found) == bytes(library.compare(real, a, b, 1e-4, 1e-3))


@pytest.mark.parametrize("dtype", SMALL)
def test_all_processors_convert_alike(library, variants, dtype):
    for real in kernels.REALS:
        values = hard_values(dtype, real)
        expected = library.narrow(dtype, values, real).tobytes()
        wide = library.widen(dtype, patterns(dtype), real).tobytes()
        for variant in variants:
            assert variant.narrow(dtype, values, real).tobytes() == expected
            assert variant.widen(dtype, patterns(dtype), real).tobytes() == wide


def shapes_of_rows():
    """Rows and columns about the four rows and sixteen columns that go at once."""
    return [(rows, columns) for rows in (1, 3, 4, 5, 8, 11)
            for columns in (1, 7, 15, 16, 17, 32, 47, 64, 129, 576)]


@pytest.mark.parametrize("dtype", list(kernels.DTYPES))
def test_weights_are_multiplied_as_they_lie(library, twins, variants, dtype):
    """The same bits as one chain for each of sixteen sums, for any dtype and processor."""
    generator = np.random.default_rng(7)
    for rows, columns in shapes_of_rows():
        row = columns + int(generator.integers(0, 3))
        values = random(generator, "f32", rows * row)
        bits = library.narrow(dtype, values, "f32").reshape(rows, row)
        x = random(generator, "f32", columns)
        wide = library.widen(dtype, bits.ravel(), "f32").reshape(rows, row)
        expected = twins.rows_times_vector(wide, x, prefix="twin")
        for build in [library, *variants]:
            found = build.weights_times_vector(dtype, bits, x)
            assert found.tobytes() == expected.tobytes(), (rows, columns, row)
            assert build.rows_times_vector(wide, x).tobytes() == expected.tobytes()
        exact = wide[:, :columns].astype(np.float64) @ x.astype(np.float64)
        bound = (columns + 2) * np.finfo(np.float32).eps * (
            np.abs(wide[:, :columns]).astype(np.float64) @ np.abs(x).astype(np.float64))
        assert (np.abs(expected - exact) <= bound).all()


@pytest.mark.parametrize("dtype", SMALL)
def test_every_weight_is_multiplied_as_it_is_widened(library, variants, dtype):
    """Each bit pattern alone in a row, in vectors of sixteen and in the rest."""
    bits = patterns(dtype)
    wide = library.widen(dtype, bits, "f32")
    for columns in (1, 16):
        rows = np.zeros((bits.size, columns), bits.dtype)
        rows[:, -1] = bits
        x = np.ones(columns, np.float32)
        with np.errstate(invalid="ignore"):
            expected = (wide + 0).view(np.uint32)
        for build in [library, *variants]:
            found = build.weights_times_vector(dtype, rows, x)
            assert_same(found.view(np.uint32), expected, "F32")


@pytest.mark.parametrize("code", list(kernels.CODES4))
@pytest.mark.parametrize("block_size", [16, 48, 64, 256, 4096])
def test_codes_are_multiplied_as_they_are_read(library, twins, variants, code, block_size):
    generator = np.random.default_rng(8)
    for rows in (1, 2, 5):
        for columns in (16, 32, 48, 128, 576):
            first = 16 * int(generator.integers(0, 20))
            count = first + rows * columns
            packed = generator.integers(0, 256, -(-count // 2), np.uint8)
            absmax = np.abs(random(generator, "f32", -(-count // block_size)))
            x = random(generator, "f32", columns)
            wide = library.codes4(code, packed, absmax, block_size, first, rows, columns)
            assert np.unique(wide / np.abs(wide).max()).size > 8
            expected = twins.rows_times_vector(wide, x, prefix="twin")
            for build in [library, *variants]:
                found = build.codes4_times_vector(
                    code, packed, absmax, block_size, first, rows, x)
                assert found.tobytes() == expected.tobytes(), (rows, columns, first)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("rule", [0, 1, 2])
def test_groups_of_int4(library, variants, group, dtype, rule):
    """The same bytes on every processor; what they are, test_int4 and the Swift tests tell."""
    generator = np.random.default_rng(9)
    rows, columns = 16, 384
    x = random(generator, "f32", rows, columns)
    x[0], x[1], x[2], x[3] = 0, np.abs(x[1]), x[2] * np.float32(1e-42), x[3] * np.float32(1e-6)
    count, groups = rows * columns, rows * columns // group

    def all_of(build):
        packed = np.zeros((rows, columns // 2), np.uint8)
        scales, zeros = (np.zeros(groups, np.float32) for _ in range(2))
        build.library.pef_quantize_groups4(
            kernels.pointer(x), kernels.size(count), kernels.size(group), rule,
            kernels.DTYPES[dtype][0], kernels.pointer(packed), kernels.pointer(scales),
            kernels.pointer(zeros))
        made = [packed, scales, zeros]
        offsets = -scales * zeros
        in_order = np.arange(columns, dtype=np.int32) // group
        for shift, numbers in [(0, zeros), (1, offsets)]:
            for index in [None, kernels.pointer(in_order)]:
                tile = np.full((7, 201), np.nan, np.float32)
                build.library.pef_dequantize_groups4_tile(
                    kernels.pointer(packed), kernels.pointer(scales), kernels.pointer(numbers),
                    shift, index, kernels.size(group), kernels.size(columns), kernels.size(3),
                    kernels.size(33), kernels.size(7), kernels.size(201), kernels.pointer(tile))
                made.append(tile)
        words = np.zeros((columns, rows // 8), np.uint32)
        build.library.pef_pack_awq(kernels.pointer(packed), kernels.size(rows),
                                   kernels.size(columns), kernels.pointer(words))
        back = np.zeros_like(packed)
        build.library.pef_unpack_awq(kernels.pointer(words), kernels.size(rows),
                                     kernels.size(columns), kernels.pointer(back))
        assert (back == packed).all()
        blocks = np.zeros(count // 32 * 20, np.uint8)
        build.library.pef_pack_q4_1(
            kernels.pointer(packed), kernels.pointer(scales), kernels.pointer(zeros), 0,
            kernels.size(group), kernels.size(count), kernels.pointer(blocks))
        nibbles = np.zeros(groups // 8, np.uint32)
        build.library.pef_pack_nibbles(kernels.pointer(zeros), kernels.size(groups // 8 * 8), 1,
                                       1, kernels.pointer(nibbles))
        return [*made, words, blocks, nibbles]

    expected = all_of(library)
    # Without an index the groups are those of the index in order.
    assert (expected[3] == expected[4]).all() and (expected[5] == expected[6]).all()
    for variant in variants:
        for ours, theirs in zip(all_of(variant), expected):
            assert ours.tobytes() == theirs.tobytes()


class AdamW(ctypes.Structure):
    """pef_adamw of training.h."""

    _fields_ = [(name, ctypes.c_float) for name in (
        "decay", "beta2", "one_less_beta1", "one_less_beta2", "step_size", "root", "epsilon",
        "late_decay")]


def test_moments_of_8_bits_are_the_nearest_of_bitsandbytes_maps(variants):
    """Of a first step: the moments are the gradient and its square, times what is known."""
    random = np.random.default_rng(7)
    for count in (1, 256, 257, 10_000):
        gradient = (random.standard_normal(count) * 10.0 ** random.uniform(-6, 0, count)).astype(
            np.float32)
        step = AdamW(1, 0.5, 0.5, 0.5, 0.01, 1, 1e-8, 0)
        for variant in variants:
            p = np.ones(count, np.float32)
            codes = [np.zeros(count, np.uint8) for _ in range(2)]
            scales = [np.zeros(-(-count // 256), np.float32) for _ in range(2)]
            variant.library.pef_adamw8_f32(
                ctypes.byref(step), kernels.pointer(p), kernels.pointer(codes[0]),
                kernels.pointer(scales[0]), kernels.pointer(codes[1]), kernels.pointer(scales[1]),
                kernels.pointer(gradient), kernels.size(count))
            for signed, values, own, scale in (
                    (True, gradient * np.float32(0.5), codes[0], scales[0]),
                    (False, gradient * np.float32(0.5) * gradient, codes[1], scales[1])):
                levels = create_dynamic_map(signed=signed).numpy().astype(np.float64)
                for block in range(len(scale)):
                    part = slice(block * 256, (block + 1) * 256)
                    most = np.abs(values[part]).max()
                    assert scale[block] == most
                    distance = np.abs(values[part, None].astype(np.float64) / most - levels)
                    found = distance[np.arange(len(distance)), own[part]]
                    assert (found <= distance.min(1) * (1 + 1e-5) + 1e-9).all()
