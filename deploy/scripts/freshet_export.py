"""Writes towers made in PyTorch as a model package that freshet serves. Needs torch, and freshet_features.py beside it,
which extracts features.

    import freshet_export as export
    export.write_package(directory, name="mine", version="1", dim=64, metric="cosine",
                         item_tower=item, user_tower=user,           # modules; forward(indices, offsets, dense)
                         item_features=[...], user_features=[...],   # the keys of encoder/README.md
                         golden_items=[{"item_id": "a", "features": {}}],
                         golden_users=[{"user_id": "u", "features": {}, "history": [{"item_id": "a"}]}])

With reranker=module (forward(x: Dict[str, Tensor]), see "The re-ranker" there) the package brings a re-ranker too; add_reranker()
gives one to a package that is there, as `freshet train` writes them.

The towers are scripted, saved, loaded again, and run on the goldens; `freshet model verify DIRECTORY` says whether
freshet's LibTorch answers the same within `tolerance`. The format is described in encoder/README.md.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile

from freshet_features import KINDS, extract, extract_lists, reads_ngrams, stream_features, table_rows

__all__ = ["add_reranker", "extract", "extract_lists", "rerank_inputs", "table_rows", "write_package"]

MANIFEST = "model.yaml"
GOLDENS = "goldens.json"
RERANKER = "reranker.pt"


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
        if "boundaries" in f:
            lines.append(" ".join(["+boundaries", str(len(f["boundaries"]))] + [_bits(x) for x in f["boundaries"]]))
        if f["kind"] == "history_gaps":
            lines.append(f"+to {f.get('to', 'newest')}")
        if reads_ngrams(f):
            lines.append(" ".join(["+ngrams", str(f.get("word_ngrams", 1))] + [str(n) for n in f.get("char_ngrams", (0, 0))]))
    return lines


def _format(*specs):
    """The lowest that can hold these features."""
    return 2 if any(KINDS.index(f["kind"]) > KINDS.index("history") or reads_ngrams(f) for spec in specs for f in spec) else 1


def _space_id(sums, metric, dim, specs):
    lines = ["freshet-space-v1", sums["item_tower.pt"], sums["user_tower.pt"], metric, str(dim)]
    for side, features in specs:
        lines += _canonical(side, features)
    return _sha256(("\n".join(lines) + "\n").encode())[:16]


def _yaml(features):
    lines = []
    for f in features:
        lines.append(f"  - {json.dumps(f, ensure_ascii=False)}")
    return lines


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _target_of(directory):
    """Where the package goes, links resolved. What is there must be a package, or nothing."""
    target = os.path.realpath(directory)
    if os.path.lexists(target) and not os.path.isdir(target):
        raise FileExistsError(f"{target} exists and is no directory")
    if os.path.isdir(target) and os.listdir(target) and not os.path.exists(os.path.join(target, MANIFEST)):
        raise FileExistsError(f"{target} exists and is no model package (it has no {MANIFEST}): choose another directory")
    return target


def _write(path, data):
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def _publish(temporary, target):
    """Puts a complete package in the place of an old one, which is removed only then; on an error it is put back."""
    old = temporary + ".old"
    replaced = os.path.isdir(target)
    if replaced:
        os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        if replaced:
            os.rename(old, target)
        raise
    if replaced:
        shutil.rmtree(old)


def _write_beside(directory, write):
    """Has `write` fill a new directory, puts that in the place of `directory`, and returns what `write` did."""
    target = _target_of(directory)
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.tmp.", dir=parent)
    try:
        written = write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o777 & ~umask)  # mkdtemp's are for one user only
        _publish(temporary, _target_of(directory))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def write_package(directory, *, name, version, dim, item_tower, user_tower, item_features, user_features, golden_items,
                  golden_users, metric="cosine", tolerance=1e-5, reranker=None, reranker_item_features=(),
                  reranker_user_features=(), golden_attributes=None):
    """Writes the package as a whole beside `directory`, then renames it there; returns the embedding space id.

    A package that is there stays until the new one is complete; any other directory with something in it is refused.
    The re-ranker's features, and golden_attributes, are those of add_reranker().
    """

    def write(temporary):
        space_id = _write_files(temporary, name, version, dim, metric, tolerance,
                                (("item", item_tower, item_features, golden_items),
                                 ("user", user_tower, user_features, golden_users)))
        if reranker is not None:
            _write_reranker(temporary, reranker, reranker_item_features, reranker_user_features, golden_attributes or {})
        return space_id

    return _write_beside(directory, write)


def add_reranker(package, directory, *, reranker, item_features=(), user_features=(), golden_attributes=None):
    """Writes `package` with this re-ranker to `directory`, which may be the same; the embedding space stays.

    item_features are of the items' attributes. What it must answer is computed for the package's golden users and items;
    golden_attributes gives these attributes: {"item id": {"price": 3}}.
    """

    def write(temporary):
        for file in (MANIFEST, GOLDENS, "item_tower.pt", "user_tower.pt"):
            shutil.copyfile(os.path.join(package, file), os.path.join(temporary, file))
        manifest = _read(os.path.join(temporary, MANIFEST))
        if _read(os.path.join(package, MANIFEST + ".sha256")).split()[:1] != [_sha256(manifest.encode())]:
            raise ValueError(f"{package}: {MANIFEST} is not what its sum says")
        if f'"{_sha256(_read(os.path.join(temporary, GOLDENS)).encode())}"' not in manifest:
            raise ValueError(f"{package}: {GOLDENS} is not what its sum says")
        _write_reranker(temporary, reranker, item_features, user_features, golden_attributes or {})

    _write_beside(directory, write)


def _read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def _attribute_features(attributes):
    """Attributes as the re-ranker's features: a bool is a number, lists of anything but texts are left out."""
    return {name: value for name, value in stream_features({"features": attributes}).items()
            if not isinstance(value, list) or all(isinstance(part, str) for part in value)}


def rerank_inputs(user, items, item_features=(), user_features=()):
    """What a re-ranker is given, as freshet makes it, for training: `user` as in a golden with its `vector`, each item with
    `item_id`, `vector`, `similarity`, and where they are known `attributes`, `popularity` and `age_hours`."""
    import torch  # pylint: disable=import-outside-toplevel
    records = [{"item_id": item["item_id"], "features": _attribute_features(item.get("attributes", {}))} for item in items]
    inputs = {"user_vector": torch.tensor(user["vector"], dtype=torch.float32),
              "item_vectors": torch.tensor([item["vector"] for item in items], dtype=torch.float32)}
    for signal, unknown in (("similarity", 0.0), ("popularity", 0.0), ("age_hours", -1.0)):
        inputs[signal] = torch.tensor([item.get(signal, unknown) for item in items], dtype=torch.float32)
    for side, features, rows in (("user", user_features, [user]), ("item", item_features, records)):
        parts = extract(features, rows)
        for part, tensor in zip(("indices", "offsets", "dense"), parts):
            inputs[f"{side}_{part}"] = tensor
    return inputs


def _similarity(metric, a, b):
    if metric == "l2":
        return -sum((x - y) ** 2 for x, y in zip(a, b))
    return sum(x * y for x, y in zip(a, b))


def _write_reranker(directory, reranker, item_features, user_features, attributes):
    import torch  # pylint: disable=import-outside-toplevel
    path = os.path.join(directory, RERANKER)
    torch.jit.script(reranker.eval()).save(path)
    script = torch.jit.load(path)
    manifest = _read(os.path.join(directory, MANIFEST))
    metric = re.search("^metric: (.*)$", manifest, re.M).group(1)
    goldens = json.loads(_read(os.path.join(directory, GOLDENS)))
    goldens["reranks"] = []
    for user in goldens["users"]:
        items = [{"item_id": item["item_id"], "attributes": attributes.get(item["item_id"], {}), "vector": item["vector"],
                  "similarity": _similarity(metric, user["vector"], item["vector"]), "popularity": 0.5 * place,
                  "age_hours": place - 1.0} for place, item in enumerate(goldens["items"])]
        with torch.inference_mode():
            scores = script(rerank_inputs(user, items, item_features, user_features))
        if tuple(scores.shape) != (len(items),) or not torch.isfinite(scores).all():
            raise ValueError(f"the re-ranker answers {tuple(scores.shape)}, or numbers that are not finite")
        for item in items:
            item["features"] = _attribute_features(item.pop("attributes"))
        goldens["reranks"].append({**user, "items": items, "scores": scores.tolist()})
    text = json.dumps(goldens, ensure_ascii=False).encode()
    _write(os.path.join(directory, GOLDENS), text)
    with open(path, "rb") as f:
        digest = _sha256(f.read())
        os.fsync(f.fileno())
    manifest = re.sub('^  reranker\\.pt: .*\n', "", manifest, flags=re.M)
    manifest = re.sub("^reranker:\n(?: .*\n)*", "", manifest, flags=re.M)
    manifest = re.sub("^  goldens\\.json: .*$", f'  goldens.json: "{_sha256(text)}"\n  {RERANKER}: "{digest}"', manifest,
                      flags=re.M)
    if _format(item_features, user_features) == 2:
        manifest = re.sub("^format: 1$", "format: 2", manifest, flags=re.M)
    lines = ["reranker:", '  signature: "rerank-v1"']
    for key, features in (("item_features", item_features), ("user_features", user_features)):
        lines += [f"  {key}:"] + _yaml(features) if features else []
    _write_manifest(directory, manifest + "\n".join(lines) + "\n")


def _write_manifest(directory, manifest):
    _write(os.path.join(directory, MANIFEST), manifest.encode())
    _write(os.path.join(directory, MANIFEST + ".sha256"), f"{_sha256(manifest.encode())}  {MANIFEST}\n".encode())


def _write_files(directory, name, version, dim, metric, tolerance, sides):
    import torch  # pylint: disable=import-outside-toplevel
    goldens = {"tolerance": tolerance, "items": [], "users": []}
    sums = {}
    for side, tower, features, records in sides:
        path = os.path.join(directory, f"{side}_tower.pt")
        torch.jit.script(tower.eval()).save(path)
        with torch.inference_mode():
            vectors = torch.jit.load(path)(*extract(features, records))
        if metric == "cosine":
            vectors = torch.nn.functional.normalize(vectors)
        if vectors.shape != (len(records), dim) or not torch.isfinite(vectors).all():
            raise ValueError(f"the {side} tower answers {tuple(vectors.shape)}, or numbers that are not finite")
        for record, vector in zip(records, vectors.tolist()):
            entry = {**record, "features": stream_features(record), "vector": vector}
            if side == "user":
                entry["history"] = [{"event": "view", "value": 1.0, "timestamp": 0, **event}
                                    for event in record.get("history", [])]
            goldens[side + "s"].append(entry)
        with open(path, "rb") as f:
            sums[f"{side}_tower.pt"] = _sha256(f.read())
            os.fsync(f.fileno())

    text = json.dumps(goldens, ensure_ascii=False).encode()
    _write(os.path.join(directory, GOLDENS), text)
    sums[GOLDENS] = _sha256(text)
    specs = [(side, features) for side, _, features, _ in sides]
    space_id = _space_id(sums, metric, dim, specs)
    manifest = "\n".join(
        [f"format: {_format(*(features for _, features in specs))}", f"name: {json.dumps(name)}",
         f"version: {json.dumps(version)}", f'embedding_space_id: "{space_id}"', f"dim: {dim}", f"metric: {metric}", 'signature: "bags-dense-v1"', f'library: "PyTorch {torch.__version__}"',
         "files:"] + [f'  {file}: "{digest}"' for file, digest in sorted(sums.items())] +
        [line for side, features in specs for line in [f"{side}_features:"] + _yaml(features)]) + "\n"
    _write_manifest(directory, manifest)
    return space_id
