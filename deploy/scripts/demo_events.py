"""The demo's own reading of the event files: it splits them by time and counts what must be true, in Python, so that
the engine's totals are held against something that shares no code with it."""

import datetime
import glob
import json
import os


def utc(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)


def title_of(item):
    """A name for people, from an item's attributes."""
    attributes = item.get("attributes") or {}
    for key in ("title", "name", "description"):
        if attributes.get(key):
            return " ".join(str(attributes[key]).split())
    return ""


class Expected:
    """What must hold after the given events: live items, users, what each user has had. Last write wins."""

    def __init__(self):
        self.live = {}     # item id -> last value of a live item
        self.deleted = set()
        self.users = set()
        self.seen = {}     # user id -> item ids, oldest first
        self.events = 0

    def item(self, event):
        self.events += 1
        if event.get("deleted"):
            self.live.pop(event["item_id"], None)
            self.deleted.add(event["item_id"])
        else:
            self.live[event["item_id"]] = event
            self.deleted.discard(event["item_id"])

    def interaction(self, event):
        self.events += 1
        self.users.add(event["user_id"])
        self.seen.setdefault(event["user_id"], {})[event["item_id"]] = True

    def user(self, event):
        self.events += 1
        self.users.add(event["user_id"])


class Part:
    """A stretch of the stream: files to replay, and the events in them."""

    def __init__(self, directory):
        self.directory = directory
        self.files = {}   # topic -> path
        self.events = {"items": [], "interactions": [], "users": []}

    def add(self, topic, line, event):
        self.events[topic].append((line, event))

    def write(self):
        os.makedirs(self.directory)
        for topic, events in self.events.items():
            if events:
                self.files[topic] = os.path.join(self.directory, topic + ".jsonl")
                with open(self.files[topic], "w", encoding="utf-8") as f:
                    f.writelines(line for line, _ in events)

    def count(self):
        return sum(map(len, self.events.values()))

    def tell(self, expected):
        for _, event in self.events["items"]:
            expected.item(event)
        for _, event in self.events["users"]:
            expected.user(event)
        for _, event in self.events["interactions"]:
            expected.interaction(event)


class EventFiles:
    """What `freshet import` wrote into a directory: items, interactions and, for some data sets, users."""

    def __init__(self, directory):
        self.paths = {}
        for topic in ("items", "interactions", "users"):
            found = glob.glob(os.path.join(directory, topic + ".jsonl"))
            if found:
                self.paths[topic] = found[0]
        self.lines = {topic: list(self._read(path)) for topic, path in self.paths.items()}

    @staticmethod
    def _read(path):
        with open(path, encoding="utf-8") as f:
            for line in f:
                yield line, json.loads(line)

    def times(self):
        """Of the interactions, sorted."""
        return sorted(event["timestamp"] for _, event in self.lines["interactions"])

    def split(self, directory, until_ms, share, most):
        """Three parts: the catalogue (users and items before `until_ms`), and what comes after it in two parts, the
        first with `share` of the interactions, of which at most `most` are taken. Interactions before `until_ms` are
        training's and are not streamed."""
        after = [time for time in self.times() if time >= until_ms]
        end_ms = after[min(len(after), most) - 1]
        middle_ms = after[int(min(len(after), most) * share)]
        parts = [Part(os.path.join(directory, name)) for name in ("catalogue", "first", "second")]
        for topic, lines in self.lines.items():
            for line, event in lines:
                time = event.get("timestamp", 0)
                if time < until_ms:
                    if topic != "interactions":
                        parts[0].add(topic, line, event)
                elif time <= end_ms:
                    parts[1 if time < middle_ms else 2].add(topic, line, event)
        for part in parts:
            part.write()
        return parts
