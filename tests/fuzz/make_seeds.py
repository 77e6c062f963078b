"""Seeds for the decoder targets, from the samples in tests/unit/ingest/data: make_seeds.py DATA_DIR OUT_DIR."""
import json
import pathlib
import struct
import sys

data, out = (pathlib.Path(argument) for argument in sys.argv[1:3])
ITEM = b'{"category":"f","tags":["a"],"features":{"p":3.5},"attributes":{"year":1995,"t":"T"},"vector":[1,2]}'
ACTION = b'{"user_id":"u","item_id":7,"event":"buy","value":2,"timestamp":"2018-04-05T17:31:00Z"}'
frames = {name: bytes.fromhex(text) for name, text in json.loads((data / "confluent.json").read_text())["frames"].items()}
samples = {path.stem: path.read_bytes() for path in sorted(data.glob("*.json"))}


def write(target, name, mode, key, value):
    """The input format of decoder_fuzz.cc."""
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes([mode, len(key)]) + key + value)


for role, value in ((0, ITEM), (1, ACTION), (2, ITEM)):
    write("json", f"plain{role}", role, b"key", value)
    write("cloudevents", f"binary{role}", role | 8, b"2018-04-05T17:31:00Z", value)
    event = b'{"specversion":"1.0","type":"t","source":"s","id":"1","time":"2018-04-05T17:31:00Z","data":' + value + b"}"
    write("cloudevents", f"structured{role}", role | 4, b"key", event)
    write("debezium", f"row{role}", role, b'{"id":42}', b'{"op":"c","after":' + value + b',"source":{"ts_ms":1}}')
    write("confluent", f"json{role}", role, b"key", b"\0\0\0\0\2" + value)
for name, sample in samples.items():
    if name.startswith("debezium"):
        write("debezium", name, 0, b'{"schema":{},"payload":{"id":42}}', sample)
    elif name.startswith("cloudevents"):
        write("cloudevents", name, 4, b"key", sample)
write("protobuf", "item", 0, b"key", bytes.fromhex("0a0466696c6d120161" "2a080000003f000080bf"))
write("protobuf", "interaction", 1, b"key", bytes.fromhex("0a0175" "120169" "1a03627579" "21000000000000f03f" "2863"))
write("protobuf", "user", 2, b"key", bytes.fromhex("0a0e0a036167651207090000000000804040"))
AVRO = bytes.fromhex("0208746f7973" "0202610000" "020270020000000000000c4000" "02027900ec1f00" "00" "0269" "00" "00")
write("avro", "item", 0, b"key", AVRO)
write("confluent", "avro", 0, bytes.fromhex("000000000454"), b"\0\0\0\0\1" + AVRO)
write("confluent", "protobuf", 0, b"key", bytes.fromhex("00000000030002" "0a01661201611a0608011202" "0a0166"))
write("confluent", "protobuf_nested", 1, b"key", bytes.fromhex("0000000003040000" "0a0169"))
for name, frame in frames.items():
    write("confluent", "sample_" + name, 0, b"key", frame)


def write_query(target, name, text):
    """The input of query_fuzz.cc: the request itself."""
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


write_query("recall_json", "vector", """{"vector":[1,0],"k":3,"filter":{"must":[{"key":"a","match":"x"},{"key":"y","range":{"gte":1990}}]},
  "exclude_ids":["a"],"max_per":{"c":3},"params":{"ef":100,"exact":true},"explain":true,"score_threshold":0.5}""")
write_query("recall_json", "user", """{"user":{"id":"u","features":{"x":1,"tags":["t"]},"history":["a",{"item_id":"b","event":"e","value":1,
  "timestamp":5}]},"exclude_seen":true,"timeout_ms":50,"min_as_of":"2011-05-31T17:39:00Z","with_attributes":true}""")
write_query("recall_json", "items", """{"items":["a","b"],"negative":["c"],"filter":{"should":[{"key":"k","any":["x","y"]},
  {"key":"t","exists":true}],"must_not":[{"key":"p","prefix":"ab"}]}}""")
write_query("recall_json", "weights", """{"item":"a","weights":{"similarity":1,"popularity":0.1,"recency":-2e1,"recency_of":"added",
  "half_life_hours":24}}""")
write_query("recall_json", "score", """{"item":"a","ids":["b","c"]}""")
(out / "recall_binary").mkdir(parents=True, exist_ok=True)
(out / "recall_binary" / "request").write_bytes(b"FRR1" + struct.pack("<5I2f", 1, 10, 100, 50, 2, 0.6, 0.8))
(out / "recall_binary" / "answer").write_bytes(
    b"FRA1" + struct.pack("<3IQq2I", 0, 2, 3, 7, 1306863540123, 250, 5) + struct.pack("<2f2I", 0.9, 0.5, 1, 3) + b"space" + b"abc")
write_query("filter_text", "words", """category = "film" and year >= 1990 or not (tag in ("a", "b") and x exists)""")
write_query("filter_text", "ranges", """price >= 1 and price < 5.5 and title ^= "abc" and in_stock = true""")

# The input of index_fuzz.cc: which file, then edits: u8 what, u16 where / 4, u32 value. In the first file the first 32 slots
# are no nodes any more, and the one nearest to the query is the next of its own chain, to be followed for ever; or of a ring.
(out / "index").mkdir(parents=True, exist_ok=True)
CHAINS, NODES = 12288, 45056  # of that file
for name, ring in (("ring_of_one", [2]), ("ring_of_two", [2, 3])):
    edits = [(NODES, 0)] + [(CHAINS + 4 * slot, ring[i - 1] + 1) for i, slot in enumerate(ring)]
    (out / "index" / name).write_bytes(b"\0" + b"".join(struct.pack("<BHI", 3, at // 4, value) for at, value in edits))
