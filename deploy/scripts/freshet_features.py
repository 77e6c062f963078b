"""Features become rows of an embedding table and dense columns, as freshet makes them: the same to the bit, tested value by
value (tests/unit/encoder/feature_parity_test.cc). The keys of a feature are described in encoder/README.md. Needs xxhash
where a feature has more than one bucket; extract() needs torch, extract_lists() does not.
"""

import bisect
import math
import numbers
import re

KINDS = ["categorical", "multi_valued", "text", "dense", "history", "bucketised", "history_events", "history_gaps"]
TEXT = re.compile("[a-z0-9\u0080-\U0010ffff]+")
LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # of other letters the case stays


def _number_text(number):
    """A number as the text of a category: whole ones below 2^53 plainly, others as C++'s std::to_chars writes them."""
    x = float(number)
    if math.isfinite(x) and x == int(x) and abs(x) < 2**53:
        return str(int(x))
    if not math.isfinite(x):
        return repr(x)
    # The shortest digits that read back as x; then the shorter of both notations, plain where they are equally long.
    sign, digits, exponent = re.fullmatch(r"(-?)(\d(?:\.\d+)?)e([+-]\d+)", _scientific(x)).groups()
    exponent, count = int(exponent), len(digits.replace(".", ""))
    plain = exponent + 1 if exponent >= count - 1 else count + 1 if exponent >= 0 else count + 1 - exponent
    if plain > len(digits) + 4:
        return f"{sign}{digits}e{exponent:+03d}"
    if x == int(x):
        return str(int(x))
    return f"{x:.{count - 1 - exponent}f}"


def _scientific(x):
    for precision in range(17):
        text = f"{x:.{precision}e}"
        if float(text) == x:
            return text
    return f"{x:.17e}"


def stream_features(record):
    """A record's features as the stream has them: a bool is a number, and what is missing is absent."""
    features = {}
    for name, value in record.get("features", {}).items():
        if isinstance(value, bool):
            value = float(value)
        elif isinstance(value, (list, tuple)):
            value = [part for part in value if part is not None]
        if value is not None:
            features[name] = value
    return features


def _texts(feature, value):
    """A value of the stream as texts: what freshet's decoders take, and nothing else."""
    if isinstance(value, numbers.Real):
        return [_number_text(value)]
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, tuple)) or not all(part is None or isinstance(part, str) for part in value):
        raise ValueError(f"feature `{feature['name']}` must be a number, a bool, a text or a list of texts, not {value!r}")
    return [part for part in value if part is not None]


def _values(feature, record):
    """The values of a bag, in order."""
    name, kind, most = feature["name"], feature["kind"], feature.get("max_values", 64)
    if name in ("item_id", "user_id") and name in record:
        return [record[name]]
    value = record.get("features", {}).get(name)
    if value is None:
        return []
    texts = _texts(feature, value)
    if kind == "text" and reads_ngrams(feature):
        return _ngrams(feature, value, texts)[:most]
    if kind == "text" and not isinstance(value, numbers.Real):
        texts = [word for text in texts for word in TEXT.findall(text.translate(LOWER))]
    return texts[:1 if kind == "categorical" else most]


def reads_ngrams(feature):
    return feature.get("word_ngrams", 1) != 1 or "char_ngrams" in feature


def _ngrams(feature, value, texts):
    """Runs of words, the shortest first, none across two texts; then `#` and the runs of characters within <word>."""
    if isinstance(value, numbers.Real):
        parts = [texts]
    else:
        parts = [TEXT.findall(text.translate(LOWER)) for text in texts]
    grams = [" ".join(words[first:first + run]) for run in range(1, feature.get("word_ngrams", 1) + 1) for words in parts
             for first in range(len(words) - run + 1)]
    shortest, longest = feature.get("char_ngrams", (1, 0))
    marked = [f"<{word}>" for words in parts for word in words]
    grams += ["#" + word[first:first + run] for run in range(shortest, longest + 1) for word in marked
              for first in range(len(word) - run + 1)]
    return grams


def _bucket(feature, x):
    if not isinstance(x, numbers.Real) or not math.isfinite(x):
        return len(feature["boundaries"]) + 1
    return bisect.bisect_right(feature["boundaries"], float(x))


def _kept(feature, find, record):
    """Of the newest that were taken (a value of 0 or below is a return, or a thumb down) those that have a row, newest first,
    each with its row: what lies beside has as many."""
    taken = [event for event in reversed(record.get("history", [])) if event.get("value", 1.0) > 0]
    newest = taken[:feature.get("max_values", 64)]
    return [(event, row) for event, row in ((event, find(event["item_id"])) for event in newest) if row is not None]


def _gaps(feature, kept):
    """The buckets of the seconds from each interaction to the newest, or from the one before it."""
    times = [event.get("timestamp", 0) for event, _ in kept]
    times = [time if 0 < time < 2**53 else None for time in times]
    if feature.get("to", "newest") == "newest":
        pairs = [(times[0], time) for time in times]
    else:
        pairs = list(zip(times, times[1:] + [None]))
    return [_bucket(feature, None if None in pair else (pair[0] - pair[1]) / 1000) for pair in pairs]


def _dense(feature, record):
    x = record.get("features", {}).get(feature["name"])
    if not isinstance(x, numbers.Real) or not math.isfinite(x):
        return 0.0
    x = math.log1p(max(float(x), 0.0)) if feature.get("log", False) else float(x)
    return min(max((x - feature.get("mean", 0.0)) / feature.get("stddev", 1.0), -10.0), 10.0)


def _rows(feature):
    if "boundaries" in feature:
        return len(feature["boundaries"]) + 2
    return len(feature.get("vocabulary", [])) + feature.get("buckets", 0)


def _row_finder(feature):
    """Value -> its row within the feature's range; None: it is left out."""
    words = feature.get("vocabulary", [])
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"the vocabulary of `{feature['name']}` must hold texts only")
    rows = {word: row for row, word in enumerate(words)}
    buckets = feature.get("buckets", 0)

    def find(value):
        if value in rows or buckets == 0:
            return rows.get(value)
        if buckets == 1:
            return len(words)
        import xxhash  # pylint: disable=import-outside-toplevel
        return len(words) + xxhash.xxh3_64_intdigest(value.encode()) % buckets

    return find


def extract_lists(features, records):
    """As extract(), but plain lists, the dense ones row after row. Needs no torch."""
    indices, offsets, dense = [], [], []
    finders = [_row_finder(feature) for feature in features]
    for record in records:
        base, kept, user = 0, [], "item_id" not in record
        for feature, find in zip(features, finders):
            if feature["kind"] == "dense":
                dense.append(_dense(feature, record))
                continue
            offsets.append(len(indices))
            kind = feature["kind"]
            if kind == "bucketised":
                found = [_bucket(feature, record.get("features", {}).get(feature["name"]))]
            elif user and kind == "history":
                kept = _kept(feature, find, record)
                found = [row for _, row in kept]
            elif user and kind == "history_events":
                found = [find(event.get("event", "view")) for event, _ in kept]
            elif user and kind == "history_gaps":
                found = _gaps(feature, kept)
            else:
                found = [find(value) for value in _values(feature, record)]
            indices += [base + row for row in found if row is not None]
            base += _rows(feature)
    return indices, offsets, dense


def extract(features, records):
    """(indices, offsets, dense) of `bags-dense-v1`, as freshet extracts them."""
    import torch  # pylint: disable=import-outside-toplevel
    indices, offsets, dense = extract_lists(features, records)
    columns = sum(feature["kind"] == "dense" for feature in features)
    return (torch.tensor(indices, dtype=torch.int64), torch.tensor(offsets, dtype=torch.int64),
            torch.tensor(dense, dtype=torch.float32).reshape(len(records), columns))


def table_rows(features):
    """Rows of the embedding table over all features that are bags."""
    return sum(_rows(feature) for feature in features if feature["kind"] != "dense")
