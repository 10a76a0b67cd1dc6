"""The native job file, over the defaults of conf/autosearch.yaml.

The file is laid over the defaults; interpolations work. It then becomes the four-part form, so that
one parser checks everything; errors still name the user's own line.
"""

from __future__ import annotations

from typing import Any

from darts_core.autosearch.four_parts import parse_four_parts
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.yaml_lines import Located, locate
from darts_core.errors import ConfigError, first_line
from darts_core.runlog import read_yaml
from darts_core.settings.tree import config_root

__all__ = ["parse_native"]

_KINDS = (
    (("choices",), "discrete_param"),
    (("low", "high"), "continuous_param"),
    (("codes",), "resnet_code"),
)

# what the four-part form says of the algorithm stands at the top of this one
_AT_THE_TOP = {
    "num_samples": "trials", "max_concurrent": "workers", "seed": "seed", "save_model_count": "save_models",
    **dict.fromkeys(("objectives", "reward_attr", "mode", "tolerance", "chance"), "objectives"),
}  # fmt: skip


def _defaults() -> dict[str, Any]:
    """The defaults of the form: a file without groups, so that it needs no composing."""
    return dict(read_yaml(config_root() / "autosearch.yaml"))


def _resolved(root: Located) -> dict[str, Any]:
    """The user's values with `${...}` filled in; only references to other values are allowed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_resolvers(root)
    try:
        return dict(OmegaConf.to_container(OmegaConf.create(root.plain()), resolve=True))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{root.file}: {first_line(error)}; correct the reference.") from None


def _refuse_resolvers(node: Located) -> None:
    if isinstance(node.value, dict):
        for key, item in node.value.items():
            if key == "_target_":
                item.fail("a job file names no code", "remove _target_; give the code with --code")
            _refuse_resolvers(item)
    elif isinstance(node.value, list):
        for item in node.value:
            _refuse_resolvers(item)
    elif isinstance(node.value, str) and "${" in node.value and ":" in node.value:
        node.fail("resolvers are not allowed", "refer to other fields only, as ${trials}")


def _merged(
    default: Any, given: Any, located: Located | None, file: str, path: tuple[str, ...]
) -> Located:
    """The given value over the default, each with the place it came from."""
    if isinstance(given, dict) and isinstance(default, dict) and located is not None:
        members = located.mapping()
        result = {
            key: _merged(default.get(key), given[key], members.get(key), file, (*path, key))
            if key in given
            else locate(default[key], "conf/autosearch.yaml", (*path, key))
            for key in (*default, *(k for k in given if k not in default))
        }
        return Located(result, file, located.line, path)
    return locate(given, file, path, located.line if located is not None else 0)


def _dimension(name: str, node: Located, *, older: bool) -> Located:
    """`{choices}`, `{low, high, log, step}` or `{codes, count}` as a member of `params`."""
    content = node.mapping()
    kind = next((k for marks, k in _KINDS if all(mark in content for mark in marks)), None)
    if kind is None:
        node.fail("not a setting", "use {choices: [...]}, {low: a, high: b} or {codes: resnet}")
    fields: dict[str, Any] = {"name": name}
    if kind == "discrete_param":
        node.check_keys(("choices",))
        fields["values"] = content["choices"].plain()
    elif kind == "resnet_code":
        node.check_keys(("codes", "count", "seed"))
        if content["codes"].text(("resnet", "dense")) == "dense":
            kind = "dense_code"
        fields.update({k: content[k].plain() for k in ("count", "seed") if k in content})
    else:
        node.check_keys(("low", "high", "log", "step"))
        fields.update(_range(node, content, older=older))
    return locate({"type": kind, **fields}, node.file, node.path, node.line)


def _range(node: Located, content: dict[str, Located], *, older: bool) -> dict[str, Any]:
    low, high = content["low"].number(), content["high"].number()
    if low >= high:
        content["high"].fail(f"not above low {low:g}", "raise it")
    fields: dict[str, Any] = {"start": low, "stop": high}
    step = node.get("step")
    if step is not None:
        log = node.get("log")
        if log is not None and (log.value is True if older else log.boolean()):
            log.refuse(
                "steps are even, a logarithmic range is not", "drop step or log", older=older
            )
        size = step.number(0)
        count = (high - low) / size if size else 0
        if size <= 0 or abs(count - round(count)) > 1e-9:
            step.fail("does not divide high - low", "choose a step that ends at high")
        return {**fields, "num": round(count) + 1}
    if isinstance(low, int) and isinstance(high, int):
        fields["integer"] = True
    if "log" in content:
        fields["log"] = content["log"].boolean()
    return fields


def parse_native(root: Located, name: str, *, older: bool = False) -> SearchSpec:
    """One search from the native form; see `parse_file`."""
    defaults = _defaults()
    root.check_keys((*defaults, "defaults"))
    given = _resolved(root)
    if given.pop("defaults", None) not in (None, ["autosearch"]):
        root.mapping()["defaults"].fail("only 'autosearch' may stand here", "remove defaults")
    content = _merged(defaults, given, root, root.file, ()).mapping()
    for key, own in _AT_THE_TOP.items():
        item = content["algorithm"].get(key)
        if item is not None:
            item.refuse(
                "in this form it stands beside algorithm, not in it",
                f"write it there as {own}",
                older=older,
            )
    limits = content["limits"]
    limits.check_keys(defaults["limits"])
    general = {
        "baseline": content["baseline"],
        "metrics": content["metrics"],
        "arguments": content["arguments"],
        "command": content["command"],
        "model_file": content["model_file"],
        "confirm_seeds": content["confirm_seeds"],
        "cpu_per_instance": content["cpus"],
        "gpu_per_instance": content["gpus"],
        "max_retries": limits.mapping()["retries"],
        **{k: v for k, v in limits.mapping().items() if k != "retries"},
    }
    algorithm = {
        **content["algorithm"].mapping(),
        "objectives": content["objectives"],
        "num_samples": content["trials"],
        "max_concurrent": content["workers"],
        "seed": content["seed"],
        "save_model_count": content["save_models"],
    }
    four: dict[str, Located] = {
        "general": Located(general, root.file, root.line, ("general",)),
        "search_algorithm": Located(
            algorithm, root.file, content["algorithm"].line, ("algorithm",)
        ),
        "scheduler": content["scheduler"],
        "max_iterations": content["max_iterations"],
    }
    if content["space"].mapping():
        params = [
            _dimension(key, node, older=older) for key, node in content["space"].mapping().items()
        ]
        four["search_space"] = Located(params, root.file, content["space"].line, ("space",))
    if "name" in given:
        four["name"] = content["name"]
    whole = Located(four, root.file, root.line)
    return parse_four_parts(whole, name, older=older)
