#!/usr/bin/env python3
"""Prints what deploy/scripts/freshet_features.py extracts, for feature_parity_test.cc to compare: a JSON object a side, and
the embedding space id that it derives from the sides of towers whose sums are "i" and "u".

    extract_rows.py FILE     FILE: {"items": {"features": [...], "records": [...]}, "users": {...}}
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../deploy/scripts"))
import freshet_export  # pylint: disable=wrong-import-position


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        sides = json.load(f)
    rows = {}
    for name, side in sides.items():
        indices, offsets, dense = freshet_export.extract_lists(side["features"], side["records"])
        rows[name] = {"indices": indices, "offsets": offsets, "dense": dense}
    rows["space_id"] = freshet_export._space_id(  # pylint: disable=protected-access
        {"item_tower.pt": "i", "user_tower.pt": "u"}, "cosine", 8,
        [(name.rstrip("s"), side["features"]) for name, side in sides.items()])
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
