"""Structured fuzzing in small: valid files with one part replaced give a value or the project's own error.

The byte-level fuzzing is `make fuzz`; what it found stands below as cases.
"""

import contextlib
import copy
import json
import struct

import pytest
import yaml
from fuzz_targets import TARGETS
from hostile_corpus import text_readers, within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import DartsError

SMALL = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 2**64, -(2**64), 10**30, 1e308, -0.0, float("nan"), float("inf")]),
    st.floats(), st.text(max_size=8),
    st.sampled_from(["", "0", "-1", "1e-3", "nan", "../x", "/etc/passwd", "a b", "\x1b[31m", "é", "a\0b",
                     "max", "min", "accuracy", "lr", "search:darts", "continuous_param", "tpe_search"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value, path=()):
    """Every path of keys and positions in a nested value."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    """`value` with the part at `path` replaced, or left out where `new` is `...`."""
    if not path:
        return new
    result = copy.deepcopy(value)
    place = result
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return result


TABLE = {
    "schema_version": 2, "device": "cpu", "threads": 1, "runtime": "eager", "dtype": "float32",
    "versions": {"torch": "2"}, "fits": {"a": {"overhead_ms": 1.0, "slope": 1.0}}, "flagged": [],
    "rows": {"a": 1.0, "b": 2.0},
}  # fmt: skip
POLICY = {
    "schema_version": 1,
    "sub_policies": [[{"operation": "rotate", "probability": 0.5, "magnitude": 0.5}]],
}
READERS = text_readers()
FORMS = {
    "manifest": json.loads(TARGETS["manifest"]().seeds[0]),
    "latency table": TABLE,
    "architecture": Architecture.named("DARTS_V2").to_dict(),
    "policy": POLICY,
}


@pytest.mark.parametrize("reader", FORMS)
@given(data=st.data())
@SMALL
def test_a_form_with_one_part_replaced(tmp_path, reader, data):
    name, read = READERS[reader]
    form = FORMS[reader]
    path = data.draw(st.sampled_from(list(places(form))))
    drop = bool(path) and data.draw(st.booleans())
    changed = replaced(form, path, ... if drop else data.draw(VALUES))
    text = json.dumps(changed) if name.endswith(".json") else yaml.safe_dump(changed)
    (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    with within(10), contextlib.suppress(DartsError):
        read(tmp_path / name)


JOBS = [yaml.safe_load(seed) for seed in TARGETS["job"]().seeds]


@given(data=st.data())
@settings(SMALL, max_examples=120)
def test_a_job_file_with_one_part_replaced(tmp_path, data):
    form = data.draw(st.sampled_from(JOBS))
    path = data.draw(st.sampled_from(list(places(form))))
    drop = bool(path) and data.draw(st.booleans())
    changed = replaced(form, path, ... if drop else data.draw(VALUES))
    text = yaml.safe_dump(changed)
    with within(10):
        TARGETS["job"]().run(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("reader", READERS)
@given(value=VALUES)
@SMALL
def test_any_value_in_any_text_file(tmp_path, reader, value):
    name, read = READERS[reader]
    lines = name.endswith((".json", ".jsonl", ".journal"))
    text = json.dumps(value) + "\n" if lines else yaml.safe_dump(value)
    (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    with within(10), contextlib.suppress(DartsError):
        read(tmp_path / name)


OPS = st.sampled_from(["sep_conv_3x3", "skip_connect", "none", "a"])


@given(ops=st.lists(OPS, min_size=6, max_size=6), kept=st.integers(1, 3))
@SMALL
def test_an_architecture_comes_back_from_its_text(ops, kept):
    edges = [(i, j, ops.pop()) for j in range(1, kept + 1) for i in range(j)]
    found = Architecture("nasbench201", (("cell", CellChoice(tuple(edges), (kept,))),))
    assert Architecture.from_text(found.text()) == found


@given(parts=st.lists(st.sampled_from(
    ["Genotype(", "normal=", "reduce=", "normal_concat=", "reduce_concat=", "[", "]", "(", ")", ",", "'a'",
     "0", "1", "-", "range(2, 6)", "|", "a~0", "+", "~", "**", "None", "9" * 30, "\n", "é", "lambda: 0"]
), max_size=30))  # fmt: skip
@settings(SMALL, max_examples=200)
def test_any_row_of_words_as_an_architecture(parts):
    TARGETS["architecture"]().run("".join(parts).encode())


@given(
    kind=st.integers(0, 255), dimensions=st.integers(0, 255),
    sizes=st.lists(st.integers(0, 2**32 - 1), max_size=4), content=st.binary(max_size=64),
)  # fmt: skip
@SMALL
def test_any_header_of_an_idx_file(kind, dimensions, sizes, content):
    header = bytes([0, 0, kind, dimensions]) + struct.pack(f">{len(sizes)}I", *sizes)
    with within(10):
        TARGETS["idx"]().run(header + content)


CELLS = st.text(max_size=12) | st.sampled_from(
    ["architecture", "accuracy", "latency_ms", "0.5", "95", "nan", "-1", "inf", "1e400", '"', "a\tb",
     "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
)  # fmt: skip


@given(rows=st.lists(st.lists(CELLS, max_size=4), max_size=5))
@SMALL
def test_any_table_of_cells(rows):
    text = "architecture,accuracy\n" + "\n".join(",".join(row) for row in rows)
    TARGETS["csv"]().run(text.encode("utf-8", "surrogatepass"))


# what byte-level fuzzing found: (target, input)
FOUND: list[tuple[str, bytes]] = [
    # sizes whose product is nothing, which numpy cannot reshape to
    ("idx", b"\0\0\x08\x03" + b"\xff" * 8 + bytes(4)),
]


@pytest.mark.parametrize("target", TARGETS)
def test_the_examples_that_fuzzing_starts_from(target):
    made = TARGETS[target]()
    for content in (*made.seeds, *(content for name, content in FOUND if name == target)):
        with within(10):
            made.run(content)
