"""Writes confluent.json: frames made by the serializers of confluent-kafka, and what a registry answers about them.

Run once, by hand, when the samples change; the tests read only the JSON. From this directory:

    python3 -m venv venv && venv/bin/pip install 'confluent-kafka[avro,json,protobuf,schemaregistry]==2.16.0' grpcio-tools
    venv/bin/python -m grpc_tools.protoc -I. --python_out=. --include_imports --descriptor_set_out=product.desc product.proto
    venv/bin/python make_confluent.py
"""
import json
import decimal

import product_pb2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

registry = SchemaRegistryClient.new_client({"url": "mock://samples"})

AVRO = {
    "type": "record", "name": "Product", "namespace": "shop",
    "fields": [
        {"name": "sku", "type": "long"},
        {"name": "category", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {"name": "offer", "type": {"type": "record", "name": "Offer", "fields": [
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "available", "type": "boolean"}]}},
        {"name": "previous", "type": ["null", "Offer"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["UNKNOWN", "TOY"]}},
        {"name": "weight", "type": "float"},
        {"name": "size", "type": "double"},
        {"name": "changed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "mark", "type": {"type": "fixed", "name": "Mark", "size": 2}},
    ],
}
ROW = {"type": "record", "name": "Value", "fields": [{"name": "id", "type": "int"}, {"name": "title", "type": "string"}]}
ENVELOPE = {
    "type": "record", "name": "Envelope", "namespace": "shop.public.products",
    "fields": [
        {"name": "before", "type": ["null", ROW], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "source", "type": {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql",
                                    "fields": [{"name": "ts_ms", "type": "long"}]}},
        {"name": "op", "type": "string"},
    ],
}
KEY = {"type": "record", "name": "Key", "namespace": "shop.public.products", "fields": [{"name": "id", "type": "int"}]}
JSON_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#", "title": "Product", "type": "object",
    "properties": {"category": {"type": "string"}, "price": {"type": "number"}},
}


def avro(schema, value, field=MessageField.VALUE, topic="products"):
    return AvroSerializer(registry, json.dumps(schema))(value, SerializationContext(topic, field))


product = {
    "sku": 42, "category": "toys", "tags": ["soft", "brown"], "counts": {"sold": 7, "back": -1},
    "offer": {"price": decimal.Decimal("9.50"), "available": True},
    "previous": {"price": decimal.Decimal("-12.25"), "available": False},
    "kind": "TOY", "weight": 0.5, "size": 31.25, "changed": 1522949460123456, "mark": b"ok",
}
message = product_pb2.Product(sku="42", kind=product_pb2.Product.TOY, tags=["soft", "brown"], counts={"sold": 7})
message.offer.price = 9.5
message.offer.available = False
message.changed.FromJsonString("2018-04-05T17:31:00.123Z")
protobuf = ProtobufSerializer(product_pb2.Product, registry, {"use.deprecated.format": False})
first = ProtobufSerializer(product_pb2.Other, registry, {"use.deprecated.format": False})
nested = ProtobufSerializer(product_pb2.Product.Offer, registry, {"use.deprecated.format": False})


def context(topic):
    return SerializationContext(topic, MessageField.VALUE)


def text_of(schema):
    """The Python serializer registers a file's descriptor; a registry answers with its .proto text."""
    if schema.schema_type != "PROTOBUF":
        return schema.schema_str
    with open("product.proto", encoding="utf-8") as file:
        return file.read()


frames = {
    "avro": avro(AVRO, product),
    "avro_null": avro(AVRO, {**product, "category": None, "previous": None, "tags": [], "counts": {}}),
    "avro_key": avro(KEY, {"id": 42}, MessageField.KEY, "cdc"),
    "avro_long_key": avro({"type": "long"}, 42, MessageField.KEY, "products"),
    "avro_string_key": avro({"type": "string"}, "a/b", MessageField.KEY, "strings"),
    "debezium_create": avro(ENVELOPE, {"before": None, "after": {"id": 42, "title": "Bear"},
                                       "source": {"ts_ms": 1559033904863}, "op": "c"}, topic="cdc"),
    "debezium_delete": avro(ENVELOPE, {"before": {"id": 42, "title": "Bear"}, "after": None,
                                       "source": {"ts_ms": 1559033904864}, "op": "d"}, topic="cdc"),
    "json": JSONSerializer(json.dumps(JSON_SCHEMA), registry)({"category": "toys", "price": 9.5}, context("json")),
    "protobuf": protobuf(message, context("protobuf")),
    "protobuf_first": first(product_pb2.Other(x="1"), context("protobuf")),
    "protobuf_nested": nested(message.offer, context("protobuf")),
}
answers = {}
for frame in frames.values():
    number = int.from_bytes(frame[1:5], "big")
    schema = registry.get_schema(number)
    answer = {"schema": text_of(schema)}
    if schema.schema_type != "AVRO":
        answer["schemaType"] = schema.schema_type
    answers[f"/schemas/ids/{number}"] = answer
with open("confluent.json", "w", encoding="utf-8") as out:
    json.dump({"frames": {name: frame.hex() for name, frame in frames.items()}, "answers": answers}, out, indent=1)
    out.write("\n")
