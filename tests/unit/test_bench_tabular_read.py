"""Tables read from CSV and from NATS-Bench files."""

import bz2
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bench_tabular import text

from darts_core.bench.tabular_read import from_csv, from_nats_bench, open_table
from darts_core.errors import ConfigError, DataError


def test_csv_columns_seeds_and_per_cent(tmp_path: Path) -> None:
    a, b = text(("none",) * 6), text(("skip_connect",) * 6)
    path = tmp_path / "mine.csv"
    path.write_text(
        "id,Architecture,accuracy_cifar10,cifar100_accuracy,latency_ms_pixel 4,note\n"
        f"1,{a},90,0.5,3.5,x\n2,{a},92,,4.5,y\n3,{b},50%,0.75,,z\n\n"
    )
    table = open_table(path)
    assert table.name == "mine"
    assert table.lookup(a, "cifar10").accuracy == pytest.approx(0.91)
    assert table.lookup(b, "cifar10").accuracy == pytest.approx(0.5)
    assert table.lookup(a, "cifar100").accuracy == 0.5
    assert table.lookup(a, "cifar10").latency_ms == {"pixel 4": 4.0}
    assert table.lookup(b, "cifar10").latency_ms == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "header is empty"),
        ("architecture,flops\nx,1\n", "needs a column 'architecture' and a column 'accuracy'"),
        ("architecture,accuracy\nx,high\n", "line 2: 'high' is not a number"),
        ("architecture,accuracy\nx\n", "line 2: 1 cells"),
        ("architecture,accuracy\n|x~0|+|broken,0.5\n", "line 2: Node 2"),
        ("architecture,accuracy\n", "holds no row"),
        ("architecture,accuracy\nx,-3\n", "between 0 and 1"),
    ],
)
def test_bad_csv_files_name_the_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError, match=words.replace("|", r"\|")):
        from_csv(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("accuracy,latency_us", "'latency_us' is not in milliseconds"),
        ("accuracy,Latency_Seconds", "'Latency_Seconds' is not in milliseconds"),
        ("accuracy,acc", "'accuracy' and 'acc' are of the same thing"),
        ("accuracy,accuracy", "'accuracy' and 'accuracy' are of the same thing"),
    ],
)
def test_columns_that_would_be_read_as_something_else_are_refused(
    header: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"architecture,{header}\n64:32,0.5,1.5\n")
    with pytest.raises(DataError, match=words):
        from_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("architecture,accuracy,latency,latency_ms_s\n64:32,0.5,1.5,2\n")
    assert set(from_csv(tmp_path / "t.csv").latencies) == {"default", "s"}


def nats_entry(accuracy: float) -> dict[str, Any]:
    """One architecture's results as the benchmark stores them, numpy numbers included."""

    def trial(seed: int, split: str, value: float) -> dict[str, Any]:
        return {
            "name": "net", "net_state_dict": None, "epochs": 2, "seed": seed,
            "eval_names": [split], "latency": [np.float64(0.01), 0.03],
            "eval_acc1es": {f"{split}@0": 1.0, f"{split}@1": np.float64(value)},
            "train_times": OrderedDict({0: 1.0}),
        }  # fmt: skip

    results = {
        ("cifar10", 777): trial(777, "ori-test", accuracy),
        ("cifar10", 888): trial(888, "ori-test", accuracy + 2),
        ("cifar10-valid", 777): trial(777, "x-valid", accuracy - 1),
    }
    return {
        "200": {"arch_index": 0, "all_results": results, "dataset_seed": {"cifar10": [777, 888]}}
    }


def write_pickle(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with bz2.open(path, "wb") as stream:
        pickle.dump(value, stream, protocol=4)


def test_nats_bench_folder_and_file_become_tables(tmp_path: Path) -> None:
    texts = [text(("none",) * 6), text(("skip_connect",) * 6), text(("nor_conv_3x3",) * 6)]
    folder = tmp_path / "NATS-tss-simple"
    write_pickle(
        folder / "meta.pickle.pbz2",
        {"meta_archs": texts, "total_archs": 3, "evaluated_indexes": {0, 2}},
    )
    write_pickle(folder / "000000.pickle.pbz2", nats_entry(10))
    write_pickle(folder / "000002.pickle.pbz2", nats_entry(90))
    full = tmp_path / "NATS-tss.pickle.pbz2"
    infos = OrderedDict({0: nats_entry(10), 2: nats_entry(90)})
    write_pickle(full, {"meta_archs": texts, "arch2infos": infos, "evaluated_indexes": {0, 2}})
    for path in (folder, full):
        table = open_table(path)
        assert len(table) == 2
        assert table.lookup(texts[2], "cifar10").accuracy == pytest.approx(0.91)
        assert table.lookup(texts[0], "cifar10:val").accuracy == pytest.approx(0.09)
        assert table.lookup(texts[0], "cifar10").latency_ms["nats-bench cifar10"] == pytest.approx(
            20.0
        )
    with pytest.raises(ConfigError, match="hp="):
        from_nats_bench(folder, hp="12")


def test_a_folder_that_lacks_files_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [text(("none",) * 6), text(("skip_connect",) * 6)]
    write_pickle(tmp_path / "meta.pickle.pbz2", {"meta_archs": texts})
    write_pickle(tmp_path / "000001.pickle.pbz2", nats_entry(90))
    with caplog.at_level("WARNING"):
        assert open_table(tmp_path).architectures == (texts[1],)
    assert "holds files of 1 of its 2 architectures" in caplog.text
    caplog.clear()
    write_pickle(tmp_path / "000000.pickle.pbz2", nats_entry(10))
    assert len(open_table(tmp_path)) == 2
    assert "architectures" not in caplog.text


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/darts-core-pwned",)


@pytest.mark.parametrize(
    "value", [Attack(), {"meta_archs": [Attack()]}, {"meta_archs": np.ones(3)}]
)
def test_hostile_pickles_are_refused_and_not_run(value: Any, tmp_path: Path) -> None:
    marker = Path("/tmp/darts-core-pwned")
    marker.unlink(missing_ok=True)
    write_pickle(tmp_path / "evil.pickle.pbz2", value)
    with pytest.raises(DataError, match="Nothing of it was run"):
        from_nats_bench(tmp_path / "evil.pickle.pbz2")
    assert not marker.exists()


def test_damaged_and_swollen_pickles_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pickle.pbz2"
    path.write_bytes(b"no bz2 at all")
    with pytest.raises(DataError, match="not a NATS-Bench file"):
        from_nats_bench(path)
    write_pickle(path, [1, 2])
    with pytest.raises(DataError, match="does not have the form"):
        from_nats_bench(path)
    monkeypatch.setattr("darts_core.bench.tabular_read._MAX_ARCHIVE", 10_000)
    write_pickle(path, {"meta_archs": ["a" * 100_000]})
    with pytest.raises(DataError, match="more bytes than such a file has"):
        from_nats_bench(path)
    with pytest.raises(DataError, match="There is no file"):
        from_nats_bench(tmp_path / "absent.pickle.pbz2")
