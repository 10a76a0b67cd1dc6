"""Where the YAML files are: found by file path, so that the installed command has them too."""

from __future__ import annotations

from pathlib import Path

from darts_core.errors import ConfigError

__all__ = ["config_root"]


def config_root() -> Path:
    """The folder of our YAML files: inside the installed package, else beside it in a checkout.

    Raises:
        ConfigError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "search.yaml").is_file():
            return folder
    raise ConfigError(
        f"The configuration files are missing: neither {package / 'conf'} nor "
        f"{package.parent / 'conf'} holds search.yaml; install darts-core again."
    )
