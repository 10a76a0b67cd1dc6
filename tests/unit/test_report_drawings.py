"""Drawings: cells, heat maps, pictures, numbers on axes."""

from pathlib import Path

import numpy as np
import pytest
import report_fixture as fixture

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import ConfigError
from darts_core.report import (
    alpha_image,
    cell_image,
    cell_png,
    front_png,
    lines_png,
    scatter_png,
)
from darts_core.report.alphas import alpha_history, edge_names
from darts_core.report.cells import architecture_html
from darts_core.report.layout import layout_cell
from darts_core.report.page import version_content
from darts_core.report.read import read_version
from darts_core.report.rows import ModelRow
from darts_core.report.svg import Scale, number, tick_texts, ticks

PNG = b"\x89PNG"


@pytest.mark.parametrize("text", ["DARTS_V1", "DARTS_V2", "PC_DARTS_cifar"])
@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_boxes_of_a_cell_do_not_touch_and_lines_go_right(text: str, kind: str) -> None:
    cell = Architecture.named(text).cell(kind)
    layout = layout_cell(cell)
    boxes = [box for box in layout.boxes.values() if box.kind != "way"]
    assert sum(box.kind == "op" for box in boxes) == len(cell.edges)
    for i, a in enumerate(boxes):
        assert a.x - a.width / 2 >= 0
        assert a.x + a.width / 2 <= layout.width
        assert a.y - a.height / 2 >= 0
        assert a.y + a.height / 2 <= layout.height
        for b in boxes[i + 1 :]:
            apart = (
                abs(a.x - b.x) >= (a.width + b.width) / 2
                or abs(a.y - b.y) >= (a.height + b.height) / 2
            )
            assert apart, (a, b)
    for link in layout.links:
        xs = [layout.boxes[key].x for key in link.stops]
        assert xs == sorted(xs)


def test_nasbench_cell_ends_in_its_last_node_and_shows_none_faintly() -> None:
    found = Architecture.from_text(fixture.NB201)
    layout = layout_cell(found.cell("cell"))
    assert [box.label for box in layout.boxes.values() if box.kind == "output"] == ["output"]
    drawn = architecture_html(found)
    assert drawn.count('class="ghost"') == 1
    assert "no connection" in drawn


def test_an_absurdly_large_cell_is_not_drawn() -> None:
    edges = tuple((a, b, "skip_connect") for b in range(2, 30) for a in range(b))
    cell = CellChoice(edges, (29,))
    assert "too many edges" in architecture_html(Architecture("mine", (("cell", cell),)))


def test_choices_are_listed() -> None:
    assert "<td>5</td>" in architecture_html(Architecture("macro", choices=(("block1.kernel", 5),)))


def test_edges_are_named_by_their_number() -> None:
    assert edge_names(14)[:3] == ["in 1 → 0", "in 2 → 0", "in 1 → 1"]
    assert edge_names(14)[-1] == "2 → 3"
    assert edge_names(6) == ["in → 1", "in → 2", "1 → 2", "in → 3", "1 → 3", "2 → 3"]
    assert edge_names(7) == [f"edge {i}" for i in range(7)]


def test_alpha_history_keeps_rows_of_one_shape() -> None:
    rows = [
        {"epoch": 0, "alphas": {"cell": np.ones((6, 5)).tolist()}},
        {"epoch": 1, "alphas": {"cell": np.ones((6, 4)).tolist()}},
        {"epoch": 2, "alphas": {"cell": [[1, 2], [3]]}},
        {"epoch": 3, "alphas": {"cell": np.full((6, 4), 0.5).tolist()}},
    ]
    history = alpha_history(rows, ["a", "b"])[0]
    assert history.epochs == [1, 3]
    assert history.weights.shape == (2, 6, 4)
    assert history.ops == [f"operation {i}" for i in range(4)]


def test_pictures_are_written(tmp_path: Path) -> None:
    darts, nb = Architecture.named("DARTS_V2"), Architecture.from_text(fixture.NB201)
    assert cell_png(darts, tmp_path / "a.png").read_bytes()[:4] == PNG
    image = cell_image(nb)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert 0.3 < float((image > 250).all(-1).mean()) < 0.999
    weights = fixture.alphas(np.random.default_rng(0), (6, 5), 2)[-1]
    assert alpha_image({"cell": weights}, fixture.NB201_OPS).ndim == 3
    rows = [ModelRow.from_dict(item) for item in fixture.bench_rows()]
    assert front_png(rows, tmp_path / "f.png").read_bytes()[:4] == PNG
    with pytest.raises(ConfigError, match="no front to draw"):
        front_png([ModelRow("x")], tmp_path / "g.png")
    points = [{"name": "$x^{", "a": 1.0, "b": 2.0}, {"name": "y", "a": "no", "b": 1}]
    drawn = scatter_png(points, tmp_path / "s.png", x="a", y="b", baseline={"a": 1.5, "b": 1})
    assert drawn.read_bytes()[:4] == PNG
    series = {"one": [(0.0, 1.0), (1.0, 2.0)], "$two": [(0.0, 2.0)]}
    assert (
        lines_png(series, tmp_path / "l.png", x="trial", y="best", steps=True).read_bytes()[:4]
        == PNG
    )


def test_numbers_and_ticks_read_well() -> None:
    assert [number(v) for v in (0, 1234.5, 0.123456, 12.0, 2.5e7, 1e-7)] == [
        "0", "1234", "0.123", "12", "2.5e7", "1e-7",
    ]  # fmt: skip
    assert ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(0.2, 9, 0, 1, log=True).ticks() == pytest.approx([0.3, 1, 3])
    assert tick_texts([0.1245, 0.125, 0.1255]) == ["0.1245", "0.1250", "0.1255"]
    assert tick_texts([0, 2.5, 5]) == ["0.0", "2.5", "5.0"]
    assert tick_texts([0, 20, 40]) == ["0", "20", "40"]
    assert tick_texts([0, 2e6]) == ["0", "2e6"]
    assert Scale.fit([3, 3], 0, 10)(3) == pytest.approx(5)


def test_no_section_carries_a_style_of_its_own(tmp_path: Path) -> None:
    """A content security policy without inline styles shows every section as report.html does."""
    for name, make in (("search", fixture.make_search), ("train", fixture.make_train)):
        make(tmp_path / "V001" / name)
    content = version_content(read_version(tmp_path / "V001"))
    assert len(content.sections) > 3
    for section in content.sections:
        assert "style=" not in section.body, section.key
        assert "<script" not in section.body
