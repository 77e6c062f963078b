#!/usr/bin/env python3
"""Proves that an include that the layers forbid does not compile, by planting one.

For each layer, a source that includes one header is compiled with the very command line of one of that layer's own
sources. A header of its own layer or of one that it may include must compile; any other must not, for the reason that it is
not found.

  forbidden_include.py BUILD_DIR
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

LAYERS = ["core", "ingest", "encoder", "indexer", "store", "query", "deploy"]  # data walks this way
SEES = {"indexer": ["core", "indexer"]}  # it can be taken alone; the others see all to their left
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def folder(layer):
    return os.path.join(ROOT, "ingest/core" if layer == "core" else layer)


def headers(layer):
    """`freshet/<layer>/x.h` for each public header of the layer."""
    base = os.path.join(folder(layer), "include/freshet", layer)
    return [f"freshet/{layer}/{name}" for name in sorted(os.listdir(base)) if name.endswith(".h")]


def command_of(layer, entries):
    """The compile command of one source of the layer, without what it compiles and where to; and its directory."""
    sources = folder(layer) + "/src/"
    for entry in entries:
        path = os.path.join(entry["directory"], entry["file"])
        if not path.startswith(sources):
            continue
        words = entry.get("arguments") or shlex.split(entry["command"])
        if os.path.basename(words[0]) == "ccache":
            words = words[1:]
        kept = []
        skip = False
        for word in words:
            if skip or word in ("-c", entry["file"], path):
                skip = False
            elif word in ("-o", "-MF", "-MT", "-MQ"):
                skip = True
            else:
                kept.append(word)
        return kept, entry["directory"]
    raise SystemExit(f"no source of {layer} in compile_commands.json")


def compile_with(command, directory, header):
    """Compiles a source that includes `header`; returns (compiled, compiler's messages)."""
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "planted.cc")
        with open(source, "w", encoding="utf-8") as f:
            f.write(f'#include "{header}"\n')
        run = subprocess.run(command + ["-fsyntax-only", source], cwd=directory, capture_output=True, text=True,
                             env={**os.environ, "LC_ALL": "C"}, check=False)
        return run.returncode == 0, run.stderr


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with open(os.path.join(sys.argv[1], "compile_commands.json"), encoding="utf-8") as f:
        entries = json.load(f)
    wrong = []
    refused = accepted = 0
    for place, layer in enumerate(LAYERS):
        command, directory = command_of(layer, entries)
        seen = SEES.get(layer, LAYERS[: place + 1])
        for other in LAYERS:
            for header in headers(other)[:1] if other in seen else headers(other):
                compiled, messages = compile_with(command, directory, header)
                if other in seen:
                    accepted += 1
                    if not compiled:
                        wrong.append(f"{layer} must be able to include {header}:\n{messages}")
                else:
                    refused += 1
                    if compiled:
                        wrong.append(f"{layer} compiles with {header}, which it may not include")
                    elif not re.search(re.escape(header) + "(: No such file or directory|' file not found)", messages):
                        wrong.append(f"{layer} with {header} fails, but not because it is not found:\n{messages}")
    print("\n".join(wrong) if wrong else f"{refused} forbidden includes refused, {accepted} others compiled")
    return 1 if wrong or refused == 0 or accepted == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
