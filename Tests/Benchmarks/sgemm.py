#!/usr/bin/env python3
"""The bare rate at which this machine multiplies matrices of f32. Run by finetune.py.

    sgemm.py [--threads 2] [--rows 512] OUTxINxCOUNT...

Each argument is the shape of a weight and how often a model has it. Of each are timed the product
of a forward pass, (rows, in) · (in, out), and that of a backward pass, (rows, out) · (out, in), as
numpy's BLAS and torch's do them. Prints a JSON object: for each FLOP a second over all weights by
the wall clock, and by the processor's: on one thread that is what the machine can do even while
others want it.
"""

import argparse
import json
import os
import statistics
import time


def seconds(product, tries=5):
    """The median time of a product, and the median of the processor's."""
    product()
    times = []
    for _ in range(tries):
        started = time.perf_counter(), time.process_time()
        product()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return [statistics.median(column) for column in zip(*times)]


def numpy_product(numpy, rows, inner, columns):
    random = numpy.random.default_rng(0)
    a = random.random((rows, inner), dtype=numpy.float32)
    b = random.random((inner, columns), dtype=numpy.float32)
    out = numpy.empty((rows, columns), numpy.float32)
    return lambda: numpy.matmul(a, b, out=out)


def torch_product(torch, rows, inner, columns):
    a, b = torch.rand(rows, inner), torch.rand(inner, columns)
    out = torch.empty(rows, columns)
    return lambda: torch.mm(a, b, out=out)


def rates(weights, options, product):
    operations = wall = processor = 0
    for outputs, inputs, count in weights:
        for inner, columns in ((inputs, outputs), (outputs, inputs)):
            operations += count * 2 * options.rows * inner * columns
            times = seconds(product(options.rows, inner, columns))
            wall += count * times[0]
            processor += count * times[1]
    return {"wall": operations / wall, "processor": operations / processor}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("weights", nargs="+", metavar="OUTxINxCOUNT")
    options = parser.parse_args()
    weights = [tuple(map(int, text.split("x"))) for text in options.weights]
    # numpy's BLAS reads this when it is loaded.
    os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import numpy
    import torch

    torch.set_num_threads(options.threads)
    print(json.dumps({
        "numpy": rates(weights, options, lambda *shape: numpy_product(numpy, *shape)),
        "torch": rates(weights, options, lambda *shape: torch_product(torch, *shape))}))


if __name__ == "__main__":
    main()
