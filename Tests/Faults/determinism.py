"""One command, one output: whatever the number of threads, however often."""

from faults import Lab, Output, peftool, row


@row(26, "the same bytes with 1, 2 and 7 threads, again and again")
def repeated(row):
    seen = set()
    for adapter in ("lora", "dora"):
        for kind in row.kinds:
            with Output(Lab.model("medium", hidden=256, inner=704), kind, adapter) as out:
                for number in range(row.count(100, 6) // 2):
                    threads = (1, 2, 7)[number % 3]
                    out.reset()
                    run = peftool(*out.merge, "--threads", threads)
                    seen.add((adapter, kind, out.state))
                    row.check(f"{adapter}, {kind}, {threads} threads",
                              run.not_status(0), out.not_done)
