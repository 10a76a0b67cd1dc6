"""Which Ray cluster trials and elements run on, and the connection to it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any
from urllib.parse import urlsplit

from darts_core.errors import TuneError, first_line, unknown_name

__all__ = ["RayCluster", "check_answers", "cluster_of"]

# a busy head may be slow, a firewall says nothing at all
_PATIENCE_SECONDS = 20.0


def check_answers(address: str, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Refuse an address at which nothing speaks Ray's protocol: Ray itself waits there for minutes.

    Args:
        address: `HOST:PORT` or `ray://HOST:PORT`; anything else is Ray's own to judge.
        patience_seconds: how long a connection, and then an answer, may take.

    Raises:
        TuneError: nothing answers, or the port is no number below 65536.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TuneError(f"The Ray address {address} is no HOST:PORT ({error}).") from error
    if host is None or port is None or parts.scheme not in ("", "ray"):
        return
    try:
        socket.create_connection((host, port), timeout=patience_seconds).close()
    except OSError as error:
        raise TuneError(f"Nothing answers at the Ray address {address} ({error}).") from error
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # an answer would take the cluster's certificates
    import grpc  # type: ignore[import-untyped]

    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(where, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=patience_seconds)
        except grpc.FutureTimeoutError:
            raise TuneError(
                f"What listens at the Ray address {address} did not answer as Ray does within "
                f"{patience_seconds:g} seconds."
            ) from None


@dataclass(frozen=True)
class RayCluster:
    """Which cluster, and what of it a trial takes.

    Args:
        address: of a running cluster (`auto`, HOST:PORT, `ray://HOST:PORT`); None starts Ray on this machine.
        num_cpus: processors of a trial.
        num_gpus: GPUs of a trial, also parts of one.
        runtime_env: Ray's: `{"working_dir": "."}` sends your code along, `{"pip": [...]}` installs.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) <= 100_000:
                raise TuneError(
                    f"Ray's {name}={value!r} is not allowed; give a number from 0 to 100000."
                )
        if not isinstance(self.address, (str, type(None))):
            raise TuneError(f"Ray's address={self.address!r} is no text; give auto or HOST:PORT.")
        if not isinstance(self.runtime_env, (Mapping, type(None))):
            raise TuneError(
                f"Ray's runtime_env={self.runtime_env!r} is no mapping; give one such as {{working_dir: .}}."
            )

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """The module `ray`, connected during the block; a connection that was there before stays.

        Raises:
            TuneError: Ray is not installed, or there is no cluster at the address.
        """
        try:
            import ray
        except ImportError as error:
            raise TuneError("Trials on Ray need it: pip install 'darts-core[ray]'.") from error
        if ray.is_initialized():
            yield ray
            return
        # Ray itself looks there
        there = os.environ.get("RAY_ADDRESS")
        address = there or self.address if self.address in (None, "auto") else self.address
        if address:
            check_answers(address)
        try:
            ray.init(
                address=self.address,
                runtime_env=dict(self.runtime_env) if self.runtime_env else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # a cluster that runs has its own dashboard or none
                include_dashboard=None if address else False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"at {address}" if address else "on this machine"
            raise TuneError(f"Ray cannot be reached {where} ({first_line(error)}).") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def cluster_of(given: RayCluster | Mapping[str, Any]) -> RayCluster:
    """The cluster that a mapping describes.

    Raises:
        TuneError: a key is unknown, or a number out of range.
    """
    if isinstance(given, RayCluster):
        return given
    if not isinstance(given, Mapping):
        raise TuneError(f"The Ray cluster is {given!r}; give a mapping such as {{address: auto}}.")
    known = [item.name for item in fields(RayCluster)]
    for name in given:
        if name not in known:
            raise TuneError(unknown_name("setting of Ray", str(name), known))
    return RayCluster(**given)
