"""A search by proxies alone ends with its choice; as a warm start it trains every epoch."""

import numpy as np
import pytest
import torch
from test_guards import SPACE, bundle, supernet

from darts_core.search import SearchConfig, search
from darts_core.strategies import SearchSettings, ZeroCost, zero_cost


@pytest.mark.parametrize(("warm_start", "epochs", "steps"), [(0.0, 1, 1), (1.0, 2, None)])
def test_the_search_is_over_when_nothing_is_left_to_do(tmp_path, warm_start, epochs, steps):
    calls = []
    config = SearchConfig(epochs=2, batch_size=8, evaluate=False)

    def go():
        strategy = ZeroCost(samples=3, warm_start=warm_start)
        return strategy, search(
            supernet(), strategy, bundle(), config, checkpoint=tmp_path / "c.pt",
            progress=lambda done, of: calls.append((done, of)),
        )  # fmt: skip

    strategy, found = go()
    whole = bundle().steps("params", 8)
    assert len(found.history) == epochs
    assert found.steps == (steps or 2 * whole)
    assert len(calls) == (steps or 2 * whole)
    assert found.stopped is None
    if warm_start == 0:
        assert found.architecture == strategy.best
    # a finished search that is asked for again takes no further step
    _, again = go()
    assert again.architecture == found.architecture
    assert (len(calls), again.steps) == (found.steps, found.steps)


def test_processes_agree_on_what_the_alphas_are_warmed_up_for(monkeypatch):
    values = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(zero_cost, "score", lambda *_: next(values))
    net, strategy = supernet(), ZeroCost(samples=3, warm_start=1.0)
    net.generator = torch.Generator().manual_seed(4)
    strategy.setup(net, SearchSettings())
    # the means over the processes are the other way round than what this one finds
    strategy.reducer = lambda tensors: [tensor.mul_(-1) for tensor in tensors]
    strategy._choose((torch.randn(4, 1, 8, 8), torch.arange(4) % 3))
    assert strategy.best_score == -1.0
    assert strategy.best == SPACE.random(np.random.default_rng(4))
    assert net.discretize() == strategy.best
