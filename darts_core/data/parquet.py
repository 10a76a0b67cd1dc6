"""Parquet files as Hugging Face data sets have them: a column of encoded images, one of labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.data.decode import decode_images
from darts_core.data.source import RawData, check_memory, existing, register_source
from darts_core.errors import ConfigError, DataError, first_line
from darts_core.reading import DAMAGE, regular_file

__all__ = ["load_parquet"]

log = logging.getLogger("darts_core")

_HOLDS = (
    "a .parquet file, or a folder with train*.parquet (and test*.parquet), with the columns "
    "image{bytes} and label"
)
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
# so many files that are not read are named
_MOST_NAMED = 5
# how the files of a part begin, and what a folder of them is called
_PARTS = {"train": ("train",), "test": ("test",), "val": ("validation", "val")}


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """The training files and the test files."""
    if path.is_file():
        return [path], []
    found = sorted(path.rglob("*.parquet"))
    parts = {file: _part(file, path) for file in found}
    train, test, val = ([f for f in found if parts[f] == part] for part in _PARTS)
    if test and val:
        log.warning("parquet: %s is not read: val is drawn from the training files", val[0])
    test = test or val
    if not train and len(found) == 1:
        return found, []
    if not train:
        raise DataError(f"data.path={path} has no train*.parquet; needed is {_HOLDS}.")
    if unread := [str(file.relative_to(path)) for file in found if not parts[file]]:
        more = ", ..." if len(unread) > _MOST_NAMED else ""
        log.warning(
            "parquet: of %s are not read: %s%s", path, ", ".join(unread[:_MOST_NAMED]), more
        )
    return train, test


def _part(file: Path, folder: Path) -> str:
    """What a file holds, by the folder below `folder` that it lies in, else its own name, else `folder`'s.

    A file has one part: one called train in somebody's folder `test` is no test set, too.
    """
    inner = file.parent.name if file.parent != folder else ""
    for part, names in _PARTS.items():
        if inner in names:
            return part
    for part, names in _PARTS.items():
        if file.name.startswith(names):
            return part
    return next((part for part, names in _PARTS.items() if file.parent.name in names), "")


def _column(
    names: list[str], wanted: str | None, usual: tuple[str, ...], what: str, path: Path
) -> str:
    for name in (wanted,) if wanted else usual:
        if name in names:
            return str(name)
    raise DataError(
        f"{path} has no {what} column {wanted or ' or '.join(usual)!r}; its columns are "
        f"{', '.join(names)}. Name one with data.{what}_column=..."
    )


def _read_table(files: list[Path], image_column: str | None, label_column: str | None) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            "Reading parquet files needs pyarrow; install it with: pip install "
            "'darts-core[parquet]'."
        ) from error
    tables, meta = [], None
    for file in files:
        try:
            reader = pq.ParquetFile(regular_file(file))
            names = reader.schema_arrow.names
            image = _column(names, image_column, _IMAGE_COLUMNS, "image", file)
            label = _column(names, label_column, _LABEL_COLUMNS, "label", file)
            rows = [reader.metadata.row_group(i) for i in range(reader.metadata.num_row_groups)]
            check_memory(sum(row.total_byte_size for row in rows), file)
            table = reader.read(columns=[image, label])
        except (*DAMAGE, pa.ArrowException) as error:
            raise DataError(
                f"{file} cannot be read ({first_line(error)[:200]}); it is damaged, fetch it again."
            ) from error
        tables.append(table.select([image, label]).rename_columns(["image", "label"]))
        if meta is None:
            meta = (reader.schema_arrow.metadata or {}).get(b"huggingface"), label
    try:
        whole = pa.concat_tables(tables, promote_options="none")
    except pa.ArrowException as error:
        raise DataError(
            f"{files[0].parent} has parquet files whose columns differ in type."
        ) from error
    return whole, meta, _rows(files, [table.num_rows for table in tables])


def _rows(files: list[Path], counts: list[int]) -> Callable[[int], str]:
    """Position in all files together -> the row of the file that holds it, for messages."""
    ends = np.cumsum(counts)

    def label(position: int) -> str:
        part = int(np.searchsorted(ends, position, side="right"))
        return f"Row {position - int(ends[part]) + counts[part]} of {files[part]}"

    return label


def _class_names(meta: Any, labels: np.ndarray, where: Path) -> tuple[str, ...]:
    text, column = meta
    count = int(labels.max()) + 1 if len(labels) else 0
    try:
        names = json.loads(text)["info"]["features"][column]["names"] if text else None
    except (ValueError, KeyError, TypeError, RecursionError):
        names = None
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    if count > 100_001:
        raise DataError(
            f"{where}: the largest label is {count - 1}; labels are class numbers 0, 1, 2, ... up to "
            "100000."
        )
    return tuple(str(i) for i in range(count))


def _arrays(
    table: Any,
    where: str,
    row: Callable[[int], str],
    size: int | None,
    channels: int | None,
    as_first: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column, labels = table.column("image"), table.column("label")
    if pa.types.is_struct(column.type):
        if "bytes" not in {column.type.field(i).name for i in range(column.type.num_fields)}:
            raise DataError(f"{where}: the image column has no field 'bytes' ({column.type}).")
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{where}: the image column has type {column.type}; needed is image{{bytes}}."
        )
    if not pa.types.is_integer(labels.type):
        raise DataError(
            f"{where}: the label column has type {labels.type}; needed are whole numbers."
        )
    if column.null_count or labels.null_count:
        raise DataError(f"{where} has rows without image bytes or label; remove them.")
    encoded = column.to_pylist()
    images = decode_images(
        encoded,
        row,
        image_size=size,
        channels=channels,
        origin=where,
        as_first=as_first,
    )
    return images, labels.to_numpy().astype(np.int64)


@register_source("parquet", description="parquet file(s) with image{bytes} and label columns")
def load_parquet(
    path: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> RawData:
    """The images of a parquet file or of a folder of them.

    Args:
        path: a file (no official test set), or a folder with train*.parquet and perhaps
            test*.parquet (validation*.parquet stands in for a missing test set).
        image_size: resize to this height and width; None asks that all images have one size.
        channels: 1 or 3; None decides by the first image; it is told where others lose their colour.
        image_column: None takes `image` or `img`.
        label_column: None takes `label`, `labels` or `fine_label`.
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.channels={channels} is not allowed; choose 1, 3 or null.")
    path = existing(path, "parquet", _HOLDS)
    train_files, test_files = _files(path)
    table, meta, row = _read_table(train_files, image_column, label_column)
    images, labels = _arrays(table, str(train_files[0]), row, image_size, channels)
    names = _class_names(meta, labels, path)
    if not test_files:
        return RawData(images, labels, names, str(path))
    log.info("parquet: %s is the test split", test_files[0])
    table, _, row = _read_table(test_files, image_column, label_column)
    test_images, test_labels = _arrays(
        table, str(test_files[0]), row, image_size, images.shape[1], as_first=channels is None
    )
    return RawData(images, labels, names, str(path), test_images, test_labels)
