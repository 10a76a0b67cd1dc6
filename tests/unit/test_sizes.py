"""Sizes within their ranges that no memory holds are refused in a sentence, before memory is asked for."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darts_core import cli, control_groups, memory
from darts_core.errors import MemoryShortageError, sentence_of
from darts_core.models.baselines import baseline
from darts_core.sample_inputs import draw_inputs
from darts_core.settings import from_plain
from darts_core.spaces import get_space
from darts_core.stages.schema import SearchStage
from darts_core.stages.search_setup import make_supernet
from darts_core.supernet import Supernet
from darts_core.supernet.memory import check_network, state_bytes
from darts_core.supernet.paths import PATHS

SMALL = ["data=digits", "data.limit=100", "data.test_limit=20", "device=cpu"]
NET = (
    "architecture='|nor_conv_3x3~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|none~1|none~2|'"
)


def test_the_state_is_counted_without_being_made():
    made = baseline("resnet8", num_classes=10, in_channels=1, width=4)
    whole = sum(v.numel() * v.element_size() for v in made.state_dict().values())
    before = torch.random.get_rng_state()
    assert state_bytes(lambda: baseline("resnet8", num_classes=10, in_channels=1, width=4)) == whole
    state_bytes(lambda: Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_supernet_is_counted_whatever_path_it_is_to_take():
    """Tensors without data are on no device: search.path=fused is for a GPU, batched for a CPU."""
    bundle = SimpleNamespace(num_outputs=3, in_channels=1, input_shape=(1, 8, 8))
    sizes = set()
    for path in PATHS:
        search = {"channels": 2, "layers": 1, "path": path}
        relax = {"_target_": "darts_core.relax.Softmax"}
        config = from_plain(SearchStage, {"search": search, "relax": relax})
        made = partial(make_supernet, config, get_space("nasbench201"), bundle)
        sizes.add(state_bytes(partial(made, torch.device("meta"))))
    assert len(sizes) == 1


def test_a_network_is_refused_by_what_is_free(monkeypatch):
    def make():
        return baseline("resnet8", num_classes=10, in_channels=1, width=4)

    needed = 3 * state_bytes(make)
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: needed)
    check_network(make, torch.device("cpu"), "It")
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: needed - 1)
    with pytest.raises(
        MemoryShortageError, match=r"^It needs at least .* MiB of host memory are free;"
    ):
        check_network(make, torch.device("cpu"), "It")


def test_a_network_whose_code_reads_its_values_is_made_to_be_counted(monkeypatch):
    def make():
        rates = [rate.item() for rate in torch.linspace(0, 0.5, 2)]
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(rates[1]))

    before = torch.random.get_rng_state()
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 3 * 4 * 16)
    check_network(make, torch.device("cpu"), "It")
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 3 * 4 * 16 - 1)
    with pytest.raises(MemoryShortageError, match="It needs at least"):
        check_network(make, torch.device("cpu"), "It")


def test_a_network_that_finds_itself_too_large_is_not_made_again():
    made = []

    def make():
        made.append(1)
        raise MemoryShortageError("It needs more than there is.")

    with pytest.raises(MemoryShortageError):
        check_network(make, torch.device("cpu"), "It")
    assert made == [1]


def test_a_batch_is_refused_before_it_is_drawn():
    with pytest.raises(MemoryShortageError, match=r"batch of 1000000 of shape \(3, 1024, 1024\)"):
        draw_inputs((3, 1024, 1024), 1_000_000)
    assert draw_inputs((3, 4, 5), 2).shape == (2, 3, 4, 5)


def test_an_allocation_that_fails_is_a_sentence_too():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert str(sentence_of(caught.value)).startswith("The memory does not suffice (")
    assert str(sentence_of(MemoryError())).startswith("The memory does not suffice (")
    assert sentence_of(RuntimeError("another")) is None


@pytest.mark.parametrize(
    "words",
    [
        ["search", "space=nasbench201", "search.channels=4096", "search.layers=5", "search.batch_size=16"],
        ["train", NET, "train.channels=4096", "train.layers=5", "train.batch_size=16"],
        ["train", "architecture=resnet8", "data.image_size=1024", "data.limit=null"],
        ["bench", "what=step", "bench.options.channels=4096", "bench.options.layers=3"],
        ["bench", "what=step", "bench.options.size=4096", "bench.options.batch_size=1000000"],
    ],
    ids=["supernet", "network", "images", "step's supernet", "step's batch"],
)  # fmt: skip
def test_the_commands_say_so_and_leave_nothing(words, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # of a host of today; the images are of 1,797 digits
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 2**30)
    data = SMALL if words[0] != "bench" else ["data=digits", "device=cpu"]
    data = [
        word for word in data if word.partition("=")[0] not in {w.partition("=")[0] for w in words}
    ]
    assert cli.main([words[0], *data, *words[1:]]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("darts-core")]
    assert len(lines) == 1
    assert "of host memory are free; use " in lines[0]
    assert [p for p in tmp_path.rglob("V001") if p.is_dir()] == []


GIB = 2**30
# the machine's memory in kB, its groups, and the files of their folders
CONTAINERS = {
    "version 2": (
        "0::/",
        {"": {"memory.max": 3 * GIB, "memory.current": 2 * GIB}},
        "anon 5\nactive_file 1048576\ninactive_file 2097152\nshmem 7\nslab_reclaimable 4096",
        GIB + 3 * 2**20 + 4096,
    ),
    "a parent's limit": (
        "0::/pod/one",
        {
            "pod/one": {"memory.max": "max", "memory.current": GIB},
            "pod": {"memory.max": 2 * GIB, "memory.current": GIB},
        },
        "active_file 0",
        GIB,
    ),
    "version 1, the host's path": (
        "5:cpu:/docker/x\n4:cpuset,memory:/docker/x\n0::/docker/x",
        {"memory": {"memory.limit_in_bytes": 3 * GIB, "memory.usage_in_bytes": GIB}},
        "inactive_file 9\ntotal_inactive_file 4096",
        2 * GIB + 4096,
    ),
    "version 1, no limit": (
        "4:memory:/",
        {"memory": {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": GIB}},
        "total_inactive_file 0",
        8 * GIB,
    ),
    "overdrawn": ("0::/", {"": {"memory.max": GIB, "memory.current": 2 * GIB}}, "", 0),
    "none": ("0::/", {}, "", 8 * GIB),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_s_limit_counts(name, tmp_path, monkeypatch):
    groups, folders, stat, expected = CONTAINERS[name]
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    8388608 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{groups}\n")
    for folder, files in folders.items():
        place = tmp_path / "sys" / "fs" / "cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        for file, value in files.items():
            (place / file).write_text(f"{value}\n")
        (place / "memory.stat").write_text(f"{stat}\n")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    assert memory.free_bytes() == expected


def test_where_the_system_says_nothing_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    assert memory.free_bytes() is None
    memory.check_memory(2**60, "It needs", "use less")


def test_what_torch_keeps_of_a_gpu_for_its_next_tensors_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    gpu = torch.device("cuda", 0)
    memory.check_memory(750, "It needs", "use less", gpu)
    with pytest.raises(MemoryShortageError, match="memory of cuda:0 are free; use less"):
        memory.check_memory(751, "It needs", "use less", gpu)
