"""Augmentation policies as data: a frozen value, read from and written to YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.augment.operations import AUGMENTATIONS, MAX_MAGNITUDE
from darts_core.errors import ConfigError, unknown_name
from darts_core.reading import finite
from darts_core.reading_yaml import read_yaml
from darts_core.runlog import write_yaml
from darts_core.settings.tree import config_root

__all__ = [
    "Operation",
    "Policy",
    "policy_content",
    "policy_from_dict",
    "policy_from_yaml",
    "policy_to_yaml",
]

SCHEMA_VERSION = 1
_KEYS = (
    "sub_policies",
    "rounds",
    "magnitude",
    "levels",
    "ranges",
    "mirrored",
    "name",
    "description",
)


@dataclass(frozen=True)
class Operation:
    """One step of a sub-policy.

    Args:
        name: a registered operation; that it exists is checked when the policy is executed, after
            plugins are imported.
        probability: 0..1, drawn for each image.
        magnitude: lowest magnitude, 0..10.
        magnitude_high: when above `magnitude`, each image draws its own between the two.
    """

    name: str
    probability: float
    magnitude: float
    magnitude_high: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ConfigError(
                f"The probability {self.probability} of {self.name!r} is not allowed; choose 0..1."
            )
        high = self.magnitude if self.magnitude_high is None else self.magnitude_high
        if not 0.0 <= self.magnitude <= high <= MAX_MAGNITUDE:
            raise ConfigError(
                f"The magnitude {self.magnitude}..{high} of {self.name!r} is not allowed; choose "
                f"0..{MAX_MAGNITUDE:.0f}."
            )

    @property
    def highest(self) -> float:
        """The largest magnitude that may be drawn."""
        return self.magnitude if self.magnitude_high is None else self.magnitude_high


@dataclass(frozen=True)
class Policy:
    """For each image: `rounds` times, draw one sub-policy and apply its operations in turn.

    Args:
        sub_policies: all equally likely; none at all is the policy that changes nothing.
        rounds: how many sub-policies an image gets.
        levels: when set, drawn magnitudes take this many evenly spaced values.
        ranges: operation -> (low, high) in place of the operation's own range of values.
        mirrored: operations whose value is drawn to either side of its lowest, besides those that
            are `signed` by themselves.
        name: for reports.
        description: for reports.
    """

    sub_policies: tuple[tuple[Operation, ...], ...]
    rounds: int = 1
    levels: int | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mirrored: tuple[str, ...] = ()
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 16:
            raise ConfigError(f"rounds={self.rounds} is not allowed in a policy; choose 1..16.")
        if self.levels is not None and not 2 <= self.levels <= 1000:
            raise ConfigError(f"levels={self.levels} is not allowed; choose 2..1000 or null.")

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all operations that occur, sorted."""
        return tuple(sorted({op.name for sub in self.sub_policies for op in sub}))

    def check_names(self) -> None:
        """Raise ConfigError when an operation is not registered."""
        for name in (*self.operations, *self.ranges, *self.mirrored):
            if name not in AUGMENTATIONS:
                raise ConfigError(unknown_name("augmentation operation", name, AUGMENTATIONS))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `policy_from_dict` takes them."""
        content: dict[str, Any] = {"name": self.name, "description": self.description}
        content |= {"rounds": self.rounds, "levels": self.levels}
        content["ranges"] = {name: list(pair) for name, pair in self.ranges.items()}
        content["mirrored"] = list(self.mirrored)
        content["sub_policies"] = [
            [[op.name, op.probability, _magnitude_text(op)] for op in sub]
            for sub in self.sub_policies
        ]
        return content


def _magnitude_text(operation: Operation) -> float | list[float]:
    if operation.magnitude_high is None:
        return operation.magnitude
    return [operation.magnitude, operation.magnitude_high]


def _number(value: Any, what: str) -> float:
    if (number := finite(value)) is None:
        raise ConfigError(f"The policy's {what} is {value!r}; needed is a number.")
    return number


def _whole(value: Any, what: str) -> int:
    if not _number(value, what).is_integer():
        raise ConfigError(f"The policy's {what} is {value!r}; needed is a whole number.")
    return int(value)


def _operation(row: Any, default_magnitude: Any) -> Operation:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) not in (2, 3):
        raise ConfigError(
            f"The policy has the step {row!r}; needed is [operation, probability, magnitude]."
        )
    name, probability = row[:2]
    magnitude = row[2] if len(row) == 3 else default_magnitude
    if not isinstance(name, str):
        raise ConfigError(f"The policy has the operation {name!r}; needed is a name.")
    if magnitude is None:
        raise ConfigError(
            f"The step {list(row)!r} states no magnitude; add one, or magnitude: to the policy."
        )
    high: float | None = None
    if isinstance(magnitude, Sequence) and not isinstance(magnitude, str):
        if len(magnitude) != 2:
            raise ConfigError(f"The magnitude {list(magnitude)} needs two numbers: [low, high].")
        high = _number(magnitude[1], "magnitude")
        magnitude = magnitude[0]
    probability = _number(probability, "probability")
    return Operation(name, probability, _number(magnitude, "magnitude"), high)


def _sequence(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"The policy's {what} is {value!r}; needed is a list.")
    return value


def policy_from_dict(content: Mapping[str, Any]) -> Policy:
    """The policy that `Policy.to_dict` or a YAML file describes.

    Keys: `sub_policies`, a list of lists of steps `[operation, probability, magnitude]`, where the
    magnitude is a number, a pair `[low, high]`, or absent, which takes the key `magnitude`; and the
    fields of `Policy`.

    Raises:
        ConfigError: a key is unknown or a value out of range.
    """
    for key in content:
        if key not in (*_KEYS, "schema_version", "_target_"):
            raise ConfigError(unknown_name("policy key", str(key), _KEYS))
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"The policy has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}."
        )
    subs = _sequence(content.get("sub_policies"), "sub_policies")
    ranges = content.get("ranges") or {}
    if not isinstance(ranges, Mapping):
        raise ConfigError(f"The policy's ranges are {ranges!r}; needed is operation: [low, high].")
    limits = {str(name): _sequence(pair, f"range of {name}") for name, pair in ranges.items()}
    for name, pair in limits.items():
        if len(pair) != 2:
            raise ConfigError(
                f"The policy's range of {name!r} is {list(pair)}; needed is two numbers."
            )
    levels, magnitude = content.get("levels"), content.get("magnitude")
    return Policy(
        sub_policies=tuple(
            tuple(_operation(row, magnitude) for row in _sequence(sub, "sub-policy"))
            for sub in subs
        ),
        rounds=_whole(content.get("rounds", 1), "rounds"),
        levels=None if levels is None else _whole(levels, "levels"),
        ranges={n: (_number(p[0], "range"), _number(p[1], "range")) for n, p in limits.items()},
        mirrored=tuple(str(n) for n in _sequence(content.get("mirrored") or (), "mirrored")),
        name=str(content.get("name") or ""),
        description=str(content.get("description") or ""),
    )


def _config_folder() -> Path:
    return config_root() / "augment"


def _presets() -> list[str]:
    return sorted(p.stem for p in _config_folder().glob("*.yaml") if p.stem != "found")


def policy_content(path: str | None) -> Any:
    """What tells a policy from others: a preset's name, or what a file says, wherever it lies.

    Raises:
        ConfigError: see `policy_from_yaml`.
    """
    known = path is None or path in _presets()
    return path if known else policy_from_yaml(str(path)).to_dict()


def policy_from_yaml(path: str | Path) -> Policy:
    """The policy in a YAML file, or the preset of that name.

    Args:
        path: a file, or `none`, `autoaugment_cifar10`, `autoaugment_imagenet`, `autoaugment_svhn`,
            `randaugment`, `trivialaugment`.

    Raises:
        ConfigError: there is no such file or preset, or its content is no policy.
    """
    text, file = str(path), Path(path).expanduser()
    presets = _presets()
    if text in presets:
        file = _config_folder() / f"{text}.yaml"
    if not file.is_file():
        raise ConfigError(
            f"There is no augmentation policy {text!r}: neither a YAML file nor a preset. "
            f"Presets: {', '.join(presets)}."
        )
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"The policy file {file} holds no mapping; needed are sub_policies.")
    try:
        return policy_from_dict(content)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def policy_to_yaml(policy: Policy, path: str | Path) -> None:
    """Write the policy as YAML, whole or not at all; `policy_from_yaml` reads it back."""
    write_yaml(path, {"schema_version": SCHEMA_VERSION, **policy.to_dict()})
