"""Protobuf: one message by its descriptors; what it would read wrongly in silence is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamlearn import decode
from streamlearn.errors import ConfigError, DecodeError
from streamlearn.protocols import Decoder
from streamlearn.records import Record, Sample
from streamlearn.schema import Column, Schema, bucket
from streamlearn.settings import read

KINDS = descriptor_pb2.FieldDescriptorProto
COLUMNS = Schema((Column("amount"), Column("carrier", "categorical", buckets=4096)))


def described(*fields: tuple[str, int, bool]) -> descriptor_pb2.FileDescriptorSet:
    """A message shop.Order of these fields: name, type, whether it is `optional`; an enum Carrier beside it."""
    message = descriptor_pb2.DescriptorProto(name="Order")
    for number, (name, kind, optional) in enumerate(fields, 1):
        repeated = name == "features"
        label = KINDS.LABEL_REPEATED if repeated else KINDS.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, type=kind, label=label)  # type: ignore[arg-type]
        if kind == KINDS.TYPE_ENUM:
            field.type_name = ".shop.Carrier"
        if optional:
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3", message_type=[message])
    carrier = file.enum_type.add(name="Carrier")
    carrier.value.add(name="UNKNOWN", number=0)
    carrier.value.add(name="AA", number=1)
    return descriptor_pb2.FileDescriptorSet(file=[file])


def kind_of(files: descriptor_pb2.FileDescriptorSet) -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def decoder(files: descriptor_pb2.FileDescriptorSet, folder: Path, schema: Schema | None = COLUMNS) -> Decoder:
    (folder / "order.desc").write_bytes(files.SerializeToString())
    told = {"descriptors": str(folder / "order.desc"), "message": "shop.Order"}
    settings = read(decode.Settings, {"format": "protobuf", "protobuf": told}, path="decode")
    return decode.decoder_for(settings, (2,), schema=schema)


def decoded(how: Decoder, value: bytes) -> tuple[Sample, list[Any]]:
    out = np.full((2,), np.nan, np.float32)
    return how.decode(Record("orders[3]", 88112, value), out), out.tolist()


ORDER = described(
    ("amount", KINDS.TYPE_DOUBLE, False),
    ("carrier", KINDS.TYPE_ENUM, False),
    ("label", KINDS.TYPE_INT32, True),
    ("id", KINDS.TYPE_STRING, False),
    ("time", KINDS.TYPE_INT64, True),
)


def test_a_flat_message_gives_columns_by_name(tmp_path: Path) -> None:
    how, kind = decoder(ORDER, tmp_path), kind_of(ORDER)
    whole = kind(amount=2.5, carrier=1, label=0, id="o1", time=0).SerializeToString()
    assert decoded(how, whole) == (Sample(0, "o1", 0), [2.5, float(bucket("AA", 4096))])
    assert decoded(how, kind().SerializeToString() + kind(amount=1).SerializeToString())[0] == Sample()


def test_a_field_of_another_version_is_refused_unless_it_may_be_passed_over(tmp_path: Path) -> None:
    newer = described(*((f.name, f.type, f.proto3_optional) for f in ORDER.file[0].message_type[0].field), ("colour", 9, False))
    value = kind_of(newer)(amount=2.5, colour="red").SerializeToString()
    with pytest.raises(DecodeError, match=r"@88112: the value has a field of number 6, which shop.Order has not"):
        decoded(decoder(ORDER, tmp_path), value)
    assert decoded(decoder(ORDER, tmp_path, COLUMNS._replace(unknown="ignore")), value)[1][0] == 2.5


@pytest.mark.parametrize("value", [b"\xff", b"\x09\x00", b"\x22\x02\xff\xfe", b"\x22\xff\xff\xff\xff\x0fabc", b'{"amount": 1}'])
def test_bytes_that_are_no_such_message_are_refused(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(DecodeError, match=r"orders\[3\]@88112: the value "):
        decoded(decoder(ORDER, tmp_path), value)


def test_an_empty_value_is_a_message_that_says_nothing(tmp_path: Path) -> None:
    """So it can be no sample to learn: the loop refuses what has neither label nor id."""
    assert decoded(decoder(ORDER, tmp_path), b"")[0] == Sample()


@pytest.mark.parametrize(
    ("name", "kind"), [("label", KINDS.TYPE_INT32), ("time", KINDS.TYPE_INT64), ("context", KINDS.TYPE_INT32)]
)
def test_a_number_that_cannot_be_left_out_is_refused_as_a_label_at_the_start(tmp_path: Path, name: str, kind: int) -> None:
    with pytest.raises(ConfigError, match=f"field '{name}' of shop.Order does not tell 0 from nothing: declare it `optional`"):
        decoder(described(("amount", KINDS.TYPE_DOUBLE, False), (name, kind, False)), tmp_path)


def test_features_are_an_array_or_bytes(tmp_path: Path) -> None:
    for kind, values in ((KINDS.TYPE_FLOAT, [1.5, -2.0]), (KINDS.TYPE_INT32, [1, -2])):
        files = described(("features", kind, False), ("label", KINDS.TYPE_STRING, False))
        value = kind_of(files)(features=values, label="x").SerializeToString()
        assert decoded(decoder(files, tmp_path, None), value) == (Sample("x"), values)


@pytest.mark.parametrize("as_map", [False, True])
def test_features_may_be_a_message_of_columns_or_a_map(tmp_path: Path, as_map: bool) -> None:
    message = descriptor_pb2.DescriptorProto(name="Order")
    inner = message.nested_type.add(name="FeaturesEntry" if as_map else "Features")
    names = (("key", KINDS.TYPE_STRING), ("value", KINDS.TYPE_DOUBLE)) if as_map else (("amount", 1), ("carrier", 9))
    for number, (name, kind) in enumerate(names, 1):
        inner.field.add(name=name, number=number, type=kind, label=KINDS.LABEL_OPTIONAL)  # type: ignore[arg-type]
    inner.options.map_entry = as_map
    label = KINDS.LABEL_REPEATED if as_map else KINDS.LABEL_OPTIONAL
    where = f".shop.Order.{inner.name}"
    message.field.add(name="features", number=1, type=KINDS.TYPE_MESSAGE, label=label, type_name=where)
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3", message_type=[message])
    files = descriptor_pb2.FileDescriptorSet(file=[file])
    columns = Schema((Column("amount"), Column("weight"))) if as_map else COLUMNS
    features = {"amount": 2.5, "weight": 3.0} if as_map else {"amount": 2.5, "carrier": "AA"}
    value = kind_of(files)(features=features).SerializeToString()
    assert decoded(decoder(files, tmp_path, columns), value)[1] == [2.5, 3.0 if as_map else float(bucket("AA", 4096))]


@pytest.mark.parametrize(
    ("told", "part"),
    [
        ({"descriptors": "no.desc", "message": "a.B"}, "no.desc cannot be read"),
        ({"descriptors": "order.desc", "message": "shop.Nothing"}, "'shop.Nothing' is not in"),
        ({"descriptors": "text", "message": "shop.Order"}, "is no set of descriptors"),
        ({"descriptors": "order.desc"}, "descriptors and message: found one"),
    ],
)
def test_a_wrong_configuration_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("order.desc").write_bytes(ORDER.SerializeToString())
    Path("text").write_text("syntax = proto3;")
    with pytest.raises(ConfigError) as caught:
        decode.decoder_for(read(decode.Settings, {"format": "protobuf", "protobuf": told}, path="decode"), (2,), schema=COLUMNS)
    assert part in str(caught.value)
