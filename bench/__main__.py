"""`make bench`: every measurement, beside what it must reach.

    python -m bench [transport] [http] [http-async] [kafka] [kafka-idle] [kinesis] [nats] [cron]
                    [workers] [start] [kubernetes]

One run on one machine: compare rows of one run with each other, not of two.
"""

from __future__ import annotations

import importlib
import sys

from bench.measure import machine

PARTS = (
    "transport", "http", "http-async", "kafka", "kafka-idle", "kinesis", "nats", "cron", "workers",
    "start", "kubernetes",
)  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or PARTS
    print(machine())
    rows = []
    for part in chosen:
        print(f"\n{part} ...", flush=True)
        rows += importlib.import_module(f"bench.{part.replace('-', '_')}").main()
    print(f"\n{'':4}  {'measurement':<58} {'measured':<34} must reach")
    for row in rows:
        print(row)
    print(machine())


if __name__ == "__main__":
    main()
