"""What a first run on a GPU brings along: wheels that its image lacks, and binaries compiled before."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu_wheels, on_gpu, resumable, triton_cache


def test_what_is_needed_is_followed_to_its_end():
    found = gpu_wheels.needed(["hydra-core"], have=["PyYAML"])
    assert {"hydra-core", "omegaconf", "antlr4-python3-runtime"} <= set(found)
    assert not {"pyyaml", "torch", "numpy", "pytest"} & set(found)
    # what is there with all that it needs leaves nothing
    assert gpu_wheels.needed(["hydra-core"], have=["hydra_core"]) == {}
    # an image's own torch is never replaced, nor by way of what needs it
    assert set(gpu_wheels.needed(["torch-pruning", "kornia"], [])) & {"torch", "triton"} == set()


def test_a_freeze_names_what_is_there(tmp_path):
    listed = tmp_path / "image.txt"
    listed.write_text("torch==2.11.0\n# a remark\nFoo_Bar @ file:///x\n-e .\n")
    assert gpu_wheels.frozen(listed) == {"torch", "foo-bar"}


@pytest.mark.parametrize("pure", [True, False])
def test_a_source_is_built_only_where_it_is_pure_python(tmp_path, monkeypatch, pure):
    calls = []

    def pip(words, **_):
        calls.append(words)
        if "download" in words:
            return subprocess.CompletedProcess(words, 1, stderr="no wheel")
        tag = "py3-none-any" if pure else "cp311-cp311-linux_x86_64"
        (tmp_path / f"antlr_x-4.9.3-{tag}.whl").touch()
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    found = gpu_wheels.fetch("antlr-x", "4.9.3", tmp_path)
    assert calls[0][calls[0].index("--python-version") + 1] == "3.12"
    assert all("antlr-x==4.9.3" in words and "--no-deps" in words for words in calls)
    assert (found is not None) == pure
    assert bool(list(tmp_path.glob("*.whl"))) == pure


def test_a_folder_without_wheels_installs_nothing(tmp_path, capsys, monkeypatch):
    assert gpu_wheels.install(tmp_path) == 0
    assert "nothing to install" in capsys.readouterr().out
    (tmp_path / "x-1-py3-none-any.whl").touch()
    assert gpu_wheels.install(tmp_path, dry_run=True) == 0
    assert "x-1-py3-none-any.whl" in capsys.readouterr().out
    calls = []
    monkeypatch.setattr(
        subprocess, "run",
        lambda words, check: calls.append(words) or subprocess.CompletedProcess(words, 0),
    )  # fmt: skip
    assert gpu_wheels.install(tmp_path, target=tmp_path / "site") == 0
    # beside the image's packages, without a network
    assert calls[0][calls[0].index("--target") + 1] == str(tmp_path / "site")
    assert {"--no-index", "--no-deps"} <= set(calls[0])


def test_packed_binaries_are_found_in_another_place(tmp_path, monkeypatch):
    """A variant that was compiled and packed is not compiled again elsewhere: its binary is the same."""
    import torch
    from triton.compiler import ASTSource

    from darts_kernels import weighted_sum
    from darts_kernels.standin import compile_variant, recorded

    x = torch.empty(4096, device="meta")
    (launch,) = recorded(
        lambda: weighted_sum._weighted_sum_kernel[(4,)]((x,), x, x, 256, K=1, BLOCK=64)
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "here"))
    compiled = compile_variant(launch.variant)
    assert triton_cache.pack(tmp_path / "here", tmp_path / "cache.tar.xz") == 1
    assert triton_cache.unpack(tmp_path / "cache.tar.xz", tmp_path / "there") == 1
    assert triton_cache.unpack(tmp_path / "cache.tar.xz", tmp_path / "there") == 0
    kept = {path.suffix for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert kept == {".json", ".cubin"}

    def fails(*_):
        raise AssertionError("compiled again")

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "there"))
    monkeypatch.setattr(ASTSource, "make_ir", fails)
    assert compile_variant(launch.variant).asm["cubin"] == compiled.asm["cubin"]


def test_compiling_stops_in_time_and_goes_on(tmp_path, monkeypatch, capsys):
    from darts_core.bench import offline
    from darts_kernels import standin

    made = []
    parts = [
        [standin.Variant("_a_kernel", name, "", {}, {}, None) for name in part]
        for part in (("one", "two"), ("three",))
    ]
    monkeypatch.setattr(offline, "variants_by_value", lambda: iter(parts))
    monkeypatch.setattr(standin, "compile_variant", lambda variant: made.append(variant.name))
    assert triton_cache.compile_steps(minutes=0) == (1, True)
    words = ["triton_cache", "--compile", "--minutes", "0"]
    monkeypatch.setattr(sys, "argv", words)
    assert triton_cache.main() == resumable.UNFINISHED
    assert "1 variants are compiled, call again for the others" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words[:-1], "5"])
    assert triton_cache.main() == 0
    assert made == ["one", "one", "one", "two", "three"]
    assert triton_cache.compile_steps(2) == (2, False)


@pytest.mark.full
def test_the_most_valuable_variants_come_first_and_none_twice():
    from darts_core.bench.offline import STEPS, OfflineCase, all_variants, variants_by_value

    parts = [{v.name for v in part} for part in variants_by_value()]
    assert parts[0] == set(all_variants([OfflineCase(), OfflineCase(precision="bf16")]))
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert set(all_variants(STEPS, exports=True)) <= set().union(*parts)


def test_a_job_says_what_it_costs(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "none"))
    commands = {"step": [sys.executable, "-c", "raise SystemExit(3)"]}
    monkeypatch.setattr(on_gpu, "jobs", lambda _: commands)
    words = ["--out", str(tmp_path), "--carried", str(tmp_path), "--minutes", "1"]
    monkeypatch.setattr(sys, "argv", ["on_gpu", *words])
    assert on_gpu.main() == on_gpu.UNFINISHED
    assert on_gpu.main() == on_gpu.UNFINISHED
    first, second = (line for line in capfd.readouterr().out.splitlines() if "== step" in line)
    assert "at most 0.7 minutes of this call" in first
    assert "estimated" in first
    assert "so far in 1" in second
    assert len(json.loads((tmp_path / "minutes.json").read_text())["step"]) == 2
