"""Every reader meets a corpus of hostile files: a value or the project's own error, soon and small."""

import json
import os
import resource
import time
from pathlib import Path

import pytest
from hostile_corpus import GENOTYPES, TEXTS, binary_readers, text_readers, within

from darts_core.architecture import Architecture
from darts_core.errors import ArchitectureError, DartsError, JobError
from darts_core.reading import parse_json, read_bytes, read_jsonl, read_text, regular_file
from darts_core.reading_yaml import parse_yaml, read_yaml

TEXT_READERS = text_readers()
BINARY_READERS = binary_readers()
SECONDS = 10
# what a reader may add to the process's memory: two copies of the largest text with room to spare
GROWTH_KIB = 600 * 1024


# writing 5 to it lets Linux begin the process's peak anew: else that of an earlier test hides this one's
PEAK = Path("/proc/self/clear_refs")


def meets(read, path):
    """The reader's error, or None; anything but the project's own error passes through."""
    if PEAK.exists():
        PEAK.write_text("5", encoding="ascii")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with within(SECONDS):
            read(path)
        error = None
    except DartsError as found:
        error = found
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH_KIB, f"took {grown} KiB"
    return error


def test_a_reader_that_takes_too_long_or_too_much_is_found(monkeypatch, tmp_path):
    """Also one that calls whatever goes wrong a damaged file, and after a test that took as much memory."""

    def slow(path):
        try:
            time.sleep(5)
        except Exception as error:
            raise DartsError("It is damaged.") from error

    def large(path):
        return bytearray(b"x") * 2**25

    with monkeypatch.context() as patch:
        patch.setitem(globals(), "SECONDS", 0.05)
        with pytest.raises(AssertionError, match=r"took more than 0\.05 s"):
            meets(slow, tmp_path)
    monkeypatch.setitem(globals(), "GROWTH_KIB", 2**14)
    for _ in range(2 if PEAK.exists() else 1):
        with pytest.raises(AssertionError, match=r"took \d+ KiB"):
            meets(large, tmp_path)


@pytest.mark.parametrize("reader", TEXT_READERS)
@pytest.mark.parametrize("content", TEXTS)
def test_a_text_reader_gives_a_value_or_a_sentence(tmp_path, reader, content):
    name, read = TEXT_READERS[reader]
    (tmp_path / name).write_bytes(TEXTS[content])
    error = meets(read, tmp_path / name)
    if error is not None:
        assert str(tmp_path) in str(error), error
        assert len(str(error)) < 2000


BINARY = [
    (reader, name) for reader, (_, _, contents) in BINARY_READERS.items() for name in contents
]


@pytest.mark.parametrize(("reader", "content"), BINARY)
def test_a_binary_reader_gives_a_value_or_a_sentence(tmp_path, reader, content):
    name, read, contents = BINARY_READERS[reader]
    (tmp_path / name).write_bytes(contents[content])
    error = meets(read, tmp_path / name)
    if reader not in ("artifact", "idx", "pickle"):
        assert error is not None
    if error is not None:
        assert str(tmp_path) in str(error), error
        assert len(str(error)) < 2000


@pytest.mark.parametrize("name", GENOTYPES)
def test_an_architecture_text_is_a_value_or_a_sentence(name):
    with within(SECONDS), pytest.raises(ArchitectureError) as error:
        Architecture.from_text(GENOTYPES[name])
    assert len(str(error.value)) < 1000


READERS = {
    **{k: v[:2] for k, v in TEXT_READERS.items()},
    **{k: v[:2] for k, v in BINARY_READERS.items()},
}


@pytest.mark.parametrize(
    "reader", [r for r in READERS if r not in ("journal", "version's record", "job's record")]
)
@pytest.mark.parametrize("kind", ["pipe", "endless device", "folder", "ring of links", "no rights"])
def test_a_reader_opens_regular_files_only(tmp_path, reader, kind):
    name, read = READERS[reader]
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "ring of links":
        path.symlink_to(path)
    else:
        path.write_bytes(b"{}")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    absent = kind == "ring of links" and reader in ("json lines", "metrics")
    error = meets(read, path)
    assert error is not None or absent


# the sentences that matter most, one by one: where, what
YAML = {
    "deep lists": "nested more than", "anchors": "unfolds to more than", "itself": "contains itself",
    "long digits": "a number of 5000 characters", "long hex": "a number of", "binary tag": "binary",
    "set tag": "set", "python tag": "python", "a key twice": "'a' stands twice",
    "latin-1": "line 1: byte 0xfc",
    "long sixties": "a number of", "two documents": "line 2", "unclosed": "line",
    "half a character": "half a character",
}  # fmt: skip


@pytest.mark.parametrize("name", YAML)
def test_yaml_sentences_name_the_reason(tmp_path, name):
    (tmp_path / "a.yaml").write_bytes(TEXTS[name])
    with pytest.raises(DartsError, match=YAML[name]):
        read_yaml(tmp_path / "a.yaml")


def test_dates_stay_texts():
    assert parse_yaml("a: 2024-01-01\nb: 2024-13-45\nc: 2020-01-01", "x") == {
        "a": "2024-01-01", "b": "2024-13-45", "c": "2020-01-01",
    }  # fmt: skip


def test_plain_yaml_and_anchors_are_read():
    text = "base: &b {x: 1, y: [1.5, true, null, 'a']}\nmore:\n  <<: *b\n  x: 2\nlist: [*b, *b]\n"
    found = parse_yaml(text, "x")
    assert found["more"] == {"x": 2, "y": [1.5, True, None, "a"]}
    assert found["list"] == [found["base"]] * 2


def test_numbers_beyond_64_bits_are_refused():
    assert parse_json(str(2**64 - 1), "x") == 2**64 - 1
    for number in (2**64, -(2**64)):
        with pytest.raises(DartsError, match="64 bits"):
            parse_json(str(number), "x")
        with pytest.raises(JobError, match="64 bits"):
            parse_yaml(str(number), "x", JobError)


def test_one_junk_line_costs_one_row(tmp_path, caplog):
    lines = ['{"epoch": 0}', "[" * 5000, '{"epoch": 1}', "5", "\udcff", '{"epoch": 2}', '{"epo']
    (tmp_path / "m.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    assert [row["epoch"] for row in read_jsonl(tmp_path / "m.jsonl")] == [0, 1, 2]
    assert "left out 3 damaged lines, the first is line 2" in caplog.text


def test_a_torn_last_line_is_left_out_in_silence(tmp_path, caplog):
    (tmp_path / "m.jsonl").write_text('{"epoch": 0}\n{"epo', encoding="utf-8")
    assert read_jsonl(tmp_path / "m.jsonl") == [{"epoch": 0}]
    assert caplog.text == ""


def test_a_file_beyond_the_limit_is_refused_after_so_many_bytes(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with within(SECONDS), pytest.raises(DartsError, match="larger than"):
        read_bytes(path, limit=1000)
    with within(SECONDS), pytest.raises(DartsError, match="larger than"):
        read_yaml(path)


def test_names_that_no_system_has_are_sentences(tmp_path):
    for name in ("a\0b", "x" * 5000, str(tmp_path / "no" / "such"), str(tmp_path / "f" / "g")):
        (tmp_path / "f").write_text("", encoding="utf-8")
        with pytest.raises(DartsError):
            regular_file(name)


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffgrün".encode())
    assert read_text(tmp_path / "a") == "grün"
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert parse_json(read_text(tmp_path / "b.json"), "b") == {"a": 1}
