#!/usr/bin/env python3
"""Makes the package in pytorch/ with Python's PyTorch: two towers as an ML engineer writes them, a few steps of training.

    python3 tests/unit/encoder/data/export_pytorch.py

The item tower has what nn offers (embedding bag, batch norm, dropout); the user tower reads its history by causal
self-attention, written as matmul and softmax, since nn.MultiheadAttention uses operators that LibTorch 1.13 lacks.
"""

import os
import sys

import torch
from torch import Tensor, nn

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../../deploy/scripts"))
import freshet_export as export  # pylint: disable=wrong-import-position

DIM, WIDTH, HISTORY = 8, 16, 10
ITEMS = [f"i{n}" for n in range(20)]
ITEM_FEATURES = [
    {"name": "item_id", "kind": "categorical", "vocabulary": ITEMS, "buckets": 1, "max_values": 64},
    {"name": "category", "kind": "categorical", "vocabulary": ["film", "book", "größe"], "buckets": 1, "max_values": 64},
    {"name": "tags", "kind": "multi_valued", "vocabulary": ["new", "sale", "4"], "buckets": 0, "max_values": 64},
    {"name": "title", "kind": "text", "vocabulary": ["the", "red", "house", "café"], "buckets": 1, "max_values": 64},
    {"name": "price", "kind": "dense", "mean": 1.5, "stddev": 0.75, "log": True},
]
USER_FEATURES = [
    {"name": "history", "kind": "history", "vocabulary": ITEMS, "buckets": 0, "max_values": HISTORY},
    {"name": "country", "kind": "categorical", "vocabulary": ["DE", "UK"], "buckets": 1, "max_values": 64},
    {"name": "age", "kind": "dense", "mean": 40.0, "stddev": 12.5, "log": False},
]


class ItemTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.bags, self.width = 4, WIDTH
        self.table = nn.EmbeddingBag(export.table_rows(ITEM_FEATURES), WIDTH, mode="mean")
        self.layers = nn.Sequential(nn.Linear(self.bags * WIDTH + 1, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1),
                                    nn.Linear(32, DIM))

    def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
        pooled = self.table(indices, offsets).reshape(dense.shape[0], self.bags * self.width)
        return nn.functional.normalize(self.layers(torch.cat([pooled, dense], 1)))


class UserTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.bags, self.width, self.history = 2, WIDTH, HISTORY
        self.table = nn.Embedding(export.table_rows(USER_FEATURES), WIDTH)
        self.position = nn.Embedding(HISTORY, WIDTH)  # by age: 0 is the newest
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(nn.Linear(2 * WIDTH + 1, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, DIM))

    def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:
        rows = dense.shape[0]
        ends = torch.cat([offsets[1:], torch.full_like(offsets[:1], indices.shape[0])])
        count = (ends - offsets).reshape(rows, self.bags)
        begin = offsets.reshape(rows, self.bags)
        places = torch.arange(self.history).unsqueeze(0)
        padded = torch.cat([indices, torch.zeros([self.history], dtype=torch.int64)])
        real = places < count[:, :1]
        sequence = self.table(padded[begin[:, :1] + places]) + self.position.weight
        sequence = self.norm(sequence.masked_fill(~real.unsqueeze(2), 0.0))
        newest = self.query(sequence[:, :1])
        score = torch.matmul(newest, self.key(sequence).transpose(1, 2)) / self.width ** 0.5
        share = torch.softmax(score.masked_fill(~real.unsqueeze(1), -1e9), 2)
        history = torch.matmul(share, self.value(sequence)).squeeze(1) * (count[:, :1] > 0)
        country = self.table(padded[begin[:, 1]]) * (count[:, 1:] > 0)
        return nn.functional.normalize(self.layers(torch.cat([history, country, dense], 1)))


def item(number, **features):
    return {"item_id": f"i{number}", "features": features}


def user(name, history, **features):
    return {"user_id": name, "features": features, "history": [{"item_id": f"i{n}"} for n in history]}


def main():
    torch.manual_seed(1)
    items, users = ItemTower(), UserTower()
    optimiser = torch.optim.Adam([*items.parameters(), *users.parameters()], lr=0.01)
    for step in range(30):  # enough for batch norm to have statistics and for no weight to be where it began
        numbers = [(7 * step + 3 * n) % 20 for n in range(8)]
        batch = [item(n, category="film" if n % 2 else "book", tags=["new"] if n % 3 else [], price=float(n + 1))
                 for n in numbers]
        owners = [user("u", [(n - 2 * k) % 20 for k in range(n % 5)], country="UK", age=20.0 + n) for n in numbers]
        logits = users(*export.extract(USER_FEATURES, owners)) @ items(*export.extract(ITEM_FEATURES, batch)).T / 0.1
        loss = nn.functional.cross_entropy(logits, torch.arange(8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    space = export.write_package(
        os.path.join(HERE, "pytorch"), name="pytorch-export", version="1", dim=DIM, item_tower=items, user_tower=users,
        item_features=ITEM_FEATURES, user_features=USER_FEATURES,
        golden_items=[item(3, category="film", tags=["new", "4"], title="The RED house, café", price=9.99),
                      item(4, category="größe", tags=["unknown", "sale"], price=0.0),
                      item(99, category="toy", title="unseen words"), item(5)],
        golden_users=[user("a", range(15), country="UK", age=33.0), user("b", [4], country="FR"), user("c", []),
                      user("d", [99, 3, 3, 98], age=120.0)])
    print(space)


if __name__ == "__main__":
    main()
