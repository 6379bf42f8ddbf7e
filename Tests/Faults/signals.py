"""SIGTERM, SIGINT and SIGHUP: a quick end that leaves nothing."""

import random
from signal import SIGHUP, SIGINT, SIGTERM

from faults import Lab, Output, row, signalled

# What is left to do at a signal: removing a temporary.
MOST_SECONDS = 20  # Far less on a free machine.


@row(6, "SIGTERM, SIGINT, SIGHUP at random times")
def at_random(row):
    ended = 0
    for kind, old in [(kind, False) for kind in row.kinds] + [("folder", True)]:
        with Output(Lab.large(), kind, old=old) as out:
            length = Lab.duration(out)
            for number in (SIGTERM, SIGINT, SIGHUP):
                rng = random.Random(number)
                for _ in range(row.count(20, 1)):
                    out.reset()
                    after = rng.uniform(0, 1.1 * length)
                    run = signalled(number, after, *out.merge)
                    # Before it has its handlers, the signal itself ends it: the same to a shell.
                    by_signal = run.status in (128 + number, -number)
                    ended += by_signal
                    row.check(
                        f"{number.name} after {after:.3f} s, {kind}",
                        run.not_status(0, 128 + number, -number),
                        run.seconds > MOST_SECONDS and f"took {run.seconds:.1f} s to end",
                        run.status == 0 and out.not_state("complete"),
                        out.not_whole, out.not_tidy)
    row.note(f"{ended} ended by the signal")
