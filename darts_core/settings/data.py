"""The settings of the data: what every data set takes. A source's own keys stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.settings.field import Settings, setting

__all__ = ["SEED_HIGH", "Data"]

SEED_HIGH = 2**63 - 1


@dataclass(frozen=True)
class Data(Settings):
    """The node `data`. What a source takes beside this, and its `_target_`, is in `options`."""

    NODE: ClassVar[str] = "data"
    OPEN: ClassVar[str] = "options"

    name: str = setting("", "of the data set")
    path: str | None = setting(None, "the file or folder of the data")
    limit: int | None = setting(
        None, "use only so many non-test images, classes in proportion; null: all",
        low=1, high=10**12,
    )  # fmt: skip
    test_limit: int | None = setting(None, "the same for the test split", low=1, high=10**12)
    alpha_fraction: float = setting(
        0.5, "share of the training images that trains alpha", above=0, below=1
    )
    val_fraction: float = setting(
        0.15, "share of the non-test images held out for selection", above=0, below=1
    )
    test_fraction: float = setting(
        0.2, "share of all images held out as test split where there is no official one",
        above=0, below=1,
    )  # fmt: skip
    image_size: int | None = setting(
        None,
        "resize the short side to this and take the middle; null: as they are",
        low=8,
        high=1024,
    )
    resident: bool | None = setting(
        None, "true keeps the images on the device, false streams them; null: by its free memory"
    )
    split_by: str | None = setting(
        None, "group: each split holds whole groups (speakers, patients); null: samples are drawn",
        choices=("group",),
    )  # fmt: skip
    leave_out: Any = setting(
        None, "name or number of the group that is the test split; val is other whole groups"
    )
    seed: int = setting(
        0, "divides params, alpha and val; not the run's own seed", low=0, high=SEED_HIGH
    )
    description: str = setting("", "a line for `darts-core list`")
    options: Mapping[str, Any] = setting({}, "of the source itself")
