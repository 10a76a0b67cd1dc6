"""Hostile contents by kind of file, and the readers of each kind. Generated here, so nothing is stored."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def _text(content: str) -> bytes:
    return content.encode("utf-8", "surrogatepass")


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 30):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(200),
    "noise": bytes(range(256)) * 4,
    "latin-1": "grün: größe\n".encode("latin-1"),
    "utf-16": "a: 1\n".encode("utf-16"),
    "mark": b"\xef\xbb\xbfa: 1\n",
    "control characters": b"a: \x1b[31m\x00\x07\n",
    "half a character": b'{"a": "\\ud800"}',
    "a scalar": b"5\n",
    "a text": b"just words\n",
    "a list": b"[1, 2]\n",
    "null": b"null\n",
    "deep lists": b"[" * 100_000,
    "deep lists, closed": b"[" * 5000 + b"]" * 5000,
    "deep mappings": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "deep indents": b"".join(b" " * i + b"a:\n" for i in range(1000)),
    "deep dashes": b"- " * 5000,
    "long digits": b"a: " + b"9" * 5000 + b"\n",
    "long digits in json": b'{"a": ' + b"9" * 5000 + b"}",
    "many digits": b'{"a": ' + b"9" * 400 + b"}",
    "long hex": b"a: 0x" + b"f" * 100_000,
    "long sixties": b"a: " + b"1:" * 50_000 + b"1",
    "large exponent": b'{"a": 1e999999}',
    "a date": b"a: 2024-01-01\n",
    "no date": b"a: 2024-13-45\n",
    "no time": b"a: 2001-12-14t99:59:43.10-05:00\n",
    "binary tag": b"a: !!binary aGVsbG8=\n",
    "bad binary tag": b"a: !!binary ***\n",
    "set tag": b"a: !!set {b, c}\n",
    "ordered tag": b"a: !!omap [b: 1]\n",
    "pairs tag": b"a: !!pairs [b: 1]\n",
    "python tag": b"a: !!python/object/apply:os.system ['true']\n",
    "own tag": b"a: !mine 1\n",
    "wrong tags": b"a: !!int x\nb: !!float x\nc: !!bool x\nd: !!null x\ne: !!str [1]\n",
    "a key twice": b"a: 1\na: 2\n",
    "a key twice in json": b'{"a": 1, "a": 2}',
    "a list as key": b"? [a, b]\n: 1\n",
    "a mapping as key": b"? {a: b}\n: 1\n",
    "anchors": _text(_bomb()),
    "itself": b"a: &a [*a]\n",
    "itself by key": b"&a {b: *a}\n",
    "unknown alias": b"a: *b\n",
    "merge of a scalar": b"<<: 5\n",
    "merge of itself": b"&a {<<: *a}\n",
    "value tag": b"a: =\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "tabs": b"a:\n\t- b\n",
    "unclosed": b"a: [1, {b: 'c\n",
    "directive": b"%YAML 9.9\n---\na: 1\n",
    "nan": b"a: .nan\nb: .inf\n",
    "nan in json": b'{"a": NaN, "b": Infinity}',
    "cut json": b'{"a": 1',
    "number keys": b"1: 2\ntrue: 3\nnull: 4\n",
    "long line": b"a" * 3_000_000,
    "many lines": b"a\n" * 100_000,
    "long cell": b"architecture,accuracy\n" + b"x" * 200_000 + b",1\n",
    "open quote": b'architecture,accuracy\n"x,1\n' * 100,
    "null character in a table": b"architecture,accuracy\na\0b,1\n",
    "short row": b"architecture,accuracy\nonly\n",
    "words for numbers": b"architecture,accuracy\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,x\n",
    "html": b"<html><script>alert(1)</script></html>",
}

GENOTYPES: dict[str, str] = {
    "empty": "",
    "name": "DARTS_V9",
    "no call": "Genotype",
    "open": "Genotype(",
    "deep": "Genotype(normal=" + "[" * 5000,
    "deep closed": "Genotype(normal=" + "[" * 150 + "]" * 150 + ")",
    "minus": "Genotype(normal=" + "-" * 50_000 + "1)",
    "sum": "Genotype(normal=" + "1+" * 50_000 + "1)",
    "digits": "Genotype(normal=[('a', " + "9" * 5000 + ")])",
    "call": "Genotype(normal=__import__('os').system('true'), normal_concat=[2])",
    "number concat": "Genotype(normal=[('a',0),('a',1)], normal_concat=5)",
    "range": "Genotype(normal=[('a',0),('a',1)], normal_concat=range(10**9))",
    "twice": "Genotype(normal=[('a',0),('a',1)], normal=[], normal_concat=[2])",
    "stars": "Genotype(*x, **y)",
    "walrus": "Genotype(normal=(x:=1))",
    "set": "Genotype(normal={[1]})",
    "bytes": "Genotype(normal=[(b'a', 0), (b'b', 1)], normal_concat=[2])",
    "negative": "Genotype(normal=[('a', -1), ('a', 0)], normal_concat=[2])",
    "nulls": "Genotype(normal=\0)",
    "bars": "|||||",
    "no end": "|a~0|+|b~1",
    "far": "|a~999|",
    "many nodes": "|a~0|" + "+|a~0|" * 5000,
    "many edges": "|" + "a~0|" * 20_000,
    "lines": "|a~0|\n+|b~0|",
    "long": "|" + "a" * 200_000 + "~0|",
}


IDX: dict[str, bytes] = {
    "empty": b"",
    "short": b"\0\0\x08",
    "no header": b"\0\0\x08\x03",
    "other type": b"\0\0\x0d\x03" + bytes(12),
    "other dimensions": b"\0\0\x08\x01" + bytes(4),
    "announces terabytes": b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "announces more": b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28) + bytes(100),
    "announces less": b"\0\0\x08\x03" + struct.pack(">3I", 1, 2, 2) + bytes(100),
    "announces nothing": b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 0),
    "gzip cut": gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28) + bytes(7840))[:60],
    "gzip bad": b"\x1f\x8b" + bytes(50),
    "gzip of noise": gzip.compress(os.urandom(100)),
    "gzip without end": gzip.compress(
        b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(10_000_000)
    ),
}


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1")
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


_HEAD = "{{'descr': '{d}', 'fortran_order': False, 'shape': {s}}}"
LABELS = saved(np.zeros(3, np.int64))
NPZ: dict[str, bytes] = {
    "empty": b"",
    "no zip": b"PK\x03\x04" + bytes(40),
    "no members": npz({}),
    "no arrays": npz({"images.npy": b"", "labels.npy": b""}),
    "objects": npz({"images.npy": saved(np.array([print], object)), "labels.npy": LABELS}),
    "announces terabytes": npz(
        {"images.npy": npy(_HEAD.format(d="|u1", s=(10**12, 8, 8))), "labels.npy": LABELS}
    ),
    "negative": npz({"images.npy": npy(_HEAD.format(d="|u1", s=(-1, 8, 8))), "labels.npy": LABELS}),
    "overflow": npz(
        {"images.npy": npy(_HEAD.format(d="|u1", s=(2**62, 2**62))), "labels.npy": LABELS}
    ),
    "no size": npz({"images.npy": npy(_HEAD.format(d="|V0", s=(10**9,))), "labels.npy": LABELS}),
    "deep header": npz({"images.npy": npy("[" * 5000), "labels.npy": LABELS}),
    "minus header": npz({"images.npy": npy("-" * 9000 + "1"), "labels.npy": LABELS}),
    "call header": npz(
        {"images.npy": npy("__import__('os').system('true')"), "labels.npy": LABELS}
    ),
    "no header": npz({"images.npy": npy("5"), "labels.npy": LABELS}),
    "version": npz(
        {
            "images.npy": npy(_HEAD.format(d="|u1", s=(1,)), version=b"\x09\x00"),
            "labels.npy": LABELS,
        }
    ),
    "record": npz({"images.npy": saved(np.zeros(3, [("a", "u1")])), "labels.npy": LABELS}),
    "floats": npz({"images.npy": saved(np.zeros((3, 8, 8))), "labels.npy": LABELS}),
    "words": npz(
        {
            "images.npy": saved(np.zeros((3, 8, 8), np.uint8)),
            "labels.npy": saved(np.array(["a"] * 3)),
        }
    ),
    "dates": npz(
        {
            "images.npy": saved(np.zeros((3, 8, 8), np.uint8)),
            "labels.npy": saved(np.array(["2020"] * 3, "datetime64[D]")),
        }
    ),
    "huge labels": npz(
        {
            "images.npy": saved(np.zeros((3, 8, 8), np.uint8)),
            "labels.npy": saved(np.full(3, 2**63, np.uint64)),
        }
    ),
    "half characters": npz(
        {
            "images.npy": saved(np.zeros((2, 8, 8), np.uint8)),
            "labels.npy": saved(np.arange(2)),
            "class_names.npy": npy(_HEAD.format(d="<U1", s=(2,)), struct.pack("<2I", 0xD800, 0x41)),
        }
    ),
    "no characters": npz(
        {
            "images.npy": saved(np.zeros((2, 8, 8), np.uint8)),
            "labels.npy": saved(np.arange(2)),
            "class_names.npy": npy(_HEAD.format(d="<U1", s=(2,)), struct.pack("<2I", 2**31, 0x41)),
        }
    ),
    "bytes as names": npz(
        {
            "images.npy": saved(np.zeros((2, 8, 8), np.uint8)),
            "labels.npy": saved(np.arange(2)),
            "class_names.npy": saved(np.array([b"\xff", b"a"])),
        }
    ),
    "packed": npz(
        {"images.npy": saved(np.zeros((3, 8, 8), np.uint8)), "labels.npy": LABELS},
        zipfile.ZIP_DEFLATED,
    )[:-60],
    "unfolds": npz(
        {"images.npy": npy(_HEAD.format(d="|u1", s=(1,)), bytes(20_000_000)), "labels.npy": LABELS},
        zipfile.ZIP_DEFLATED,
    ),
}


def _put(place: int) -> bytes:
    return b"\x80\x02}r" + struct.pack("<I", place) + b"."


def _tuples() -> bytes:
    return b"\x80\x02}(\x8c\x01x" + b"\x85q\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"K\x01s."


PICKLES: dict[str, bytes] = {
    "empty": b"",
    "noise": bytes(range(256)),
    "number": pickle.dumps(5),
    "deep": b"(" * 100_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "memo far away": _put(2**31),
    "tuples of tuples": _tuples(),
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(10) + b".",
    "text beyond the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "no data": pickle.dumps({b"labels": [1]}),
    "no labels": pickle.dumps({b"data": 1}),
    "labels that are booleans": pickle.dumps({b"data": [1], b"labels": [True]}),
    "itself": b"\x80\x02]q\x00h\x00a.",
}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """A block that may take `seconds`; a longer one fails the test."""

    over: list[AssertionError] = []

    def late(*_: object) -> None:
        over.append(AssertionError(f"took more than {seconds} s"))
        raise over[0]

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        # a reader that takes any error for damage of its file has made a sentence of the one above
        if over:
            raise over[0]


Reader = Callable[[Path], Any]


def text_readers() -> dict[str, tuple[str, Reader]]:
    """Readers of text files by name: (file name, reader)."""
    from darts_core.architecture import Architecture
    from darts_core.augment.policy import policy_from_yaml
    from darts_core.autosearch.job_yaml import parse_file
    from darts_core.bench.tabular_read import from_csv
    from darts_core.export import read_manifest
    from darts_core.latency.table import LatencyTable
    from darts_core.reading import read_json, read_jsonl, read_mapping
    from darts_core.reading_yaml import read_yaml
    from darts_core.runlog import RunFolder
    from darts_core.store.record import read_job, read_record
    from darts_core.study.storage import open_storage

    return {
        "yaml": ("a.yaml", read_yaml),
        "json": ("a.json", read_json),
        "json mapping": ("a.json", read_mapping),
        "json lines": ("metrics.jsonl", read_jsonl),
        "metrics": ("metrics.jsonl", lambda p: RunFolder(p.parent, tensorboard=False).rewind(3)),
        "result": ("result.json", lambda p: RunFolder(p.parent, tensorboard=False).result()),
        "architecture": ("architecture.yaml", Architecture.from_yaml),
        "policy": ("policy.yaml", policy_from_yaml),
        "job file": ("job.yaml", parse_file),
        "latency table": ("table.json", LatencyTable.load),
        "manifest": ("manifest.json", lambda p: read_manifest(p.parent)),
        "table": ("table.csv", from_csv),
        "version's record": ("version.json", lambda p: read_record(p.parent)),
        "job's record": ("job.json", lambda p: read_job(p.parent)),
        "journal": ("study.journal", lambda p: open_storage(p.parent).get_all_studies()),
    }


def binary_readers() -> dict[str, tuple[str, Reader, dict[str, bytes]]]:
    """Readers of binary files by name: (file name, reader, hostile contents)."""
    from darts_core.bench.tabular import TabularBenchmark
    from darts_core.checkpoint import load_checkpoint
    from darts_core.data.checks import check_raw
    from darts_core.data.idx import read_idx
    from darts_core.data.npz import load_npz
    from darts_core.data.parquet import load_parquet
    from darts_core.data.restricted_pickle import read_pickle
    from darts_core.data.targets import read_targets
    from darts_core.export.archive import load_program
    from darts_core.export.contents import what_is
    from darts_core.train.save import load_model

    junk = {k: TEXTS[k] for k in ("empty", "zeros", "noise", "long line", "html")}
    magic = {"magic": b"PAR1" + bytes(100) + b"PAR1", "zip": npz({"a": b"b"}), **junk}
    return {
        "idx": ("a.idx", lambda p: read_idx(p, 3), {**IDX, **junk}),
        "npz": ("a.npz", lambda p: read_targets(check_raw(load_npz(p)), None), {**NPZ, **junk}),
        "pickle": ("data_batch_1", read_pickle, {**PICKLES, **junk}),
        "parquet": ("a.parquet", load_parquet, magic),
        "checkpoint": ("a.pt", load_checkpoint, {**PICKLES, **magic}),
        "model": ("model.pt", load_model, {**PICKLES, **magic}),
        "program": ("a.pt2", load_program, magic),
        "artifact": ("a.pt2", what_is, magic),
        "table": ("a.npz", TabularBenchmark.load, {**NPZ, **junk}),
    }
