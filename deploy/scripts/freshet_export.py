"""Writes towers made in PyTorch as a model package that freshet serves. Needs torch; xxhash where a feature has buckets.

    import freshet_export as export
    export.write_package(directory, name="mine", version="1", dim=64, metric="cosine",
                         item_tower=item, user_tower=user,           # modules; forward(indices, offsets, dense)
                         item_features=[...], user_features=[...],   # the keys of encoder/README.md
                         golden_items=[{"item_id": "a", "features": {}}],
                         golden_users=[{"user_id": "u", "features": {}, "history": [{"item_id": "a"}]}])

The towers are scripted, saved, loaded again, and run on the goldens; `freshet model verify DIRECTORY` says whether
freshet's LibTorch answers the same within `tolerance`. The format is described in encoder/README.md.
"""

import hashlib
import json
import math
import os
import re
import shutil
import struct

import torch

KINDS = ["categorical", "multi_valued", "text", "dense", "history"]
TEXT = re.compile("[a-z0-9\u0080-\U0010ffff]+")


def _row(feature, value):
    """The row of a value within its feature's range; None: it is left out."""
    words = feature.get("vocabulary", [])
    if value in words:
        return words.index(value)
    buckets = feature.get("buckets", 0)
    if buckets == 0:
        return None
    if buckets == 1:
        return len(words)
    import xxhash  # pylint: disable=import-outside-toplevel
    return len(words) + xxhash.xxh3_64_intdigest(value.encode()) % buckets


def _values(feature, record):
    name, kind = feature["name"], feature["kind"]
    if kind == "history":
        return [event["item_id"] for event in reversed(record.get("history", []))]
    value = record.get(name) if name in ("item_id", "user_id") else record.get("features", {}).get(name)
    if value is None:
        return []
    if kind == "text":
        lowered = "".join(c.lower() if c.isascii() else c for c in value)
        return TEXT.findall(lowered)
    values = value if isinstance(value, list) else [value]
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values]


def extract(features, records):
    """(indices, offsets, dense) of `bags-dense-v1`, as freshet extracts them."""
    indices, offsets, dense = [], [], []
    for record in records:
        base = 0
        for feature in features:
            if feature["kind"] == "dense":
                x = record.get("features", {}).get(feature["name"])
                if x is not None and feature.get("log", False):
                    x = math.log1p(max(x, 0.0))
                scaled = 0.0 if x is None else (x - feature.get("mean", 0.0)) / feature.get("stddev", 1.0)
                dense.append(min(max(scaled, -10.0), 10.0))
                continue
            offsets.append(len(indices))
            rows = [_row(feature, v) for v in _values(feature, record)[:feature.get("max_values", 64)]]
            indices += [base + row for row in rows if row is not None]
            base += len(feature.get("vocabulary", [])) + feature.get("buckets", 0)
    columns = sum(feature["kind"] == "dense" for feature in features)
    return (torch.tensor(indices, dtype=torch.int64), torch.tensor(offsets, dtype=torch.int64),
            torch.tensor(dense, dtype=torch.float32).reshape(len(records), columns))


def table_rows(features):
    """Rows of the embedding table over all features that are bags."""
    return sum(len(f.get("vocabulary", [])) + f.get("buckets", 0) for f in features if f["kind"] != "dense")


def _bits(x):
    return struct.pack(">d", float(x)).hex()


def _canonical(tower, features):
    lines = []
    for f in features:
        dense, words = f["kind"] == "dense", f.get("vocabulary", [])
        lines.append(" ".join([
            tower, str(KINDS.index(f["kind"])), str(0 if dense else f.get("buckets", 0)),
            str(64 if dense else f.get("max_values", 64)), _bits(f.get("mean", 0.0) if dense else 0.0),
            _bits(f.get("stddev", 1.0) if dense else 1.0), str(int(dense and f.get("log", False))), str(len(words)),
            json.dumps(f["name"], ensure_ascii=False)]))
        lines += [json.dumps(word, ensure_ascii=False) for word in words]
    return lines


def _yaml(features):
    lines = []
    for f in features:
        lines.append(f"  - {json.dumps(f, ensure_ascii=False)}")
    return lines


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_package(directory, *, name, version, dim, item_tower, user_tower, item_features, user_features, golden_items,
                  golden_users, metric="cosine", tolerance=1e-5):
    """Writes the package as a whole beside `directory`, then renames it there; returns the embedding space id."""
    temporary = directory.rstrip("/") + ".tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    goldens = {"tolerance": tolerance, "items": [], "users": []}
    sums = {}
    for side, tower, features, records in (("item", item_tower, item_features, golden_items),
                                           ("user", user_tower, user_features, golden_users)):
        path = os.path.join(temporary, f"{side}_tower.pt")
        torch.jit.script(tower.eval()).save(path)
        with torch.inference_mode():
            vectors = torch.jit.load(path)(*extract(features, records))
        if metric == "cosine":
            vectors = torch.nn.functional.normalize(vectors)
        if vectors.shape != (len(records), dim) or not torch.isfinite(vectors).all():
            raise ValueError(f"the {side} tower answers {tuple(vectors.shape)}, or numbers that are not finite")
        for record, vector in zip(records, vectors.tolist()):
            entry = {"features": {}, **record, "vector": vector}
            if side == "user":
                entry["history"] = [{"event": "view", "value": 1.0, "timestamp": 0, **event}
                                    for event in record.get("history", [])]
            goldens[side + "s"].append(entry)
        with open(path, "rb") as f:
            sums[f"{side}_tower.pt"] = _sha256(f.read())

    with open(os.path.join(temporary, "goldens.json"), "w", encoding="utf-8") as f:
        text = json.dumps(goldens, ensure_ascii=False)
        f.write(text)
    sums["goldens.json"] = _sha256(text.encode())
    space = "\n".join(["freshet-space-v1", sums["item_tower.pt"], sums["user_tower.pt"], metric, str(dim)] +
                      _canonical("item", item_features) + _canonical("user", user_features)) + "\n"
    space_id = _sha256(space.encode())[:16]
    manifest = "\n".join(
        ["format: 1", f"name: {json.dumps(name)}", f"version: {json.dumps(version)}", f'embedding_space_id: "{space_id}"',
         f"dim: {dim}", f"metric: {metric}", 'signature: "bags-dense-v1"', f'library: "PyTorch {torch.__version__}"',
         "files:"] + [f'  {file}: "{digest}"' for file, digest in sorted(sums.items())] +
        ["item_features:"] + _yaml(item_features) + ["user_features:"] + _yaml(user_features)) + "\n"
    with open(os.path.join(temporary, "model.yaml"), "w", encoding="utf-8") as f:
        f.write(manifest)
    with open(os.path.join(temporary, "model.yaml.sha256"), "w", encoding="utf-8") as f:
        f.write(f"{_sha256(manifest.encode())}  model.yaml\n")
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(temporary, directory)
    return space_id
