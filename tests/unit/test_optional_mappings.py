"""Settings that are a mapping or nothing: given on the command line, and refused when they are neither."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from darts_core.errors import ConfigError
from darts_core.settings import TuneOptions, from_plain, schema

GIVEN = {
    "objectives": {"val_accuracy": "maximize"},
    "constraints": {"params": "<= 500"},
    "ray": {"address": "auto", "num_gpus": 1},
    "slurm": {"partition": "gpu", "more": {"account": "me"}},
    "ranges": {"rotate": [0, 30]},
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_mapping_takes_the_place_of_nothing(name):
    node = OmegaConf.structured(schema(TuneOptions))
    # what Hydra does with an override
    OmegaConf.update(node, name, GIVEN[name], merge=True)
    plain = OmegaConf.to_container(node)
    assert getattr(from_plain(TuneOptions, plain), name) == GIVEN[name]


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_no_mapping_is_refused(name):
    node = OmegaConf.structured(schema(TuneOptions))
    OmegaConf.update(node, name, "text", merge=True)
    with pytest.raises(ConfigError, match=f"tune.options.{name}"):
        from_plain(TuneOptions, OmegaConf.to_container(node))
