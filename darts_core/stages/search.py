"""Stage `search`: a supernet and its alphas on the params and alpha splits; leaves architecture.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from darts_core.architecture import Architecture
from darts_core.data import DataBundle
from darts_core.distributed import first_goes_first
from darts_core.search import Doubt, GuardContext, SearchConfig, SearchResult
from darts_core.search import search as search_alone
from darts_core.search.distributed import search_distributed
from darts_core.search.record import doubts_about
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.stages.aim import aim_facts, aimed_penalties, with_budget
from darts_core.stages.budget import price_winner, settle, settled_once
from darts_core.stages.callbacks import asking, make_callbacks
from darts_core.stages.cost import network_timer, penalties
from darts_core.stages.finalists import choose_among_finalists
from darts_core.stages.forecast import forecast, process_peak_mib
from darts_core.stages.fronts import search_front
from darts_core.stages.inputs import check_fits, find_device, load_bundle, refuse_named
from darts_core.stages.interrupt import check_stop, deferred_stop, stop_wanted
from darts_core.stages.progress import progress_bar
from darts_core.stages.schema import SearchStage
from darts_core.stages.search_result import confidence, lookup_table, rank, write_result
from darts_core.stages.search_setup import (
    alpha_penalties,
    augmentation,
    check_path,
    check_plain,
    make_guards,
    make_strategy,
    make_supernet,
    space_of,
    step_of,
    tune_kernels,
)
from darts_core.stages.shared_run import open_run
from darts_core.stages.tensorboard_pictures import AlphaPictures
from darts_core.stages.timing import busy, stopwatch
from darts_core.study.engines import elsewhere
from darts_core.supernet.memory import check_network

__all__ = ["search"]


def search(config: SearchStage, folder: Path) -> dict[str, Any]:
    """Search into `folder`; goes on from its checkpoint when there is one.

    Among the processes of a joined group the first one writes; the others compute.

    Returns:
        architecture (its dictionary), device_seconds, table_seconds (of the latency table, which serves all
        searches on the device and is not among them), val_<metric> of the supernet, guards, seed, peak_mib
        (of the process that finished); nothing in the other processes of a group.

    Raises:
        KeyboardInterrupt: a signal arrived, in whichever process; a checkpoint is saved.
        NonFiniteLossError: a loss of the search became NaN or infinite, or one of every finalist.
    """
    group, run, finished = open_run(config, folder)
    if finished:
        return {} if run is None else run.result()
    # their settings are refused before anything is loaded
    strategy, guards = make_strategy(config), make_guards(config)
    alpha_costs, callbacks = alpha_penalties(config), make_callbacks(config, folder)
    elsewhere(config.search.ray, config.search.slurm)
    device = find_device(config.device) if group is None else group.device
    bundle = load_bundle(config, device).without_test()
    refuse_named(bundle)
    space = space_of(config, bundle)
    check_fits(space, bundle)
    # one that an older program began with a path that it ignored goes on
    if not (folder / "checkpoint.pt").is_file():
        check_path(config, space)
    check_plain(config, space)
    with first_goes_first(group):  # the others read what it measures
        config = with_budget(config, bundle.input_shape, bundle.num_outputs, device, folder)
    table = lookup_table(config.search)
    settings = config.search.part(SearchConfig)
    processes = 1 if group is None else group.processes
    _look_ahead(config, space, bundle, settings, device, processes, told=run is not None)
    sizes = bundle.input_shape, bundle.num_outputs
    torch.manual_seed(config.seed)
    supernet = make_supernet(config, space, bundle, device)
    with first_goes_first(group):  # the others read the tiles and the table that it measures
        tune_kernels(config.search, supernet, bundle)
        with stopwatch(device) as preparing:
            costs = aimed_penalties(
                config.latency,
                lambda known: penalties(
                    config,
                    space,
                    *sizes,
                    device,
                    in_channels=bundle.in_channels,
                    reachable=known,
                    folder=folder,
                ),
                folder,
            )
    # pictures of cells: a space of choices has none
    board = (
        AlphaPictures(run, space.ops, settings.epochs) if space.ops and run is not None else None
    )
    run_search: Callable[..., SearchResult] = search_alone
    if group is not None:
        run_search = partial(search_distributed, sync_batchnorm=config.search.sync_batchnorm)
    with progress_bar("search", shown=run is not None) as progress, deferred_stop():
        ended = run_search(
            supernet,
            strategy,
            bundle,
            settings,
            seed=config.seed,
            run=run,
            checkpoint=folder / "checkpoint.pt",
            augment=augmentation(config, folder, bundle),
            guards=guards,
            penalties=[*alpha_costs, *costs],
            on_epoch=board,
            should_end=(
                asking(callbacks, supernet, bundle.task.metric, settings.epochs)
                if run is not None
                else None
            ),
            progress=progress,
            should_stop=stop_wanted,
        )
    check_stop(group)  # of a group all stop where one was told: what was found so far is no result
    if run is None:
        return {}
    peak_mib = process_peak_mib(device)  # a timing on a GPU counts anew
    last = GuardContext(
        supernet,
        strategy,
        bundle,
        settings,
        settings.epochs - 1,
        config.seed,
        ended.architecture,
    )
    timer = None
    if config.latency.cost == "latency":
        timer = network_timer(config, *sizes, device, in_channels=bundle.in_channels)

    def judge(architecture: Architecture) -> list[Doubt]:
        return doubts_about(guards, replace(last, architecture=architecture))

    pick, costed = settled_once(
        folder / "settled.json",
        ended,
        judge,
        lambda: settle(ended, space, costs, timer, judge),
        lambda: busy(device, timer),
    )
    found, chosen = choose_among_finalists(
        config, pick, space, supernet, bundle, costs, timer, judge, folder / "finalists"
    )
    costed = price_winner(costed, pick, found, costs, chosen)
    if board is not None:
        board.result(found.architecture)
    facts: dict[str, Any] = {
        "ops": list(space.ops),
        "device": str(device),
        "peak_mib": max(peak_mib, process_peak_mib(device)),
        "table_seconds": preparing.seconds,
    }
    if isinstance(space, ChoiceSpace):
        facts["options"] = {label: list(options) for label, options in space.choices}
    if group is not None:
        facts["processes"] = group.processes
    sure = confidence(space, found)
    warnings = [w for part in (costed, sure, chosen) for w in part.pop("warnings", [])]
    aim = aim_facts(config.latency, costed, found.architecture, timer, folder)
    facts |= {**costed, **sure, **chosen, **aim, "warnings": warnings}
    result = write_result(
        run, found, config, bundle.task.metric, **facts, **rank(table, found, config.search)
    )
    search_front(folder)
    callbacks.finish(result)
    return result


def _look_ahead(
    config: SearchStage,
    space: SearchSpace,
    bundle: DataBundle,
    settings: SearchConfig,
    device: torch.device,
    processes: int,
    *,
    told: bool,
) -> None:
    """Refuse a supernet that no memory holds; where `told`, log how long its search will take.

    Raises:
        MemoryShortageError: it does not fit, or a step of it does not.
    """
    check_network(
        lambda: make_supernet(config, space, bundle, torch.device("meta")), device,
        f"The supernet of search.channels={config.search.channels} and "
        f"search.layers={config.search.layers}",
    )  # fmt: skip
    if told:
        forecast(
            lambda: make_supernet(config, space, bundle, device),
            bundle,
            batch_size=settings.batch_size,
            steps=settings.epochs * bundle.steps("params", settings.batch_size),
            device=device,
            what=f"search in {space.name}",
            step_of=step_of(config, bundle, settings),
            processes=processes,
        )
