#!/usr/bin/env python3
"""The rules of the layout that a compiler does not check. Prints every breach as `file:line: what`; exits 1 if any.

The owner fixed the top level and the direction of the data; style.md's habits that a pattern can find are here too.
"""

import os
import re
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
LAYERS = ["core", "ingest", "encoder", "indexer", "store", "query", "deploy"]  # data walks this way
FOLDERS = ["ingest", "encoder", "indexer", "store", "query", "deploy", "tests"]
TOP_LEVEL = set(FOLDERS) | {"CMakeLists.txt", "README.md", "LICENSE"}
LONG_FILE = 450
ALONE = {"indexer": ["core", "indexer"]}  # what can be taken alone, and all that it includes

# Third-party headers: pattern of the include -> the only files that may have it (tests: see TEST_ADAPTERS).
ADAPTERS = [
    (r"librdkafka/", r"ingest/src/kafka_[^/]*|tests/support/src/kafka_transactions\.cc"),
    (r"(torch|ATen|c10|caffe2)/", r"encoder/src/torch_[^/]*"),
    (r"hnswlib/", r"indexer/src/[^/]*"),
    (r"rocksdb/", r"store/src/store[^/]*|tests/unit/store/fault_env\.h"),
    (r"yaml-cpp/", r"ingest/core/src/yaml\.cc"),
    (r"boost/", r"query/src/http_[^/]*"),
    (r"grpc(pp)?/|.*\.grpc\.pb\.h", r"(query/src|tests/unit/query)/grpc_[^/]*"),
    (r"prometheus/", r"ingest/core/src/metrics\.cc"),
    (r"spdlog/", r"ingest/core/src/log\.cc"),
    (r"rapidjson/", r"ingest/core/(include/freshet/core/json\.h|src/json\.cc)"),
    (r"simdjson\.h", r"ingest/core/src/json_arena\.cc"),
    (r"CLI/", r"deploy/src/[^/]*|tests/unit/deploy/[^/]*"),
    (r"(xxhash|zstd)\.h|openssl/", r"ingest/core/src/[^/]*|tests/unit/core/[^/]*"),
]
# The peers of a benchmark are the libraries themselves.
TEST_ADAPTERS = r"tests/bench/.*"

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SLEEP = re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep)\b|(?<![\w.:>])sleep\s*\(")


def layer_of(path):
    """The layer that a source file belongs to; None for tests and for what is no source."""
    if path.startswith("ingest/core/"):
        return "core"
    top = path.split("/", 1)[0]
    return top if top in LAYERS else None


def ignored_at_top():
    """Names that .gitignore anchors at the top (`/build/`)."""
    with open(os.path.join(ROOT, ".gitignore"), encoding="utf-8") as f:
        return {line.strip().strip("/") for line in f if line.startswith("/")}


def check_top_level():
    for name in sorted(set(os.listdir(ROOT)) - TOP_LEVEL - ignored_at_top()):
        if not name.startswith("."):
            yield f"{name}: the top level holds only {', '.join(sorted(TOP_LEVEL))}"


def files():
    for folder in FOLDERS:
        for directory, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                yield os.path.relpath(os.path.join(directory, name), ROOT)


def check_include(path, kind, target):
    layer = layer_of(path)
    if ".." in target.split("/"):
        yield f'"{target}": includes name a header by its layer, never by ".."'
    made = target.endswith(".pb.h")  # by protoc: its folder is the package's name
    match = None if made else re.match(r"freshet/([^/]+)/", target)
    if match and layer:
        other = match.group(1)
        if other not in LAYERS:
            yield f'"{target}": there is no layer {other}'
        elif LAYERS.index(other) > LAYERS.index(layer):
            yield f'"{target}": {layer} may not include {other}, which is to its right'
        elif other not in ALONE.get(layer, LAYERS):
            yield f'"{target}": {layer} is taken alone and may not include {other}'
    if match and kind == "<":
        yield f"<{target}>: our own headers are included with quotes"
    for pattern, place in ADAPTERS:
        if re.match(pattern, target) and not re.fullmatch(place, path) and not re.fullmatch(TEST_ADAPTERS, path):
            yield f"<{target}>: only {place} may include it"


def check_source(path, lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            for breach in check_include(path, *match.groups()):
                yield f"{path}:{number}: {breach}"
        if path.startswith("tests/") and not path.startswith("tests/support/") and SLEEP.search(line):
            yield f"{path}:{number}: tests wait on conditions (WaitFor), they do not sleep"


def check_files():
    for path in files():
        name = os.path.basename(path)
        source = name.endswith((".cc", ".h"))
        if not source and not name.endswith((".cmake", ".json", ".py")) and name != "CMakeLists.txt":
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            lines = f.read().splitlines()
        if source or name.endswith(".py"):
            if len(lines) > LONG_FILE:
                print(f"warning: {path}: {len(lines)} lines; a file has one idea and under about 400", file=sys.stderr)
        if path != "tests/lint/check_layout.py":
            for number, line in enumerate(lines, 1):
                if re.search(r"-ffast-math|-Ofast", re.split(r"//|#", line, maxsplit=1)[0]):
                    yield f"{path}:{number}: fast-math changes results and reaches other libraries: never"
        if source:
            yield from check_source(path, lines)


def main():
    breaches = [*check_top_level(), *check_files()]
    for breach in breaches:
        print(breach)
    print(f"layout: {len(breaches)} breaches" if breaches else "layout: clean", file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
