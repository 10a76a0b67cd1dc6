"""The elements of a multirun as Ray tasks."""

from __future__ import annotations

from typing import Any

from hydra.core.utils import JobReturn

from darts_core.errors import TuneError
from darts_core.study.ray_cluster import RayCluster
from hydra_plugins.darts_sweeper._elements import Elements, packed_elements

__all__ = ["run_elements"]

# a task whose node or process was killed is run again so many times; it goes on from what its folder holds
_RETRIES = 5


def run_elements(cluster: RayCluster, *multirun: Any) -> list[JobReturn]:
    """The elements of a multirun (what `packed_elements` takes); their results in order.

    Raises:
        TuneError: see `RayLauncher.launch`.
    """
    with packed_elements(*multirun, "Ray") as (elements, _), cluster.connected() as ray:
        remote = ray.remote(
            num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, max_retries=_RETRIES, max_calls=1
        )(_element)
        sent = ray.put(elements)
        running = [remote.remote(sent, place) for place in range(len(elements))]
        try:
            return list(ray.get(running))
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, TuneError) else error from None
        except ray.exceptions.RayError as error:
            raise TuneError(
                f"An element was lost on Ray {_RETRIES + 1} times ({type(error).__name__}); run the "
                "same command to continue."
            ) from error


def _element(elements: Elements, place: int) -> JobReturn:
    """One element, in a process of some node."""
    return elements(place)
