"""`make bench`: every measurement, beside what it must reach. Or some of them:

    transport     the HTTP client alone, beside wrk
    http          a synchronous HTTP trigger, beside nginx as a proxy and bare uvicorn; how much
                  later answers come through it, at half of its rate
    http-async    a request accepted and synced to disk, beside bare uvicorn with the same SQLite
    http-auth     what it costs to ask a caller who it is
    kafka         Kafka to nginx, beside a bare probe of the path; to a function that takes 10 ms
    kafka-idle    a Kafka trigger that waits, beside a bare consumer
    kinesis       Kinesis to nginx, beside a bare client; triggers that wait
    nats          NATS to nginx
    cron          how late ticks are; how many triggers one hub carries
    workers       what a second worker brings
    start         from start to ready, and memory, on a folder
    kubernetes    the same in a cluster, and a change to its status

One run on one machine: compare rows of one run with each other, not of two. `python -m bench.http
--help` tells of one's own options.
"""

from __future__ import annotations

import argparse
import importlib

from bench.measure import machine

PARTS = (
    "transport", "http", "http-async", "http-auth", "kafka", "kafka-idle", "kinesis", "nats",
    "cron", "workers", "start", "kubernetes",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, where none is named")
    chosen = parser.parse_args().parts or PARTS
    for part in chosen:
        if part not in PARTS:
            parser.error(f"found {part}, expected {', '.join(PARTS)}")
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
