"""Batch sizes that the data do not fill are not tried by the stage `tune`, however they are written."""

from __future__ import annotations

import pytest

from darts_core.runlog import write_json
from darts_core.stages.tune import _that_fit, _varied
from darts_core.study.space import parse_space, space_to_dict


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([32, 4096], {"choices": [32]}),
        ({"choices": [32, 4096]}, {"choices": [32]}),
        ({"low": 32, "high": 4096, "log": True}, {"low": 32, "high": 500, "log": True}),
        ({"low": 32.0, "high": 4096.0, "integer": True}, {"low": 32.0, "high": 500.0, "integer": True}),
    ],
)  # fmt: skip
def test_what_is_too_large_is_left_out(given, kept):
    momentum = {"low": 0.5, "high": 0.9}
    found = _that_fit({"batch_size": given, "momentum": momentum}, 500)
    assert found == {"batch_size": kept, "momentum": momentum}
    before, after = (parse_space({"batch_size": node})["batch_size"] for node in (given, kept))
    assert after.integer == before.integer


@pytest.mark.parametrize(
    "node",
    [[32, 64], {"low": 32, "high": 64}, {"low": 600, "high": 700}, [600, 700], {"low": "a", "high": 9}],
)  # fmt: skip
def test_what_fits_or_never_does_is_as_it_was_given(node):
    assert _that_fit({"batch_size": node}, 500) == {"batch_size": node}


def test_a_study_goes_on_with_the_space_that_it_began_with(tmp_path):
    space = {"batch_size": {"low": 32, "high": 4096}}
    fitting = _that_fit(space, 500)
    assert _varied(space, 500, tmp_path) == fitting
    for begun in (space, fitting):
        description = {"schema_version": 1, "space": space_to_dict(parse_space(begun))}
        write_json(tmp_path / "study.json", description)
        assert _varied(space, 500, tmp_path) == begun
