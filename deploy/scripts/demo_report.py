"""The end of the demo: a table of figures for people, report.json for scripts, and what to try next."""

import json
import os
import subprocess


def figures(demo, proofs):
    for name in ("engine", "sidecar"):
        demo.figures[f"{name}_resident_mb"] = round(demo.client(name).status()["resident_bytes"] / 1e6, 1)
    f = demo.figures
    both = lambda first, second, unit: f"{f[first]} / {f[second]} {unit}"
    demo.terminal.table([
        ("events/s, catalogue as fast as it goes", f"{f['catalogue_events_per_second']:,}"),
        ("events/s, the stream as it was sent", f"{f['stream_events_per_second']:,}"),
        ("freshness in the engine, p50 / p99", both("freshness_engine_p50_ms", "freshness_engine_p99_ms", "ms")),
        ("freshness in the sidecar, p50 / p99", both("freshness_sidecar_p50_ms", "freshness_sidecar_p99_ms", "ms")),
        ("query p50 / p99, 100 of all items (server's histogram)", both("query_p50_ms", "query_p99_ms", "ms")),
        ("queries/s over one connection, from Python", f"{f['query_calls_per_second_one_connection']:,}"),
        ("new product: producer started to found / timestamp to searchable",
         both("new_product_found_ms", "new_product_searchable_within_ms", "ms at most")),
        ("back after kill -9 / all caught up",
         both("restart_after_kill_seconds", "restart_and_caught_up_seconds", "s")),
        ("resident memory, engine / sidecar", both("engine_resident_mb", "sidecar_resident_mb", "MB")),
        ("recommendation recall@100 / popularity's", f"{demo.training['recommendation_recall_at_100']:.3f} / "
                                                      f"{demo.training['popularity_recall_at_100']:.3f}"),
        ("proofs that hold", f"{sum(p['holds'] for p in proofs.results)} of {len(proofs.results)}"),
    ])
    demo.terminal.line("freshness: from the record's timestamp in Kafka until it is in answers there")
    _write(demo.path("report.json"), demo, proofs)
    demo.terminal.line(f"all of it, for a script: {demo.path('report.json')}")


def what_next(demo):
    if demo.arguments.keep:
        user = sorted(demo.expected.seen)[0]
        address = demo.processes.address("sidecar", demo.path("sidecar.address"))
        demo.terminal.line("engine, sidecar and broker are still running:")
        body = json.dumps({"user": user, "k": 5, "with_attributes": True})
        demo.terminal.line(f"  curl -s http://{address}/v1/recall -d '{body}'")
        demo.terminal.line(f"  {demo.binary} query --address {address} --user {user} --k 5")
        demo.terminal.line(f"  curl -s http://{address}/metrics | grep freshet_freshness")
        stop = f"kill {' '.join(str(child.pid) for child in demo.processes.children.values())}"
        if demo.arguments.kafka:
            stop += f"; deploy/kafka/broker stop --dir {demo.path('kafka')}"
        demo.terminal.line(f"  {stop}    # ends them; so does the next deploy/demo")
    else:
        demo.terminal.line("deploy/demo --keep            leave everything running and ask it yourself")
    if not demo.arguments.kafka:
        demo.terminal.line("deploy/demo --kafka           the same through Apache Kafka")
    demo.terminal.line("deploy/demo --movielens DIR   films instead of gifts (download MovieLens from GroupLens)")
    demo.terminal.line("deploy/config/engine.yaml     every setting, explained; with your own topics:")
    demo.terminal.line(f"  {demo.binary} run --config my-engine.yaml")
    demo.terminal.line("deploy/test                   the tests, kill -9 of engine and Apache Kafka among them")


def _write(path, demo, proofs):
    """report.json: figures, proofs, and what they were measured on."""
    def first(pattern, file):
        with open(file, encoding="utf-8") as f:
            for line in f:
                if line.startswith(pattern):
                    return line.split(":", 1)[1].strip()
        return ""
    version = subprocess.run([demo.binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    report = {
        "demo": demo.dataset, "broker": demo.broker_kind, "version": version,
        "machine": {"cpu": first("model name", "/proc/cpuinfo"), "cores": os.cpu_count(),
                    "memory_gb": round(int(first("MemTotal", "/proc/meminfo").split()[0]) / 1048576, 1)},
        "figures": demo.figures, "seconds": demo.seconds, "training": demo.training, "proofs": proofs.results,
        "all_hold": proofs.all_hold(),
    }
    with open(path, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")
