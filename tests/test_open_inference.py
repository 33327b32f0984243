"""v2 messages: what they mean as arrays, and that no body whatever is met with anything but an answer or a clear refusal."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.errors import SnapshotError
from streamlearn.records import Answering, Snapshot
from streamlearn.serving.open_inference import Answer, LabelTexts, RequestError, model_metadata, read_question, write_answer
from streamlearn.serving.served import Served

SHAPE = (2, 3)
ROWS = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]]]


def body(**changes):
    data = {"name": "features", "shape": [2, 2, 3], "datatype": "FP32", "data": ROWS}
    request = {key: changes.pop(key) for key in ("id", "parameters", "outputs") if key in changes}
    return json.dumps(request | {"inputs": [data | changes]}).encode()


def read(raw, json_bytes=None, shape=SHAPE, max_rows=8):
    return read_question(raw, json_bytes=json_bytes, shape=shape, max_rows=max_rows)


def with_tensor(array, datatype, **parameters):
    size = {"binary_data_size": array.nbytes}
    head = {"name": "features", "shape": list(array.shape), "datatype": datatype, "parameters": size | parameters}
    text = json.dumps({"inputs": [head]}).encode()
    return text + array.tobytes(), len(text)


def refusal(raw, json_bytes=None, **rest):
    with pytest.raises(RequestError) as caught:
        read(raw, json_bytes, **rest)
    assert caught.value.status == 400
    return str(caught.value)


@pytest.mark.parametrize("data", [ROWS, [float(i) for i in range(1, 13)]], ids=["nested", "flat"])
def test_nested_and_flat_data_mean_the_same_rows(data):
    question = read(body(data=data))
    np.testing.assert_array_equal(question.x, np.array(ROWS, np.float32), strict=True)
    assert (question.id, question.about) == (None, "auto")
    assert [tuple(wanted) for wanted in question.outputs] == [("label", False)]


@pytest.mark.parametrize(
    "datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
)
def test_each_number_type_is_read_as_float32(datatype):
    data = np.arange(1, 13).reshape(2, 2, 3)
    assert read(body(datatype=datatype, data=data.tolist())).x.dtype == np.float32
    np.testing.assert_array_equal(read(body(datatype=datatype, data=data.tolist())).x, data)
    dtype = {"FP": "f", "IN": "i", "UI": "u"}[datatype[:2]] + str(int(datatype.lstrip("FPUINT")) // 8)
    np.testing.assert_array_equal(read(*with_tensor(data.astype(f"<{dtype}"), datatype)).x, data)


def test_truth_values_are_read_as_zero_and_one():
    data = [True, False, True] * 4
    np.testing.assert_array_equal(read(body(datatype="BOOL", data=data)).x.ravel(), [1, 0, 1] * 4)
    np.testing.assert_array_equal(read(*with_tensor(np.array(data).reshape(2, 2, 3), "BOOL")).x.ravel(), [1, 0, 1] * 4)


def test_id_about_and_outputs_are_taken_from_the_request():
    question = read(body(id="a-7", parameters={"about": "ever"}, outputs=[{"name": "probabilities"}, {"name": "label"}]))
    assert (question.id, question.about) == ("a-7", "ever")
    assert [wanted.name for wanted in question.outputs] == ["probabilities", "label"]


@pytest.mark.parametrize(
    ("everywhere", "own", "expected"),
    [
        ({}, {}, False),
        ({"binary_data_output": True}, {}, True),
        ({}, {"binary_data": True}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
    ],
)
def test_an_outputs_own_wish_for_bytes_comes_before_the_requests(everywhere, own, expected):
    question = read(body(parameters=everywhere, outputs=[{"name": "label", "parameters": own}]))
    assert question.outputs[0].binary is expected


REFUSALS = {
    "not an inference request": [b"", b"[]", b"{", b"\xff", b"null", b'{"inputs":[' + b"[" * 10000, b'{"inputs":[],"id":7}'],
    "expected exactly one, 'features'": [
        b'{"inputs":[]}',
        body(name="x"),
        json.dumps({"inputs": 2 * json.loads(body())["inputs"]}).encode(),
    ],
    "expected one of FP32": [body(datatype="BYTES"), body(datatype="fp32"), body(datatype="")],
    r"expected \[n, 2, 3\]": [body(shape=[2, 6]), body(shape=[]), body(shape=[2, 2, 3, 1]), body(shape=[12])],
    "expected 1 to 8": [body(shape=[0, 2, 3], data=[]), body(shape=[9, 2, 3]), body(shape=[2**61, 2, 3])],
    "is nested": [body(data=[ROWS]), body(data=[[1.0] * 12]), body(data="abc"), body(data=5)],
    "not fit|holds numbers of shape": [
        body(data=[1.0] * 11),
        body(data=[]),
        body(data=[ROWS[0], ROWS[0][:1]]),
        body(data=[[[1.0, 2.0], [3.0]], []]),
        body(data=[*[1.0] * 11, "1"]),
        body(data=[*[1.0] * 11, None]),
        body(data=[*[1.0] * 11, True]),
        body(data=[*[1] * 11, 300], datatype="INT8"),
        body(data=[*[1] * 11, -1], datatype="UINT8"),
        body(data=[*[1] * 11, 10**30], datatype="INT64"),
        body(data=[1.5] * 12, datatype="INT32"),
        body(data=[1] * 12, datatype="BOOL"),
    ],
    "'label', 'x'|at most once": [body(outputs=[{"name": "x"}]), body(outputs=[{"name": "label"}, {"name": "label"}])],
    "parameter 'about'": [
        body(parameters={"about": "later"}),
        body(parameters={"about": ["now"]}),
        body(parameters={"about": None}),
    ],
    "expected true or false": [
        body(parameters={"binary_data_output": 1}),
        body(outputs=[{"name": "label", "parameters": {"binary_data": "yes"}}]),
    ],
    "not an inference request.*'id'|Expected": [
        body(id=5),
        body(shape=[2, -2, 3]),
        body(shape=[2.5, 2, 3]),
        body(shape=[2**70, 2, 3]),
    ],
}


@pytest.mark.parametrize(("reason", "raw"), [(reason, raw) for reason, bodies in REFUSALS.items() for raw in bodies])
def test_what_cannot_be_meant_is_refused_with_its_reason(reason, raw):
    with pytest.raises(RequestError, match=reason) as caught:
        read(raw)
    assert caught.value.status == 400


def test_values_that_are_not_finite_as_float32_are_refused_by_row():
    assert "row 1 holds a value that is not finite" in refusal(body(data=[*[1.0] * 6, *[1e39] * 6], datatype="FP64"))
    assert "not an inference request" in refusal(body(data=ROWS).replace(b"12.0", b"NaN"))
    for value in (np.nan, np.inf, -np.inf):
        data = np.ones((2, 2, 3), "<f4")
        data[1, 1, 2] = value
        assert "row 1" in refusal(*with_tensor(data, "FP32"))


def test_a_tensor_must_be_as_long_as_everybody_says():
    data = np.ones((2, 2, 3), "<f4")
    raw, json_bytes = with_tensor(data, "FP32")
    assert read(raw, json_bytes).x.sum() == 12
    assert "47 bytes follow the JSON, expected 48" in refusal(raw[:-1], json_bytes)
    assert "49 bytes follow the JSON" in refusal(raw + b"!", json_bytes)
    assert "the body has" in refusal(raw, len(raw) + 1)
    for size in (47, 49, -48, 0, 2**80, "48", 48.5, True, None):
        assert "need 48" in refusal(*with_tensor(data, "FP32", binary_data_size=size))
    assert "no 'binary_data_size'" in refusal(body() + b"1234", len(body()))
    both = json.loads(body())
    both["inputs"][0]["parameters"] = {"binary_data_size": 48}
    text = json.dumps(both).encode()
    assert "no 'data' beside them" in refusal(text + data.tobytes(), len(text))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = ["inputs", "outputs", "id", "parameters", "name", "shape", "datatype", "data", "binary_data_size"]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(MEMBERS), JUNK, st.none() | st.integers(0, 400))
def test_no_value_of_any_member_is_met_with_anything_but_an_answer_or_a_refusal(member, value, json_bytes):
    request = json.loads(body())
    where = request if member in MEMBERS[:4] else request["inputs"][0]
    (where if member != "binary_data_size" else where.setdefault("parameters", {}))[member] = value
    try:
        question = read(json.dumps(request).encode(), json_bytes)
    except RequestError as error:
        assert error.status == 400
    else:
        assert question.x.shape == (2, 2, 3)
        assert np.isfinite(question.x).all()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.none() | st.integers(0, 400))
def test_random_bytes_are_refused(noise, json_bytes):
    refusal(noise, json_bytes)


LABELS = ("cat", "3", "Zoë")


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_the_largest_number_is_one_and_what_is_beyond_a_32_bit_float_is_refused_by_row(datatype):
    largest = float(np.finfo(np.float32).max)

    def given(*values, binary=False):
        raw = np.array(values, {"FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes() if binary else b""
        data = {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": list(values)}
        tensor = {"name": "features", "shape": [len(values), 1], "datatype": datatype, **data}
        text = json.dumps({"inputs": [tensor]}).encode()
        return read(text + raw, len(text) if binary else None, shape=(1,))

    for binary in (False, True):
        x = given(largest, -largest, 1.0, binary=binary).x
        assert x.dtype == np.float32
        assert x.ravel().tolist() == [largest, -largest, 1.0]
        for beyond in (np.inf, np.nan) if binary else (1e39, -1e300):
            with pytest.raises(RequestError, match="row 1 holds a value that is not finite"):
                given(1.0, beyond, 1.0, binary=binary)


ANSWER = Answer(12, LabelTexts.of(LABELS), np.array([2, 0]), np.array([[0.25, 0.0, 0.75], [1.0, 0.0, 0.0]], np.float32))


def answer_to(raw, answer=ANSWER):
    return write_answer(answer, read(raw), model_name="digits")


def test_an_answer_holds_the_label_alone_when_nothing_was_named():
    text, json_bytes = answer_to(body())
    assert json_bytes is None
    label = {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Zoë", "cat"], "parameters": {"label_type": "string"}}
    assert json.loads(text) == {"model_name": "digits", "model_version": "12", "outputs": [label]}


def test_an_answer_holds_the_outputs_that_were_named_in_their_order_and_the_id():
    outputs = [{"name": "probabilities"}, {"name": "labels"}]
    found = json.loads(answer_to(body(id="", outputs=outputs))[0])
    assert found["id"] == ""
    assert found["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": [0.25, 0.0, 0.75, 1.0, 0.0, 0.0]},
        {"name": "labels", "datatype": "BYTES", "shape": [3], "data": list(LABELS), "parameters": {"label_type": "string"}},
    ]


def test_labels_name_the_columns_of_the_probabilities():
    fewer = Answer(1, LabelTexts.of((5, 6, 7)), np.array([1, 0]), np.array([[0.2, 0.8], [0.9, 0.1]], np.float32))
    found = json.loads(answer_to(body(outputs=[{"name": "labels"}, {"name": "label"}]), fewer)[0])["outputs"]
    assert [(each["data"], each["parameters"]) for each in found] == [
        (["5", "6"], {"label_type": "integer"}),
        (["6", "5"], {"label_type": "integer"}),
    ]


def test_labels_of_both_types_say_which_is_which():
    both = Answer(1, LabelTexts.of((1, "1")), np.array([1, 0]), np.array([[0.5, 0.5], [0.5, 0.5]], np.float32))
    label = json.loads(answer_to(body(), both)[0])["outputs"][0]
    assert label["data"] == ["1", "1"]
    assert label["parameters"] == {"label_type": "mixed", "label_types": "string,integer"}


TOP = [{"name": "top_labels"}, {"name": "top_probabilities"}]


@pytest.mark.parametrize(("k", "columns"), [(1, 1), (2, 2), (3, 3), (None, 3), (10**6, 3)])
def test_the_best_labels_come_best_first_and_the_first_is_the_answer(k, columns):
    given = body(outputs=[*TOP, {"name": "label"}], parameters={} if k is None else {"top_k": k})
    labels, probabilities, label = json.loads(answer_to(given)[0])["outputs"]
    assert labels["shape"] == probabilities["shape"] == [2, columns]
    assert probabilities["data"] == [p for row in ([0.75, 0.25, 0.0], [1.0, 0.0, 0.0]) for p in row[:columns]]
    expected = [[LABELS[2], LABELS[0], LABELS[1]], [LABELS[0], LABELS[1], LABELS[2]]]
    assert labels["data"] == [str(each) for row in expected for each in row[:columns]]
    assert labels["data"][::columns] == label["data"]


def test_of_equal_labels_the_answer_comes_first():
    """Its logit was larger, by less than a probability of 32 bits can say."""
    equal = Answer(1, LabelTexts.of(("a", "b", "c")), np.array([2]), np.array([[0.25, 0.375, 0.375]], np.float32))
    assert json.loads(answer_to(body(outputs=TOP), equal)[0])["outputs"][0]["data"] == ["c", "b", "a"]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=4), st.integers(1, 6))
def test_the_best_labels_are_those_of_a_plain_sort(weights, k):
    p = np.array(weights, np.float32)
    found = Answer(1, LabelTexts.of("abcd"), p.argmax(axis=1), p).best(k)
    for row, best in zip(weights, found.tolist(), strict=True):
        assert best == sorted(range(4), key=lambda i: (-row[i], i))[:k]


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None, [1]])
def test_a_number_of_best_labels_that_is_none_is_refused(value):
    with pytest.raises(RequestError, match="top_k"):
        read(body(parameters={"top_k": value}))


PROMISED = Answer(
    1, LabelTexts.of(("a", "b", 3)), np.array([1, 2]), np.array([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]], np.float32),
    {0.9: 0.8, 0.5: 0.5, 0.1: -1.0, 0.99: 2.0},
)  # fmt: skip


@pytest.mark.parametrize(
    ("coverage", "labels", "sizes"),
    [
        (0.9, ["b", "a", "3", "3", "", ""], [3, 1]),
        (0.5, ["b", "3"], [1, 1]),
        (0.1, [], [0, 0]),
        (0.99, ["b", "a", "3", "3", "a", "b"], [3, 3]),
    ],
)
def test_a_set_holds_the_labels_within_the_threshold_of_its_coverage_best_first(coverage, labels, sizes):
    label, members, counts = json.loads(answer_to(body(parameters={"sets": coverage}), PROMISED)[0])["outputs"]
    assert (label["name"], members["name"], counts["name"]) == ("label", "set_labels", "set_sizes")
    assert (members["data"], members["shape"]) == (labels, [2, max(sizes)])
    assert (counts["data"], counts["datatype"]) == (sizes, "INT32")


def test_sets_come_by_name_too_and_as_bytes():
    given = body(outputs=[{"name": "set_sizes", "parameters": {"binary_data": True}}], parameters={"sets": 0.9})
    raw, length = answer_to(given, PROMISED)
    assert struct.unpack("<2i", raw[length : length + 8]) == (3, 1)
    assert [each["name"] for each in json.loads(raw[:length])["outputs"]] == ["set_sizes", "set_labels"]
    sizes = json.loads(answer_to(body(outputs=[{"name": "set_sizes"}]), PROMISED)[0])["outputs"][0]
    assert sizes["data"] == [0, 0], "of the least coverage that is promised, where none was named"


@pytest.mark.parametrize("value", ["0.9", True, [0.9], 0.8])
def test_a_coverage_that_is_not_promised_is_refused(value):
    with pytest.raises(RequestError, match=r"parameter 'sets' is (not valid|0.8: expected one of 0.9, 0.5, 0.1, 0.99)"):
        answer_to(body(parameters={"sets": value}), PROMISED)
    with pytest.raises(RequestError, match=r"promises no sets: expected `conformal.coverages`"):
        answer_to(body(outputs=[{"name": "set_sizes"}]))


def test_tensors_follow_the_json_in_the_order_of_the_outputs():
    outputs = [{"name": "label"}, {"name": "probabilities"}]
    raw, json_bytes = answer_to(body(outputs=outputs, parameters={"binary_data_output": True}))
    head = json.loads(raw[:json_bytes])
    assert all("data" not in output for output in head["outputs"])
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [15, 24]
    assert raw[json_bytes:][:15] == struct.pack("<I", 4) + "Zoë".encode() + struct.pack("<I", 3) + b"cat"
    assert struct.unpack("<6f", raw[json_bytes:][15:]) == (0.25, 0.0, 0.75, 1.0, 0.0, 0.0)


def test_metadata_says_what_goes_in_and_what_comes_out():
    found = model_metadata(model_name="digits", number=9, form="mlp", shape=(28, 28))
    assert (found["name"], found["versions"], found["platform"]) == ("digits", ["9"], "streamlearn_mlp")
    assert found["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 28, 28]}]
    assert [(each["name"], each["datatype"], each["shape"]) for each in found["outputs"]] == [
        ("label", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, -1]),
        ("labels", "BYTES", [-1]),
        ("top_labels", "BYTES", [-1, -1]),
        ("top_probabilities", "FP32", [-1, -1]),
        ("set_labels", "BYTES", [-1, -1]),
        ("set_sizes", "INT32", [-1]),
    ]


def served(logits, labels=("a", "b", "c"), shape=(1,)):
    """A snapshot that gives these logits to every row, in which x[0] is added to the first."""
    snapshot = Snapshot(4, Answering("told", {"logits": np.array(logits, np.float32)}, {}), labels, shape, 0)
    return Served.of(snapshot, {"told": told}.__getitem__)


def told(arrays, settings, x):
    out = np.tile(arrays["logits"], (len(x), 1))
    if out.shape[1]:
        out[:, 0] += x.reshape(len(x), -1)[:, 0]
    return out


def question(*values):
    data = {"name": "features", "shape": [len(values), 1], "datatype": "FP32", "data": list(values)}
    return read(json.dumps({"inputs": [data]}).encode(), shape=(1,))


def test_probabilities_are_a_softmax_over_the_learned_labels():
    answer = served([np.log(2.0), -np.inf, np.log(6.0)]).answer(question(0.0, np.log(9.0)))
    np.testing.assert_allclose(answer.probabilities, [[0.25, 0.0, 0.75], [0.75, 0.0, 0.25]], rtol=1e-6)
    assert answer.rows.tolist() == [2, 0]
    assert answer.probabilities.dtype == np.float32


def test_large_logits_do_not_overflow():
    np.testing.assert_array_equal(served([3e38, 0.0, -3e38]).answer(question(0.0)).probabilities, [[1.0, 0.0, 0.0]])


@pytest.mark.parametrize("logits", [[], [-np.inf] * 3])
def test_before_the_first_label_the_answer_is_503(logits):
    with pytest.raises(RequestError, match="no label learned yet") as caught:
        served(logits).answer(question(0.0))
    assert caught.value.status == 503


def test_columns_kept_ahead_of_labels_are_not_served():
    assert served([0.0, 1.0, -np.inf, -np.inf], labels=("a", "b")).answer(question(0.0)).probabilities.shape == (1, 2)


def test_an_input_whose_answer_is_not_finite_is_refused():
    with pytest.raises(RequestError, match="row 1 is too large") as caught:
        served([3e38, 0.0, 0.0]).answer(question(0.0, 3e38))
    assert caught.value.status == 400


@pytest.mark.parametrize("logits", [[np.nan, 0.0], [[[0.0, 1.0]]]])
def test_a_snapshot_that_cannot_answer_is_refused_before_it_is_served(logits):
    with pytest.raises(SnapshotError, match="snapshot 4"):
        served(logits)
    with pytest.raises(SnapshotError, match="cannot answer: KeyError: 'unheard'"):
        Served.of(Snapshot(4, Answering("unheard", {}, {}), (), (1,), 0), {}.__getitem__)
