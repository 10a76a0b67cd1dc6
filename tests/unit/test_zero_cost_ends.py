"""A search by proxies alone ends with its choice; as a warm start it trains every epoch."""

import pytest
from test_guards import bundle, supernet

from darts_core.search import SearchConfig, search
from darts_core.strategies import ZeroCost


@pytest.mark.parametrize(("warm_start", "epochs", "steps"), [(0.0, 1, 1), (1.0, 3, None)])
def test_the_search_is_over_when_nothing_is_left_to_do(tmp_path, warm_start, epochs, steps):
    calls = []
    config = SearchConfig(epochs=3, batch_size=8, evaluate=False)

    def go():
        strategy = ZeroCost(samples=3, warm_start=warm_start)
        return strategy, search(
            supernet(), strategy, bundle(), config, checkpoint=tmp_path / "c.pt",
            progress=lambda done, of: calls.append((done, of)),
        )  # fmt: skip

    strategy, found = go()
    whole = bundle().steps("params", 8)
    assert len(found.history) == epochs
    assert found.steps == (steps or 3 * whole)
    assert len(calls) == (steps or 3 * whole)
    assert found.stopped is None
    if warm_start == 0:
        assert found.architecture == strategy.best
    # a finished search that is asked for again takes no further step
    _, again = go()
    assert again.architecture == found.architecture
    assert (len(calls), again.steps) == (found.steps, found.steps)
