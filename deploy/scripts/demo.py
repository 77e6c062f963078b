#!/usr/bin/env python3
"""The driver of `deploy/demo`: runs freshet's public commands on real data and holds the results against its own count.

Uses only what every user has: the `freshet` binary, its config files, Kafka's protocol through it, HTTP.
"""

import argparse
import datetime
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import demo_proofs
import demo_report
from demo_events import EventFiles, Expected, title_of, utc
from demo_http import Client
from demo_processes import DemoError, Processes, end_leftovers, run, tail, wait_for
from demo_terminal import Terminal, milliseconds

DIRECTORY = "build/demo"
BINARY = "build/release/freshet"
RETAIL = "tests/data/online-retail-2011-03-05.csv.zst"
RETAIL_UNTIL = "2011-05-01"
TRAIN_SHARE = 0.8       # of another data set's interactions
MAX_STREAM = 36_000     # events of the stream after training, so that the demo ends in time
FIRST_SHARE = 0.6       # of the stream, for the live line; the engine is killed in the rest
STREAM_SECONDS = 12     # for that first stretch
QUERIES = 1_000
TOPICS = {"items": 4, "interactions": 4, "users": 4, "vectors": 4, "user-events": 4, "dead-letters": 1}


class Demo:
    """The state of one run. Steps are methods, in the order of the story."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.binary = BINARY
        self.terminal = Terminal()
        self.live = self.terminal.live
        self.processes = None
        self.bootstrap = ""
        self.broker_kind = "Apache Kafka" if arguments.kafka else "embedded (librdkafka's mock cluster)"
        self.dataset = "movielens" if arguments.movielens else "online-retail"
        self.verb = "liked" if arguments.movielens else "bought"
        self.clients = {}
        self.expected = Expected()
        self.figures, self.seconds, self.training = {}, {}, {}
        self.stream_rate = 0
        self._applied = (time.monotonic(), 0)
        self._fresh_before = None

    def path(self, *names):
        return os.path.join(DIRECTORY, *names)

    def prepare(self):
        end_leftovers(DIRECTORY, BINARY)
        if os.path.isdir(self.path("kafka")):
            subprocess.run(["deploy/kafka/broker", "stop", "--dir", self.path("kafka")], stdin=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        os.makedirs(DIRECTORY)
        self.processes = Processes(DIRECTORY, self.arguments.keep)

    # Step 1
    def start_broker(self):
        if self.arguments.kafka:
            directory = self.path("kafka")
            self.processes.at_end.append(["deploy/kafka/broker", "stop", "--dir", directory])
            started = run(["deploy/kafka/broker", "start", "--dir", directory], self.processes.log("kafka"))
            self.bootstrap = started.strip()
        else:
            file = self.path("broker.address")
            topics = [word for name, partitions in TOPICS.items() for word in ("--topic", f"{name}:{partitions}")]
            self.processes.start("broker", [BINARY, "broker", *topics, "--address-file", file])
            self.bootstrap = self.processes.address("broker", file)
        self.terminal.line(f"{self.broker_kind} at {self.bootstrap}")

    # Step 2
    def import_events(self):
        if self.arguments.movielens:
            source = self.arguments.movielens
            kind = "movielens-1m" if os.path.exists(os.path.join(source, "movies.dat")) else "movielens-100k"
        else:
            source, kind = RETAIL, "online-retail"
        run([BINARY, "import", kind, source, "--out", self.path("events")], self.processes.log("import"))
        events = EventFiles(self.path("events"))
        if self.arguments.movielens:
            times = events.times()
            # To the second, as --until is read.
            until_ms = times[int(len(times) * TRAIN_SHARE)] // 1000 * 1000
        else:
            until_ms = int(datetime.datetime.fromisoformat(RETAIL_UNTIL + "T00:00:00+00:00").timestamp() * 1000)
        self.until = utc(until_ms).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.catalogue, self.first, self.second = events.split(self.path("stream"), until_ms, FIRST_SHARE, MAX_STREAM)
        self.event_paths = events.paths
        after = self.first.count() + self.second.count()
        self.terminal.line(f"{kind}: " + ", ".join(f"{len(lines):,} events of {topic}"
                                                   for topic, lines in events.lines.items()))
        self.terminal.line(f"training sees what is before {self.until[:10]}; the stream is the catalogue "
                           f"({self.catalogue.count():,} events) and the {after:,} events after it")

    # Step 3
    def train(self):
        command = [BINARY, "train", "--until", self.until, "--out", self.path("model"), "--json"]
        for topic, path in self.event_paths.items():
            command += ["--" + topic, path]
        self.training = json.loads(run(command, self.processes.log("train"), show_stderr=self.terminal.terminal))
        recall, popular = (self.training[f"{kind}_recall_at_100"] for kind in ("recommendation", "popularity"))
        self.terminal.line(f"{self.training['train_pairs']:,} pairs, {self.training['epochs']} epochs, "
                           f"{self.training['seconds']:.1f} s, loss {self.training['loss']:.3f}")
        self.terminal.line(f"recommendation recall@100 on the last tenth of them: {recall:.3f}; "
                           f"always the most popular: {popular:.3f}")

    # Step 4
    def start_service(self, name, command, wait):
        file = self.path(name + ".address")
        if os.path.exists(file):
            os.remove(file)
        self.clients.pop(name, None)
        overrides = [f"kafka.bootstrap_servers={self.bootstrap}"]
        if name == "engine" and not self.arguments.kafka:
            # The embedded broker knows no static membership: a killed engine's place would be held until its time is over.
            overrides.append("kafka.assign=all")
        self.processes.start(name, [BINARY, command, "--config", f"deploy/config/demo-{name}.yaml",
                                    *(word for override in overrides for word in ("--set", override)),
                                    "--address-file", file])
        if wait:
            address = self.processes.address(name, file)
            self.terminal.line(f"{name} answers at http://{address}")

    def start_engine(self, wait=True):
        self.start_service("engine", "run", wait)

    def client(self, name):
        if name not in self.clients:
            self.processes.check_alive(name)
            self.clients[name] = Client(self.processes.address(name, self.path(name + ".address")))
        return self.clients[name]

    def start_services(self):
        self.start_engine()
        self.start_service("sidecar", "sidecar", wait=True)
        # Ready: the engine has its partitions and has read to their ends, and the sidecar has heard of it.
        for name in ("engine", "sidecar"):
            wait_for(f"{name} is ready", lambda name=name: self.client(name).ready()[0], 60)

    def engine_ready(self):
        if not os.path.exists(self.path("engine.address")):
            return False
        try:
            return self.client("engine").ready()[0]
        except (OSError, http.client.HTTPException):
            return False

    # Streaming
    def replay_command(self, files):
        """`files` by topic; one producer sends them, merged by time."""
        return [BINARY, "replay", *(f"{topic}={file}" for topic, file in files.items()),
                "--bootstrap-servers", self.bootstrap, "--json"]

    def start_replay(self, part, rate=None):
        """`rate` events a second; as fast as they are taken without. Returns its name."""
        name = "replay-" + os.path.basename(part.directory)
        self._fresh_before = self.freshness("sidecar")
        self._applied = (time.monotonic(), self.client("sidecar").status()["applied_records"])
        self.processes.start(name, self.replay_command(part.files) + (["--rate", str(round(rate))] if rate else []))
        return name

    def finish_replay(self, name):
        """Shows the live line until the producer has ended, well."""
        while self.processes.children[name].poll() is None:
            self.live(self.watch())
            time.sleep(0.1)
        if self.processes.children.pop(name).returncode != 0:
            raise DemoError(f"{name} failed; the end of its log:\n{tail(self.processes.log(name))}")

    def replay_one(self, topic, event):
        """Sends one record; returns when the producer was started and when it had ended, the record acknowledged."""
        file = self.path("stream", "one.jsonl")
        with open(file, "w", encoding="utf-8") as f:
            f.write(json.dumps(event) + "\n")
        started = time.time()
        run(self.replay_command({topic: file}), self.processes.log("replay-one"))
        return {"started_at": started, "acked_at": time.time()}

    def freshness(self, name):
        return self.client(name).histograms("freshet_freshness_seconds")[0]

    def watch(self):
        """The live line: what the sidecar has applied a second, and its freshness since this stretch began."""
        engine, sidecar = self.client("engine").status(), self.client("sidecar").status()
        fresh = self.freshness("sidecar").since(self._fresh_before)
        now, (then, before) = time.monotonic(), self._applied
        rate = (sidecar["applied_records"] - before) / max(now - then, 1e-3)
        if now - then > 0.5:
            self._applied = (now, sidecar["applied_records"])
        behind = max(0, time.time() - sidecar["as_of_ms"] / 1e3) if sidecar["as_of_ms"] else None
        return (f"{rate:6,.0f} events/s   lag {engine['lag_records']:,}   as of {milliseconds(behind)} ago   "
                f"items live {sidecar['items_live']:,}   users {sidecar['users']:,}   "
                f"freshness p50 {milliseconds(fresh.quantile(0.5))} p99 {milliseconds(fresh.quantile(0.99))}")

    def wait_until_applied(self):
        """Until engine and sidecar have applied everything that was acknowledged before this call."""
        now_ms = int(time.time() * 1000)

        def done():
            for name in ("engine", "sidecar"):
                self.processes.check_alive(name)
            engine, sidecar = self.client("engine").status(), self.client("sidecar").status()
            return (engine["as_of_ms"] >= now_ms and sidecar["as_of_ms"] >= now_ms
                    and engine["sequence"] == sidecar["sequence"])
        wait_for("engine and sidecar apply what was sent", done, 60)

    # Step 5
    def stream(self):
        begin = time.monotonic()
        self.finish_replay(self.start_replay(self.catalogue))
        self.wait_until_applied()
        seconds = time.monotonic() - begin
        self.catalogue.tell(self.expected)
        self.figures["catalogue_events_per_second"] = round(self.catalogue.count() / seconds)
        self.terminal.line(f"the catalogue, as fast as it goes: {self.catalogue.count():,} events in {seconds:.1f} s, "
                           f"from the producer's start to the sidecar's answers")
        self.stream_rate = self.first.count() / STREAM_SECONDS
        before = {name: self.freshness(name) for name in ("engine", "sidecar")}
        begin = time.monotonic()
        self.finish_replay(self.start_replay(self.first, self.stream_rate))
        self.wait_until_applied()
        self.first.tell(self.expected)
        self.figures["stream_events_per_second"] = round(self.first.count() / (time.monotonic() - begin))
        for name in ("engine", "sidecar"):
            fresh = self.freshness(name).since(before[name])
            for q in (50, 99):
                self.figures[f"freshness_{name}_p{q}_ms"] = round((fresh.quantile(q / 100) or 0) * 1e3, 2)
        self.terminal.line(f"{self.first.count():,} events at {self.figures['stream_events_per_second']:,} a second; "
                           f"in the sidecar's answers after p50 {self.figures['freshness_sidecar_p50_ms']} ms, "
                           f"p99 {self.figures['freshness_sidecar_p99_ms']} ms")

    # Step 6
    def show_customers(self):
        seen = self.expected.seen
        users = sorted(seen, key=lambda user: (abs(len(seen[user]) - 12), user))[:3]
        for user in users:
            self.terminal.line()
            self.terminal.line(f"{user} {self.verb}")
            for item in list(seen[user])[-4:]:
                self.terminal.line(f"    {title_of(self.expected.live.get(item, {})) or item}")
            self.terminal.line("is recommended")
            answer = self.client("sidecar").recall(user=user, k=5, exclude_seen=True, with_attributes=True)
            for hit in answer["results"]:
                self.terminal.line(f"    {hit['score']:.3f}  {title_of(hit) or hit['id']}")

    def measure_queries(self):
        """A recommender's calls, one after the other on one connection; times are the server's own histogram."""
        client = self.client("sidecar")
        users = demo_proofs.sample_users(self.expected.seen, QUERIES)
        before, = client.histograms("freshet_query_seconds")
        begin = time.monotonic()
        for i in range(QUERIES):
            client.recall(user=users[i % len(users)], k=100, exclude_seen=True)
        self.figures["query_calls_per_second_one_connection"] = round(QUERIES / (time.monotonic() - begin))
        measured = client.histograms("freshet_query_seconds")[0].since(before)
        for q in (50, 99):
            self.figures[f"query_p{q}_ms"] = round((measured.quantile(q / 100) or 0) * 1e3, 3)

    # Step 7
    def prove(self, proofs):
        demo_proofs.totals(proofs, self, "after the stream")
        twin_id, new_id = demo_proofs.new_product(proofs, self)
        demo_proofs.deleted_product(proofs, self, twin_id, new_id)
        demo_proofs.kill_engine(proofs, self, self.second)
        demo_proofs.totals(proofs, self, "after the kill")
        demo_proofs.every_item(proofs, self)
        users = demo_proofs.sample_users({user: True for _, event in self.second.events["interactions"]
                                          for user in (event["user_id"],)})
        demo_proofs.nothing_seen(proofs, self, users)
        demo_proofs.sidecar_equals_engine(proofs, self, users)
        engine = self.client("engine").status()
        proofs.add("no event became a dead letter", engine["dead_letters"] == 0, f"{engine['dead_letters']:,}")

    def cause_of(self, error):
        """A process that is gone is the cause of whatever went wrong in asking it."""
        for name in ("broker", "engine", "sidecar"):
            if self.processes and name in self.processes.children:
                try:
                    self.processes.check_alive(name)
                except DemoError as cause:
                    return cause
        return error if isinstance(error, DemoError) else f"{type(error).__name__}: {error}"

    def timed(self, name, step, *arguments):
        begin = time.monotonic()
        step(*arguments)
        self.seconds[name] = round(time.monotonic() - begin, 1)

    def tell(self):
        proofs = demo_proofs.Proofs(self.terminal)
        self.terminal.step("A broker")
        self.timed("broker", self.start_broker)
        self.terminal.step("Real data: " + ("MovieLens" if self.arguments.movielens else
                                             "a gift shop's log, UCI Online Retail (Daqing Chen, CC BY 4.0)"))
        self.timed("import", self.import_events)
        self.terminal.step("Training two towers")
        self.timed("train", self.train)
        self.terminal.step("The engine, and a query sidecar that follows it")
        self.timed("start", self.start_services)
        self.terminal.step("The stream")
        self.timed("stream", self.stream)
        self.terminal.step(f"Three customers: what they {self.verb}, what the sidecar recommends")
        self.show_customers()
        self.timed("queries", self.measure_queries)
        self.terminal.step("Proofs, against a count of the input made by this script")
        self.timed("proofs", self.prove, proofs)
        self.terminal.step("Figures")
        self.seconds["all"] = round(sum(self.seconds.values()), 1)
        demo_report.figures(self, proofs)
        self.terminal.step("What next")
        demo_report.what_next(self)
        return proofs.all_hold()


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo", add_help=False)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--movielens", metavar="DIR")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.movielens and not os.path.isdir(arguments.movielens):
        parser.error(f"--movielens {arguments.movielens}: there is no such directory")
    if arguments.movielens:
        arguments.movielens = os.path.abspath(arguments.movielens)
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    demo = Demo(arguments)
    kept = False
    try:
        demo.prepare()
        holds = demo.tell()
        kept = arguments.keep
        return 0 if holds else 1
    except (DemoError, OSError, http.client.HTTPException, RuntimeError) as error:
        print(f"\ndemo: {demo.cause_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    finally:
        if demo.processes and not kept:
            codes = demo.processes.stop_all()
            for name in ("engine", "sidecar", "broker"):
                if codes.get(name, 0) != 0:
                    print(f"demo: {name} ended with exit code {codes[name]}; see {demo.processes.log(name)}",
                          file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
