#!/usr/bin/env python3
"""How fast many ranks would train, from what one rank and the transport were measured to do.

    python3 benches/scaling/model.py --step 0.25 --megabytes 4.2 4.2 0.6 --ready 0.47 0.79 1.0

A step computes for --step seconds. Bucket i (--megabytes) may travel when the fraction --ready i of that is
over; buckets travel one after the other, each as a ring all-reduce: 2 (N - 1) messages of 1/N of it (two
whole messages where N is 2, as Open MPI does it). Then follow the small sums of a step (--small KB), and with
--norms two messages for every synchronised stage, which nothing hides. See docs/scaling.md.
"""

import argparse


def all_reduce(ranks, size, latency, bandwidth):
    if ranks == 1:
        return 0.0
    if ranks == 2:
        return 2 * (latency + size / bandwidth)
    return 2 * (ranks - 1) * (latency + size / ranks / bandwidth)


def wait(ranks, size, latency, bandwidth):
    """A small sum that the rank waits for: recursive doubling."""
    rounds = max(0, (ranks - 1).bit_length())
    return rounds * (latency + size / bandwidth)


def step(ranks, args, latency, bandwidth):
    end = 0.0
    for size, ready in zip(args.megabytes, args.ready):
        end = max(end, ready * args.step) + all_reduce(ranks, size * 1e6, latency, bandwidth)
    end = max(end, args.step) + wait(ranks, args.small * 1e3, latency, bandwidth)
    return end + args.norms * wait(ranks, 2e3, latency, bandwidth)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=float, default=0.25, help="seconds that a rank computes for a step")
    parser.add_argument("--images", type=int, default=64, help="images of a rank in a step")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[4.2, 4.2, 0.6], help="sizes of the buckets")
    parser.add_argument("--ready", type=float, nargs="+", default=[0.47, 0.79, 1.0], help="when each may travel")
    parser.add_argument("--small", type=float, default=80, help="kB of figures and running statistics")
    parser.add_argument("--norms", type=int, default=0, help="sums of synchronised batch normalisation in a step")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8, 64, 1000])
    parser.add_argument("--gbit", type=float, nargs="+", default=[0.2, 1, 10, 100], help="speeds of the wire")
    parser.add_argument("--latency", type=float, default=30e-6, help="seconds of a message")
    args = parser.parse_args()
    if len(args.megabytes) != len(args.ready):
        parser.error("--megabytes and --ready must have one number per bucket")
    print("images/s, and the share of what as many ranks without a wire between them would do")
    print("ranks " + "".join(f"{g:>12g} Gbit/s" for g in args.gbit))
    for ranks in args.ranks:
        cells = []
        for gbit in args.gbit:
            # 5 % of the wire goes to headers.
            seconds = step(ranks, args, args.latency, 0.95 * gbit * 1e9 / 8)
            cells.append(f"{ranks * args.images / seconds:10.0f} {args.step / seconds:5.0%}  ")
        print(f"{ranks:5} " + " ".join(cells))


if __name__ == "__main__":
    main()
