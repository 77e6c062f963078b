#!/usr/bin/env python3
"""Our index beside the libraries that people use from Python, over the same files, in one run.

Everyone builds with the parameters of a graph of M = 16, ef_construction = 200 (degree 32 on the lowest level), then the
rounds of searches alternate. `single` is one query a call, `batch` all queries in one call (ours: 64). Times are of the
process that searches, by its processor time, which other work on the machine disturbs the least; per-call overhead of
Python is in a peer's `single`, not in ours, which is timed in C++. Rates are interpolated at equal recall.

  pip install -r tests/bench/peers/requirements.txt     # in a virtual environment
  peers.py --freshet build/release/freshet --bench build/release/tests/freshet_bench --base base.u8bin --query query.u8bin --metric l2
  freshet_bench index --data synthetic --vectors 1000000 --export DIR      # base.fbin and query.fbin, unit vectors: --metric ip
"""

import argparse
import contextlib
import fcntl
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import contenders
import numpy as np

RECALLS = {10: (0.95, 0.98), 100: (0.95, 0.98), 500: (0.95, 0.98)}


def read_vectors(path, limit):
    kind = np.uint8 if path.endswith(".u8bin") else np.float32
    rows, dim = np.fromfile(path, dtype=np.uint32, count=2)
    rows = min(int(rows), limit)
    data = np.fromfile(path, dtype=kind, count=rows * int(dim), offset=8)
    return np.ascontiguousarray(data.reshape(rows, int(dim)), dtype=np.float32)


def write_vectors(path, vectors):
    with open(path, "wb") as file:
        np.array(vectors.shape, dtype=np.uint32).tofile(file)
        vectors.tofile(file)


class Freshet:
    """Ours, in a process of its own (freshet_bench answer)."""

    name, is_peer = "freshet", False

    def __init__(self, args, directory, base, queries, kind="hnsw"):
        if kind == "flat":
            self.name = "freshet flat"
        directory = f"{directory}/{kind}"
        os.mkdir(directory)
        base_path, query_path = directory + "/base.fbin", directory + "/query.fbin"
        write_vectors(base_path, base)
        write_vectors(query_path, queries)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [args.freshet, "index", "build", base_path, "--kind", kind, "--metric", args.metric, "--json", "--out",
                   directory + "/index"]
        built = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.build_cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.resident_mb = built["resident_bytes"] / 1e6
        self.queries = len(queries)
        self.labels = directory + "/labels"
        self.process = subprocess.Popen([args.bench, "answer", "--index", directory + "/index", "--queries", query_path],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    has_batch = True

    def efs(self, k):
        return contenders.graph_efs(k)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def run(self, k, ef, mode, threads, want_labels):
        batch = 64 if mode == "batch" else 1
        file = self.labels if want_labels else "-"
        # One round's line, and an empty one's answer as a sign that the labels are written.
        self.process.stdin.write(f"{k} {ef} {threads} {batch} {file}\n")
        self.process.stdin.flush()
        wall, cpu = map(float, self.process.stdout.readline().split())
        labels = None
        if want_labels:
            self.process.stdin.write(f"1 1 1 {1 << 30} -\n")
            self.process.stdin.flush()
            self.process.stdout.readline()
            labels = np.fromfile(self.labels, dtype=np.uint32).reshape(self.queries, k)
        return wall, cpu, labels


class Peer:
    """A library of contenders.py, in this process."""

    is_peer = True

    def __init__(self, library, base, queries, metric):
        self.name, self.library, self.queries = library.name, library, queries
        self.has_batch = getattr(library, "has_batch", True)
        begin = time.process_time()
        library.build(base, metric)
        self.build_cpu_seconds = time.process_time() - begin
        self.resident_mb = None  # several share this process

    def efs(self, k):
        return self.library.efs(k)

    def run(self, k, ef, mode, threads, want_labels):
        self.library.prepare(k, ef, threads)
        wall, cpu = time.perf_counter(), time.process_time()
        if mode == "batch":
            labels = self.library.batch(self.queries, k, threads)
        else:
            labels = [self.library.single(query, k) for query in self.queries]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall, cpu, np.asarray(labels).reshape(len(self.queries), -1) if want_labels else None


def recall_of(labels, truth):
    return sum(len(np.intersect1d(a, b)) for a, b in zip(labels, truth)) / truth.size


def at_recall(curve, recall):
    """Queries a second at a recall, between the two measured points around it; None where it was not reached."""
    best = None
    points = sorted(curve)
    for i, (r, rate) in enumerate(points):
        if r >= recall:
            best = max(best or 0, rate)
            if i > 0 and points[i - 1][0] < recall:
                r0, rate0 = points[i - 1]
                best = max(best, rate0 + (recall - r0) / (r - r0) * (rate - rate0))
    return best


@contextlib.contextmanager
def held(path):
    if not path:
        yield
        return
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(args, all_contenders, k, truth, results):
    for mode, threads in (("single", 1), ("batch", 1), ("batch", 2)):
        curves = {c.name: [] for c in all_contenders}
        for step in range(args.points):
            rates, recalls = {c.name: [] for c in all_contenders}, {}
            for round_number in range(args.rounds):
                for c in all_contenders:
                    efs = c.efs(k)
                    if step >= len(efs) or (mode == "batch" and not c.has_batch):
                        continue
                    wall, cpu, labels = c.run(k, efs[step], mode, threads, round_number == 0)
                    rates[c.name].append((len(truth) / cpu, len(truth) / wall))
                    if labels is not None:
                        recalls[c.name] = recall_of(labels, truth[:, :k])
            for c in all_contenders:
                if rates[c.name]:
                    cpu_rate = statistics.median(r[0] for r in rates[c.name])
                    curves[c.name].append((recalls[c.name], cpu_rate))
                    results.append({"name": c.name, "is_peer": c.is_peer, "k": k, "mode": mode, "threads": threads,
                                    "effort": str(c.efs(k)[step]), "recall": recalls[c.name],
                                    "queries_per_cpu_second": cpu_rate,
                                    "queries_per_second": statistics.median(r[1] for r in rates[c.name])})
        for recall in RECALLS[k]:
            ours = at_recall(curves["freshet"], recall)
            line = [f"top-{k} {mode} {threads} thread(s) recall {recall}: freshet {ours and round(ours)}"]
            for c in all_contenders[1:]:
                theirs = at_recall(curves[c.name], recall)
                line.append(f"{c.name} {round(theirs)} ({ours / theirs:.2f}x)" if ours and theirs else f"{c.name} -")
            print(", ".join(line), file=sys.stderr, flush=True)


FLAT_GOAL = 0.9  # of faiss's rate, one query a call


def measure_flat(args, directory, base, queries, truth, results):
    """Exact search, one query a call: ours beside faiss, rounds alternating."""
    ours = Freshet(args, directory, base, queries, "flat")
    theirs = Peer(contenders.FaissFlat(), base, queries, args.metric)
    goals = []
    for k in args.k:
        rates = {c.name: [] for c in (ours, theirs)}
        recalls = {}
        for round_number in range(args.rounds):
            for c in (ours, theirs):
                _, cpu, labels = c.run(k, 0, "single", 1, round_number == 0)
                rates[c.name].append(len(queries) / cpu)
                if labels is not None:
                    recalls[c.name] = recall_of(labels, truth[:, :k])
        for c in (ours, theirs):
            results.append({"name": c.name, "is_peer": c.is_peer, "k": k, "mode": "single", "threads": 1, "effort": "exact",
                            "recall": recalls[c.name], "queries_per_cpu_second": statistics.median(rates[c.name])})
        ratio = statistics.median(rates[ours.name]) / statistics.median(rates[theirs.name])
        goals.append({"name": f"flat top-{k}, ratio to faiss flat by processor time", "goal": FLAT_GOAL, "value": ratio,
                      "holds": ratio >= FLAT_GOAL})
        print(f"flat top-{k}: {ratio:.2f}x faiss (at least {FLAT_GOAL})", file=sys.stderr, flush=True)
    ours.close()
    return goals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freshet", default="build/release/freshet")
    parser.add_argument("--bench", default="build/release/tests/freshet_bench")
    parser.add_argument("--base", required=True, help=".u8bin or .fbin")
    parser.add_argument("--query", required=True, help=".u8bin or .fbin")
    parser.add_argument("--metric", choices=("l2", "ip"), default="l2")
    parser.add_argument("--vectors", type=int, default=1 << 31, help="at most this many")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=6, help="efforts on each curve")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 500], choices=(10, 100, 500))
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--no-flat", action="store_true", help="graphs and partitions alone, not the exact kinds")
    parser.add_argument("--lock", default="", help="a file to be locked (flock) while the rounds of one K are under way")
    args = parser.parse_args()

    base, queries = read_vectors(args.base, args.vectors), read_vectors(args.query, args.queries)
    truth = contenders.exact(base, queries, max(args.k), args.metric)
    with tempfile.TemporaryDirectory() as directory:
        everyone = [Freshet(args, directory, base, queries)]
        for library in contenders.ALL:
            if args.only and library.name not in args.only.split(","):
                continue
            everyone.append(Peer(library(), base, queries, args.metric))
            print(f"built {library.name}", file=sys.stderr, flush=True)
        results = [{"name": c.name, "is_peer": c.is_peer, "vectors_per_cpu_second": len(base) / c.build_cpu_seconds,
                    "resident_mb": c.resident_mb} for c in everyone]
        for k in args.k:
            with held(args.lock):
                measure(args, everyone, k, truth, results)
        everyone[0].close()
        goals = [] if args.no_flat else measure_flat(args, directory, base, queries, truth, results)
    print(json.dumps({"benchmark": "peers", "data": os.path.basename(args.base), "vectors": len(base),
                      "queries": len(queries), "rows": results, "goals": goals}))


if __name__ == "__main__":
    main()
