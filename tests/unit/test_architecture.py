"""Architectures: notations, validation, and the discretisation rules of the spaces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_core import Architecture, get_space
from darts_core.architecture import CellChoice
from darts_core.errors import ArchitectureError, ConfigError
from darts_core.spaces import SPACES, ChoiceSpace, SearchSpace, register_space
from darts_core.strategies.baselines import mutate
from darts_core.strategies.progressive import keep_best_operations
from darts_core.supernet import build


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["darts", "nasbench201"]))
@settings(max_examples=40, deadline=None)
def test_every_notation_round_trips(seed: int, name: str) -> None:
    architecture = get_space(name).random(np.random.default_rng(seed))
    assert Architecture.from_text(architecture.text()) == architecture
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    assert hash(Architecture.from_dict(architecture.to_dict())) == hash(architecture)


def test_the_text_of_an_operation_of_ones_own_is_read_again():
    """`found |...` in the log of a search is what `architecture=` is given."""
    edges = ((0, 1, "conv-3x3"), (0, 2, "größer"), (1, 2, "v1.5"))
    architecture = Architecture("nasbench201", cells=(("cell", CellChoice(edges, (2,))),))
    assert Architecture.from_text(architecture.text()) == architecture


def test_yaml_round_trip_with_notes(tmp_path: Path) -> None:
    architecture = Architecture.named("PC_DARTS_cifar")
    architecture.to_yaml(tmp_path / "a.yaml", guards=["fired"])
    assert Architecture.from_yaml(tmp_path / "a.yaml") == architecture
    assert "guards" in (tmp_path / "a.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must start with"),
        ("Genotype(normal=__import__('os').system('true'), normal_concat=[2])", "plain values"),
        ("Genotype(normal=[('a', 0)], normal_concat=[2])", "two"),
        ("Genotype(normal=[('a', 0), ('b', 5)], normal_concat=[2])", "lower state"),
        ("Genotype(normal=[('a', 0), ('b', 1)], normal_concat=range(2, 9))", "concatenates"),
        ("Genotype(normal=[('a', 0), ('b', 1)], normal_concat=range(10**9))", "plain values"),
        ("Genotype(wide=[('a', 0)])", "Unknown genotype field"),
        ("Genotype(", "not well formed"),
        ("|nor_conv_3x3~1|", "lower state"),
        ("|nor_conv_3x3|", "Cannot read"),
        ("|a~0|+b~1", "must be written"),
        pytest.param(
            f"Genotype(normal=[('a', 0x{'f' * 5000}), ('b', 1)], normal_concat=[2])",
            "of digits",
            id="a source of 6,000 digits",
        ),
        pytest.param(
            f"Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[0x{'f' * 5000}])",
            "of digits",
            id="a state of 6,000 digits",
        ),
    ],
)
def test_bad_texts_end_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ArchitectureError, match=says):
        Architecture.from_text(text)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "must be a mapping"),
        ({"space": "darts"}, "cells or choices"),
        ({"space": "darts", "cels": {}}, "Did you mean 'cells'"),
        ({"space": "darts", "schema_version": 99, "cells": {}}, "schema_version 99"),
        ({"space": "darts", "cells": {"normal": {"edges": [[0, 2, "x"]]}}}, "exactly"),
        ({"space": "darts", "cells": {"n": {"edges": [[0, True, "x"]], "concat": [1]}}}, "edge"),
    ],
)
def test_bad_files_name_the_source_and_the_key(content: object, says: str) -> None:
    with pytest.raises(ArchitectureError, match=says) as caught:
        Architecture.from_dict(content, source="my.yaml")
    assert "my.yaml" in str(caught.value)


def test_unknown_name_suggests() -> None:
    with pytest.raises(ArchitectureError, match="Did you mean 'DARTS_V2'"):
        Architecture.named("DARTSV2")


def test_duplicate_concat_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="twice"):
        CellChoice(((0, 2, "a"), (1, 2, "b")), (2, 2))


def test_darts_keeps_the_two_strongest_edges_without_none() -> None:
    space = get_space("darts")
    weight = np.full((14, 8), 0.01)
    weight[:, 0] = 0.9  # none is the heaviest everywhere and must not count
    for row, op in ((2, 4), (4, 3), (3, 5)):  # edges into node 3: rows 2, 3, 4
        weight[row, op] = 0.3 + row / 100
    cell = space.discretize({"normal": weight, "reduce": weight}).cell("normal")
    node3 = [edge for edge in cell.edges if edge[1] == 3]
    assert node3 == [(1, 3, "sep_conv_5x5"), (2, 3, "skip_connect")]
    assert len(cell.edges) == 8
    assert all(op != "none" for _, _, op in cell.edges)


def test_nasbench201_keeps_every_edge_none_included() -> None:
    space = get_space("nasbench201")
    weight = np.zeros((6, 5))
    weight[:, 0] = 1.0
    cell = space.discretize({"cell": weight}).cell("cell")
    assert [op for _, _, op in cell.edges] == ["none"] * 6


def test_wrong_shapes_and_kinds_are_refused() -> None:
    space = get_space("nasbench201")
    with pytest.raises(ConfigError, match=r"\(6, 5\)"):
        space.discretize({"cell": np.zeros((5, 5))})
    with pytest.raises(ConfigError, match="Unknown cell kind 'cell'"):
        space.discretize({"cel": np.zeros((6, 5))})
    with pytest.raises(ConfigError, match="Did you mean 'nasbench201'"):
        get_space("nasbench-201")
    with pytest.raises(ConfigError, match="different operations"):
        space.with_ops(["none", "none"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"edge_ops": (("norml", (("a",),)),)}, "Unknown cell kind 'norml'.*Did you mean 'normal'"),
        (
            {"edge_ops": (("normal", (("a",), ("b",))),)},
            "name 2 edges of the normal cell, which has 1",
        ),
        ({"edge_ops": (("normal", (("a", "c"),)),)}, "Unknown operation 'c'"),
        ({"edge_ops": (("normal", ((),)),)}, r"nothing to choose on the edge \(0, 1\)"),
        (
            {"edge_ops": (("normal", (("none",),)),), "keep_edges": 1},
            r"nothing to choose on the edge \(0, 1\)",
        ),
        ({"keep_edges": 0}, "keep_edges >= 1, not 0"),
        ({"nodes": 0}, "nodes >= 1, not 0"),
        ({"reads": "images"}, "Unknown kind of sample 'images'.*Did you mean 'image'"),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(fields: dict, says: str) -> None:
    """Operations of edges under a misspelt kind were passed over: every edge chose among all of them."""
    fields = {"nodes": 1, **fields}
    with pytest.raises(ConfigError, match=says):
        SearchSpace(
            "own",
            ops=("a", "b", "none"),
            cell_kinds=("normal",),
            inputs=1,
            skeleton="toy",
            **fields,
        )
    with pytest.raises(ConfigError, match="Unknown kind of sample 'sound'"):
        ChoiceSpace.of("own", {"width": [1, 2]}, reads="sound")


def test_an_edge_may_be_closed_where_its_node_has_others_to_keep() -> None:
    ops = ("a", "b", "none")
    edge_ops = (("normal", (ops, ops, ("none",), ops, ops)),)
    space = SearchSpace("own", ops, ("normal",), 2, 2, "toy", keep_edges=2, edge_ops=edge_ops)
    rng, kept = np.random.default_rng(0), {(0, 2), (1, 2), (1, 3), (2, 3)}
    found = space.random(rng)
    for _ in range(20):
        assert {edge[:2] for edge in found.cell("normal").edges} == kept
        found = mutate(space, found, rng)
    weights = {"normal": rng.random((5, 3))}
    assert keep_best_operations(space, weights, 1).edge_ops[0][1][2] == ("none",)
    with pytest.raises(ConfigError, match=r"nothing to choose on the edge \(0, 3\)"):
        replace(space, keep_edges=3)


@pytest.mark.parametrize("targets", [(2, 3, 3, 3), (2, 2, 3), (1, 1, 2, 2), (3, 3, 4, 4)])
def test_a_text_tells_no_other_cell_than_the_architecture_s(targets: tuple[int, ...]) -> None:
    """A genotype holds two edges a node, told by their place alone; other cells are written out."""
    edges = tuple((index % target, target, "skip_connect") for index, target in enumerate(targets))
    cell = CellChoice(edges, (max(targets),))
    text = Architecture("mine", (("normal", cell),)).text()
    assert text == f"mine(normal={list(edges)})"


def test_a_state_that_no_edge_leads_to_is_not_read() -> None:
    """Its readers were given zeros: a network with a part cut off, and nothing said."""
    edges = ((0, 2, "a"), (1, 2, "a"), (0, 4, "a"), (3, 4, "a"))
    with pytest.raises(ArchitectureError, match="reads state 3, but no edge leads to it"):
        CellChoice(edges, (2, 4))
    assert CellChoice((*edges[:3], (2, 4, "a")), (2, 4)).states == 5


def test_edges_with_operations_of_their_own_keep_those_that_are_named() -> None:
    """They were forgotten: every edge of S1 chose among all that space.ops named."""
    whole = get_space("s1")
    fewer = [op for op in reversed(whole.ops) if op != "avg_pool_3x3"]
    space = get_space("s1", fewer)
    assert space.ops == tuple(fewer)
    for kind in whole.cell_kinds:
        expected = whole.allowed(kind)[:, [whole.ops.index(op) for op in fewer]]
        assert space.allowed(kind).tolist() == expected.tolist()
    says = r"edge \(0, 2\) of the normal cell of the space 's1' chooses from .*none of them"
    with pytest.raises(ConfigError, match=says):
        get_space("s1", ["sep_conv_3x3", "dil_conv_5x5"])
    with pytest.raises(ConfigError, match="No edge of the space 's1' may choose 'sep_conv_5x5'"):
        get_space("s1", [*whole.ops, "sep_conv_5x5"])


def test_no_operations_are_not_all_of_them() -> None:
    with pytest.raises(ConfigError, match=r"different operations, not \[\]"):
        get_space("darts", [])
    assert get_space("darts", None) is get_space("darts")


def test_a_space_is_registered_under_its_own_name() -> None:
    """A copy of DARTS saved its architectures as those of DARTS, and was built as such."""
    copy = replace(get_space("darts"), ops=("skip_connect", "sep_conv_3x3"))
    with pytest.raises(ConfigError, match=r"as 'mine' has name='darts'.*give it name='mine'"):
        register_space("mine", copy, description="a copy")
    assert "mine" not in SPACES


def test_random_edges_are_kept_alike_however_many_operations_they_have() -> None:
    """The largest weight was drawn among an edge's operations: of one in eight it was the strongest."""
    ops = ("none", *(f"op{number}" for number in range(8)))
    edge_ops = (("cell", (("op0",), ops, ("none", "op1"))),)
    space = SearchSpace("own", ops, ("cell",), 3, 1, "toy", keep_edges=1, edge_ops=edge_ops)
    rng = np.random.default_rng(0)
    drawn = [space.random(rng).cell("cell").edges[0] for _ in range(3000)]
    for source in range(3):
        assert sum(edge[0] == source for edge in drawn) == pytest.approx(1000, abs=100)
    several = [op for source, _, op in drawn if source == 1]
    assert len(set(several)) == 8
    # where all edges have as many, what a seed draws has not changed
    whole = get_space("darts")
    first = {
        kind: np.random.default_rng(7).random(shape) for kind, shape in whole.alpha_shapes().items()
    }
    assert whole.random(np.random.default_rng(7)).cell("normal") == whole.discretize(first).cell(
        "normal"
    )


@pytest.mark.parametrize(
    ("ends", "concat"), [(((0, 3), (1, 3), (0, 4), (3, 4)), (3, 4)), (((0, 1), (1, 2)), (2,))]
)
def test_a_cell_of_other_inputs_than_the_spaces_is_refused(ends, concat):
    cell = CellChoice(tuple((*end, "skip_connect") for end in ends), concat)
    architecture = Architecture("darts", cells=(("normal", cell), ("reduce", cell)))
    with pytest.raises(
        ArchitectureError, match=r"'normal' leads to state [13]; in the space 'darts'"
    ):
        build(architecture, channels=4, layers=3)


def test_a_space_that_is_not_registered_says_who_registers_one():
    """A training in another process, of what a search in a space of one's own has found."""
    cell = CellChoice(((0, 1, "skip_connect"),), (1,))
    with pytest.raises(ArchitectureError, match=r"Unknown space 'mine'.* named in plugins="):
        build(Architecture("mine", cells=(("cell", cell),)), channels=4, layers=1)
