"""The gates: how far a merged tensor may be from the right one."""

import torch

# f32 sums of a few products and one rounding after the other.
F32_ULPS = 2
# Two sums in different orders now and then fall on the two sides of a tie.
EQUAL_SHARE = 0.999


def ulp(values, dtype):
    """The distance of a dtype's numbers at the size of `values` (f64)."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp_min(info.smallest_normal)).exponent - 1
    return torch.ldexp(torch.full_like(values, info.eps), exponent)


def steps(found, right):
    """How many numbers of their dtype two 8- or 16-bit tensors are apart, element by element."""
    def order(tensor):
        kind = torch.int16 if tensor.element_size() == 2 else torch.int8
        bits = tensor.contiguous().view(kind).to(torch.int32)
        low = torch.iinfo(kind).min
        return torch.where(bits < 0, low - bits, bits)

    return (order(found) - order(right)).abs()


def beyond_cancellation(found, result):
    """Where the error against a formula is more than f32 sums may have.

    W and d can cancel so far that what is left has more digits in 16 bits than the sums were
    right in.
    """
    error = (found.to(torch.float64) - result.values).abs()
    return error > 2 * F32_ULPS * ulp(result.scale, torch.float32)


def f32_error(found, result):
    """The error against a formula's result, in ulps of the larger of |W| and |d|."""
    error = (found.to(torch.float64) - result.values).abs()
    return float((error / ulp(result.scale, torch.float32)).max()) if error.numel() else 0.0


def check(results, tensors, ulps=4):
    """Compares PEFT's merge with the formula's results; returns what is wrong, a line each.

    PEFT's f32 sums lose digits where their terms cancel, so its errors are measured against the
    largest element of a tensor.
    """
    problems = []
    for name in sorted(set(results) ^ set(tensors)):
        problems.append(f"{name}: {'missing' if name in results else 'not in the formula'}")
    for name in sorted(set(results) & set(tensors)):
        found, result = tensors[name], results[name]
        if found.dtype != result.dtype or found.shape != result.values.shape:
            problems.append(f"{name}: {found.dtype} {tuple(found.shape)}, expected "
                            f"{result.dtype} {tuple(result.values.shape)}")
        elif found.dtype == torch.float32:
            difference = (found.to(torch.float64) - result.values).abs().max()
            error = float(difference / ulp(result.scale.max(), torch.float32))
            if not error <= ulps:
                problems.append(f"{name}: {error:.3g} ulp")
        else:
            from .formula import round_once

            apart = steps(found, round_once(result.values, result.dtype))
            far = int((apart * beyond_cancellation(found, result)).max())
            if far > 1 or float((apart != 0).double().mean()) > 0.01:
                problems.append(
                    f"{name}: {int((apart != 0).sum())} of {apart.numel()} differ, "
                    f"at most by {far}")
    return problems
