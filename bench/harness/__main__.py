"""Measures caching HTTP proxies side by side. `cargo xtask bench` builds what is needed and starts this; see README.md.

    bench [run] [--quick | --plan NAME]     interleaved rounds; goes on where a run of the same name was stopped
    bench run --out NAME --scenarios S1,S5 --peers kato,nginx [--rounds 3] [--secs 3]
    bench smoke [--peers a,b]               does every peer start, cache and give the right bytes?
    bench soak [--hours 1]                  one proxy under mixed load: are memory and descriptors flat?
    bench mirror [--rounds 3] [--write]     import of a bundle beside cp and sha256sum; p99 of hits and misses without a network
    bench hits                              hit ratios of the eviction policies on the package trace
    bench report [NAME] [--write]           tables; --write: bench/results.json, docs/performance.md and its chart
    bench data                              makes the files below target/bench/data
"""
import argparse
import os
import shutil
import signal
import sys

import data
import peer
import procs
from layout import RESULTS, Machine, check_room
from plans import PLANS, Job
from runner import Run
from scenarios import SCENARIOS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cargo xtask bench --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="run", choices=["run", "smoke", "soak", "hits", "mirror", "report", "data"])
    parser.add_argument("name", nargs="?", help="of the results, for report")
    parser.add_argument("--quick", action="store_true", help="the same as --plan quick")
    parser.add_argument("--plan", choices=PLANS, default="full")
    parser.add_argument("--out", help="name of the results; the plan's name if not given")
    parser.add_argument("--again", action="store_true", help="forget results of that name first")
    parser.add_argument("--scenarios", help="instead of a plan: " + ",".join(SCENARIOS))
    parser.add_argument("--peers", help="instead of the plan's: " + ",".join(peer.names()))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--secs", type=float, help="a measurement of hits lasts so long")
    parser.add_argument("--light", action="store_true", help="a tenth of the objects in S6 and S9")
    parser.add_argument("--workers", type=int, help="of each server; 1 when pinned")
    parser.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True, help="servers on CPU 0, everything else on CPU 1")
    parser.add_argument("--mtu", type=int, default=1500, help="of the private loopback; 0: stay in the network that is here")
    parser.add_argument("--soak", action=argparse.BooleanOptionalAction, default=True, help="the full plan ends with a soak of five minutes")
    parser.add_argument("--hours", type=float, default=5 / 60, help="of a soak; five minutes if not given")
    parser.add_argument("--write", action="store_true", help="report, mirror: fill bench/results.json and docs/performance.md")
    return parser.parse_args()


def private_network(mtu: int) -> None:
    """Starts again in a network namespace: a loopback with a LAN's segment size, and nobody else's ports."""
    if mtu and "BENCH_NETNS" not in os.environ:
        os.environ["BENCH_NETNS"] = str(mtu)
        script = f'ip link set lo mtu {mtu} up && exec "$@"'
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", script, "sh", sys.executable, *sys.argv])


def jobs_of(args: argparse.Namespace, plan: str) -> list[Job]:
    jobs = PLANS[plan]
    if args.scenarios:
        wanted = args.scenarios.split(",")
        unknown = [name for name in wanted if name not in SCENARIOS]
        if unknown:
            sys.exit(f"no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
        jobs = [Job([name for name in wanted if SCENARIOS[name].group == group] if group else [single], ["kato", "nginx"], 3)
                for group, single in group_heads(wanted)]
    for job in jobs:
        job.peers = args.peers.split(",") if args.peers else job.peers
        job.secs = args.secs or job.secs
        if args.rounds:
            job.rounds, job.fewer = args.rounds, {}
    return jobs


def group_heads(names: list[str]) -> list[tuple]:
    """(group, first scenario) for each group and each scenario without one, in order."""
    heads = {SCENARIOS[name].group or name: (SCENARIOS[name].group, name) for name in reversed(names)}
    return [heads[key] for key in dict.fromkeys(SCENARIOS[name].group or name for name in names)]


def main() -> int:
    args = arguments()
    if args.command == "report":
        import report
        return report.main(args.name or args.out or "full", args.write)
    if args.command == "hits":
        from hits import hits
        return hits()
    if args.command == "mirror":
        private_network(args.mtu)
        from mirror import mirror
        code = mirror(args.rounds or 3)
        if args.write:
            import report
            report.write_mirror()
        return code
    data.make()
    if args.command == "data":
        return 0
    check_room()
    private_network(args.mtu)
    procs.become_subreaper()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = Machine(args.pin, args.workers)
    if args.command == "smoke":
        from smoke import smoke
        return smoke(machine, args.peers.split(",") if args.peers else peer.names())
    if args.command == "soak":
        from soak import soak
        return soak(machine, args.hours, (args.peers or "kato").split(",")[0])
    plan = "quick" if args.quick else args.plan
    name = args.out or plan
    if args.again or (not args.scenarios and Run(name, machine).is_finished()):
        shutil.rmtree(RESULTS / name, ignore_errors=True)
    Run(name, machine, light=args.light or plan == "quick").all(jobs_of(args, plan), plan)
    flat = 0
    if args.soak and plan == "full" and not args.scenarios:
        from soak import soak
        flat = soak(machine, args.hours, "kato")
    import report
    return report.main(name, args.write) or flat


if __name__ == "__main__":
    sys.exit(main())
