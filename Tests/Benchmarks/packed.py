#!/usr/bin/env python3
"""Packed checkpoints against zstd -3 on the same file: ratio and speed.

    Tests/Benchmarks/packed.py FILE.safetensors... [--rounds 3] [--base FILE.safetensors]

For each file: packed and restored by peftool; by zstd -3 with one thread and with two. With --base
the difference of each file to it is packed, too. A restored file is compared with its original. Say
next to the figures what the weights are: dequantized or random ones pack otherwise than trained
ones.
"""

import argparse
import filecmp
import statistics
import tempfile
from pathlib import Path

from measure import PEFTOOL, ROOT, measure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--base", type=Path, help="the base of differences")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, default 3")
    options = parser.parse_args()

    scratch = ROOT / ".build/benchmarks"
    scratch.mkdir(parents=True, exist_ok=True)
    print(f"{'':<34}{'ratio':>8}{'pack':>12}{'restore':>12}{'peaks':>16}")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        packed, back = Path(folder) / "packed.zst", Path(folder) / "back.safetensors"
        for file in options.files:
            def peftool(*more):
                return ([PEFTOOL, "convert", file, "-o", packed, "--quiet", "--force", *more],
                        [PEFTOOL, "convert", packed, "-o", back, "--quiet", "--force"])

            def zstd(*more):
                return (["zstd", "-3", "-q", "-f", *more, file, "-o", packed],
                        ["zstd", "-d", "-q", "-f", packed, "-o", back])

            cases = {"peftool": peftool(), "zstd -3": zstd(), "zstd -3 -T2": zstd("-T2")}
            if options.base:
                cases["peftool --delta-from"] = peftool("--delta-from", options.base)
            size = file.stat().st_size
            print(f"{file}: {size / 1e6:.0f} MB")
            for label, (pack, restore) in cases.items():
                runs = [(measure(pack), measure(restore)) for _ in range(options.rounds)]
                if not filecmp.cmp(file, back, shallow=False):
                    raise SystemExit(f"{label}: {file} does not come back as it was")
                rates = [size / 1e6 / statistics.median(run[side].seconds for run in runs)
                         for side in (0, 1)]
                peaks = [max(run[side].peak_bytes for run in runs) / 1e6 for side in (0, 1)]
                print(f"  {label:<32}{packed.stat().st_size / size:>8.3f}{rates[0]:>7.0f} MB/s"
                      f"{rates[1]:>7.0f} MB/s{peaks[0]:>8.0f}{peaks[1]:>5.0f} MB")


if __name__ == "__main__":
    main()
