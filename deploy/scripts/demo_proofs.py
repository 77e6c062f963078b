"""What the demo proves, each against what Python itself counted in the input (demo_events.Expected)."""

import http.client
import signal
import time

from demo_events import title_of
from demo_processes import DemoError, wait_for

SAMPLE_USERS = 100


class Proofs:
    """Collects (name, holds, detail) and prints each as it is found."""

    def __init__(self, terminal):
        self._terminal = terminal
        self.results = []

    def add(self, name, holds, detail):
        self.results.append({"name": name, "holds": bool(holds), "detail": detail})
        self._terminal.proof(holds, f"{name}: {detail}" if detail else name)

    def all_hold(self):
        return all(result["holds"] for result in self.results)


def totals(proofs, demo, when):
    """Items and users of engine and sidecar, against the count; then every single id."""
    expected = demo.expected
    for name in ("engine", "sidecar"):
        status = demo.client(name).status()
        proofs.add(f"{when}, the {name}'s totals are the input's",
                   status["items_live"] == len(expected.live) and status["users"] == len(expected.users),
                   f"{status['items_live']:,} items and {status['users']:,} users; counted in the files: "
                   f"{len(expected.live):,} and {len(expected.users):,}")


def every_item(proofs, demo):
    expected = demo.expected
    for name in ("engine", "sidecar"):
        client = demo.client(name)
        missing = [item for item in expected.live if not client.item_is_live(item)]
        risen = [item for item in expected.deleted if client.item_is_live(item)]
        proofs.add(f"asked one by one, the {name} has every live item and no deleted one", not missing and not risen,
                   f"{len(expected.live):,} live, {len(expected.deleted):,} deleted"
                   + (f"; missing {missing[:3]}" if missing else "") + (f"; risen {risen[:3]}" if risen else ""))


def sidecar_equals_engine(proofs, demo, users):
    """The same answers, exact search, ids and scores."""
    different = []
    for user in users:
        answers = [demo.client(name).recall(user=user, k=100, exclude_seen=True, params={"exact": True})["results"]
                   for name in ("engine", "sidecar")]
        first, second = ({hit["id"]: hit["score"] for hit in answer} for answer in answers)
        # Items of equal score may change places at the end of the list.
        tolerance = 1e-4
        floor = min(first.values(), default=0) + tolerance
        same = len(answers[0]) == len(answers[1]) and all(
            (hit in second and abs(second[hit] - score) < tolerance) or score <= floor for hit, score in first.items())
        if not same:
            different.append(user)
    proofs.add("the sidecar answers as the engine does", not different,
               f"{len(users)} users, 100 items each, ids and scores"
               + (f"; different for {different[:3]}" if different else ""))


def nothing_seen(proofs, demo, users):
    """With exclude_seen no answer holds what the user had: no interaction was lost on the way."""
    wrong = []
    for user in users:
        hits = demo.client("sidecar").recall(user=user, k=1000, exclude_seen=True)["results"]
        again = [hit["id"] for hit in hits if hit["id"] in demo.expected.seen[user]]
        if again or not hits:
            wrong.append((user, again[:3]))
    had = sum(len(demo.expected.seen[user]) for user in users)
    proofs.add("no answer repeats what its user had", not wrong,
               f"{len(users)} users, {had:,} items they had, answers of 1,000"
               + (f"; wrong for {wrong[:3]}" if wrong else ""))


def sample_users(seen, count=SAMPLE_USERS):
    """Evenly over the users, in a fixed order."""
    users = sorted(seen)
    step = max(1, len(users) // count)
    return users[::step][:count]


def new_product(proofs, demo):
    """Sends one product that nobody has seen before, and asks the sidecar for its like until an answer holds it."""
    twin_id, twin = max(demo.expected.live.items(), key=lambda entry: (len(title_of(entry[1])), entry[0]))
    new_id = "DEMO-NEW-PRODUCT"
    event = dict(twin, item_id=new_id)
    event.pop("timestamp", None)
    attributes = dict(twin.get("attributes") or {})
    for key in ("title", "name", "description"):
        if key in attributes:
            attributes[key] = f"{attributes[key]} (NEW)"
    event["attributes"] = attributes
    sidecar = demo.client("sidecar")

    def answer_holds_it():
        return any(hit["id"] == new_id for hit in sidecar.recall(item=twin_id, k=200)["results"])

    if answer_holds_it():
        raise DemoError(f"{new_id} is in an answer before it was sent")
    before = demo.freshness("sidecar")
    sent = demo.replay_one("items", event)
    wait_for(f"{new_id} in the sidecar's answers", answer_holds_it, 20, every=0.002)
    found_ms = (time.time() - sent["acked_at"]) * 1e3
    seconds = time.time() - sent["started_at"]
    # Of this one record: the histogram says only between which bounds.
    within = demo.freshness("sidecar").since(before).bound(1.0) or 0
    demo.expected.item(event)
    demo.figures["new_product_found_ms"] = round(seconds * 1e3, 1)
    demo.figures["new_product_searchable_within_ms"] = round(within * 1e3, 1)
    demo.figures["new_product_found_after_producer_exit_ms"] = round(found_ms, 1)
    proofs.add("a new product is found", demo.client("engine").item_is_live(new_id),
               f"asked for things like \"{title_of(twin)}\", the sidecar names it {seconds * 1e3:.0f} ms after the "
               f"producer program was started (its start-up and the broker's acknowledgement included), "
               f"{max(0.0, found_ms):.0f} ms after it ended; searchable within {within * 1e3:.0f} ms of its timestamp")
    return twin_id, new_id


def deleted_product(proofs, demo, twin_id, new_id):
    """Deletes it again by a null record; it must be in no answer any more."""
    sidecar, engine = demo.client("sidecar"), demo.client("engine")
    event = {"item_id": new_id, "deleted": True}
    sent = demo.replay_one("items", event)
    wait_for(f"{new_id} gone from the sidecar", lambda: not sidecar.item_is_live(new_id), 20, every=0.002)
    seconds = time.time() - sent["started_at"]
    demo.expected.item(event)
    demo.figures["deleted_product_gone_ms"] = round(seconds * 1e3, 1)
    demo.wait_until_applied()
    queries = [{"item": twin_id}, *({"user": user} for user in sample_users(demo.expected.seen, 50))]
    found = sum(hit["id"] == new_id for client in (engine, sidecar) for query in queries
                for hit in client.recall(k=1000, **query)["results"])
    proofs.add("a deleted one is gone", found == 0 and not engine.item_is_live(new_id),
               f"{seconds * 1e3:.0f} ms after the producer program was started; "
               f"in none of {2 * len(queries)} answers of 1,000")


def kill_engine(proofs, demo, part):
    """kill -9 of the engine while `part` is streamed; the sidecar must answer meanwhile, the engine must catch up."""
    terminal = demo.terminal
    before = demo.client("engine").status()
    users = sample_users(demo.expected.seen, 20)
    replay = demo.start_replay(part, demo.stream_rate * 2 / 3)
    third = part.count() / 3

    def a_third_is_through():
        demo.live(demo.watch())
        return demo.client("engine").status()["sequence"] - before["sequence"] >= third

    wait_for("a third of the second stretch is applied", a_third_is_through, 60, every=0.1)
    demo.processes.kill("engine")
    killed = time.monotonic()
    terminal.line(f"kill -{signal.SIGKILL.value} of the engine, {part.count() - int(third):,} events before the end")
    demo.start_engine(wait=False)
    answered = failed = 0
    back = None
    while back is None:
        if time.monotonic() - killed > 60:
            raise DemoError("the engine was not ready within 60 s of its restart")
        demo.processes.check_alive("engine")
        try:
            answers = demo.client("sidecar").recall(user=users[answered % len(users)], k=10)["results"]
            answered += bool(answers)
            failed += not answers
        except (OSError, http.client.HTTPException, RuntimeError):
            failed += 1
        if demo.engine_ready():
            back = time.monotonic() - killed
    demo.figures["restart_after_kill_seconds"] = round(back, 2)
    part.tell(demo.expected)
    demo.finish_replay(replay)
    demo.wait_until_applied()
    demo.figures["restart_and_caught_up_seconds"] = round(time.monotonic() - killed, 2)
    proofs.add("the engine comes back after kill -9", True,
               f"it answers {back:.1f} s after the kill, index rebuilt from its store")
    proofs.add("the sidecar answered meanwhile", failed == 0 and answered > 0,
               f"{answered} of {answered + failed} questions")
