"""Where deploy/scripts/freshet_export.py puts a package, and what it leaves alone. Torch is stood in for: what it computes
is agreed upon in package_test.cc, over a package that the script made with it."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import types
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
sys.path.insert(0, os.path.join(ROOT, "deploy/scripts"))
import freshet_export as export  # pylint: disable=wrong-import-position


class Rows(list):
    """What stands for a tensor."""

    shape = (1, 2)

    def tolist(self):
        return list(self)

    def reshape(self, *_):
        return self

    def all(self):
        return True


class Scores(Rows):
    shape = (1,)


class Tower:
    """A module whose script is its text."""

    def __init__(self, text, fails=False):
        self.text, self.fails = text, fails

    def eval(self):
        return self

    def save(self, path):
        if self.fails:
            raise RuntimeError("cannot be scripted")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.text)


def fake_torch():
    torch = types.ModuleType("torch")
    torch.__version__ = "0"
    torch.int64 = torch.float32 = None
    torch.tensor = lambda values, dtype=None: Rows(values)
    torch.isfinite = lambda values: values
    torch.inference_mode = contextlib.nullcontext
    answer = lambda path: Scores([7.0]) if path.endswith("reranker.pt") else Rows([[1.0, 2.0]])
    torch.jit = types.SimpleNamespace(script=lambda tower: tower, load=lambda path: lambda *_: answer(path))
    return torch


def write(directory, text="tower", fails=False):
    features = [{"name": "item_id", "kind": "categorical", "vocabulary": ["a"]}]
    history = [{"name": "history", "kind": "history", "vocabulary": ["a"]}]
    return export.write_package(directory, name="n", version="1", dim=2, metric="ip", item_tower=Tower(text),
                                user_tower=Tower(text, fails), item_features=features, user_features=history,
                                golden_items=[{"item_id": "a", "features": {"new": True, "none": None}}],
                                golden_users=[{"user_id": "u"}])


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


class Packages(unittest.TestCase):
    def setUp(self):
        sys.modules["torch"] = fake_torch()
        root = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(root.cleanup)
        self.root = root.name
        self.target = os.path.join(self.root, "models/mine")

    def only(self):
        """Nothing lies beside the package."""
        self.assertEqual(os.listdir(os.path.dirname(self.target)), ["mine"])


class WritePackage(Packages):
    def test_writes_what_its_sums_say(self):
        write(self.target + "/")
        self.assertEqual(sorted(os.listdir(self.target)),
                         ["goldens.json", "item_tower.pt", "model.yaml", "model.yaml.sha256", "user_tower.pt"])
        manifest = read(self.target, "model.yaml")
        self.assertEqual(read(self.target, "model.yaml.sha256"),
                         hashlib.sha256(manifest.encode()).hexdigest() + "  model.yaml\n")
        for file in ("goldens.json", "item_tower.pt", "user_tower.pt"):
            self.assertIn(hashlib.sha256(read(self.target, file).encode()).hexdigest(), manifest)
        self.assertIn('"features": {"new": 1.0}', read(self.target, "goldens.json"))
        self.only()

    def test_refuses_a_directory_that_is_no_package(self):
        os.makedirs(self.target)
        with open(os.path.join(self.target, "thesis.txt"), "w", encoding="utf-8") as f:
            f.write("years of work")
        with self.assertRaisesRegex(FileExistsError, "is no model package"):
            write(self.target)
        self.assertEqual(os.listdir(self.target), ["thesis.txt"])
        self.only()

    def test_refuses_a_file_and_takes_an_empty_directory(self):
        os.makedirs(os.path.dirname(self.target))
        with open(self.target, "w", encoding="utf-8") as f:
            f.write("a file")
        with self.assertRaisesRegex(FileExistsError, "is no directory"):
            write(self.target)
        os.remove(self.target)
        os.makedirs(self.target)
        write(self.target)
        self.only()

    def test_leaves_what_lies_beside_alone(self):
        beside = self.target + ".tmp"  # no name of ours
        os.makedirs(beside)
        write(self.target)
        self.assertTrue(os.path.isdir(beside))

    def test_the_old_package_stays_until_the_new_one_is_complete(self):
        write(self.target, "old")
        with self.assertRaisesRegex(RuntimeError, "cannot be scripted"):
            write(self.target, "new", fails=True)
        self.assertEqual(read(self.target, "item_tower.pt"), "old")
        self.only()
        write(self.target, "new")
        self.assertEqual(read(self.target, "item_tower.pt"), "new")
        self.only()

    def test_a_failure_of_the_exchange_brings_the_old_package_back(self):
        write(self.target, "old")
        rename, calls = os.rename, []

        def fails_second(source, target):
            calls.append(source)
            if len(calls) == 2:
                raise OSError("no")
            rename(source, target)

        os.rename = fails_second
        try:
            with self.assertRaises(OSError):
                write(self.target, "new")
        finally:
            os.rename = rename
        self.assertEqual(read(self.target, "item_tower.pt"), "old")
        self.only()

    def test_a_link_is_followed(self):
        write(self.target, "old")
        link = os.path.join(self.root, "current")
        os.symlink(self.target, link)
        write(link, "new")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(read(self.target, "item_tower.pt"), "new")


class AddReranker(Packages):
    """Whether it is in the first writing or comes later, the package is the same."""

    FEATURES = [{"name": "price", "kind": "dense"}]

    def add(self, source, target, text="script", fails=False):
        export.add_reranker(source, target, reranker=Tower(text, fails), item_features=self.FEATURES,
                            golden_attributes={"a": {"price": 3, "sizes": [1, 2], "in_stock": True}})

    def check(self, text="script"):
        manifest, goldens = read(self.target, "model.yaml"), json.loads(read(self.target, "goldens.json"))
        for file in ("goldens.json", "item_tower.pt", "user_tower.pt", "reranker.pt"):
            self.assertIn(f'  {file}: "{hashlib.sha256(read(self.target, file).encode()).hexdigest()}"\n', manifest)
        self.assertEqual((manifest.count("reranker.pt"), manifest.count("goldens.json")), (1, 1))
        self.assertEqual(read(self.target, "model.yaml.sha256"),
                         hashlib.sha256(manifest.encode()).hexdigest() + "  model.yaml\n")
        self.assertEqual(read(self.target, "reranker.pt"), text)
        self.assertEqual(manifest.count("reranker:\n"), 1)
        self.assertIn('reranker:\n  signature: "rerank-v1"\n  item_features:\n  - {"name": "price"', manifest)
        self.assertEqual([golden["scores"] for golden in goldens["reranks"]], [[7.0]])
        item = goldens["reranks"][0]["items"][0]
        self.assertEqual(item["features"], {"price": 3, "in_stock": 1.0})
        self.assertEqual((item["similarity"], item["popularity"], item["age_hours"]), (5.0, 0.0, -1.0))
        self.only()

    def test_comes_to_a_package_that_is_there(self):
        space_id = write(self.target)
        self.add(self.target, self.target)
        self.check()
        self.assertIn(f'embedding_space_id: "{space_id}"', read(self.target, "model.yaml"))
        self.add(self.target, self.target, "another")  # in place of the first
        self.check("another")

    def test_goes_to_another_place(self):
        write(os.path.join(self.root, "plain"))
        self.add(os.path.join(self.root, "plain"), self.target)
        self.check()
        self.assertNotIn("reranker", read(self.root, "plain/model.yaml"))

    def test_a_failure_leaves_what_was(self):
        write(self.target)
        before = read(self.target, "model.yaml")
        with self.assertRaisesRegex(RuntimeError, "cannot be scripted"):
            self.add(self.target, self.target, fails=True)
        self.assertEqual(read(self.target, "model.yaml"), before)
        with open(os.path.join(self.target, "goldens.json"), "a", encoding="utf-8") as f:
            f.write(" ")
        with self.assertRaisesRegex(ValueError, "is not what its sum says"):
            self.add(self.target, self.target)
        self.only()


class Extraction(unittest.TestCase):
    """The values that both sides agree upon are in feature_parity_test.cc; these are the script's own refusals."""

    FEATURES = [{"name": "tags", "kind": "multi_valued", "vocabulary": ["a"]}]

    def test_refuses_what_the_stream_refuses(self):
        for value in ([1, 2], {"a": 1}, ["a", ["b"]]):
            with self.assertRaisesRegex(ValueError, "feature `tags` must be"):
                export.extract_lists(self.FEATURES, [{"item_id": "a", "features": {"tags": value}}])

    def test_a_vocabulary_holds_texts(self):
        with self.assertRaisesRegex(ValueError, "must hold texts"):
            export.extract_lists([{"name": "tags", "kind": "categorical", "vocabulary": [1]}], [{"item_id": "a"}])


if __name__ == "__main__":
    unittest.main()
