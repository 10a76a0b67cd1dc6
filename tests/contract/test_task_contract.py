"""Every task that ships passes its contract."""

import numpy as np
import pytest
import torch

from darts_core.tasks import IGNORED, make_task
from darts_core.testing import TaskContract


def fitted(name, targets, names, **options):
    task = make_task(name, options)
    values = task.converted(np.asarray(targets))
    return task.fitted(values, names), torch.from_numpy(values)


class Of:
    outputs = (12, 3)

    @pytest.fixture
    def pair(self):
        raise NotImplementedError("each class of tests gives its task and targets")

    @pytest.fixture
    def task(self, pair):
        return pair[0]

    @pytest.fixture
    def batch(self, pair):
        generator = torch.Generator().manual_seed(2)
        return torch.randn(*self.outputs, generator=generator), pair[1]


class TestClassification(Of, TaskContract):
    @pytest.fixture(params=[None, "balanced"])
    def pair(self, request):
        targets = [0, 1, 2, 2, 1, 0] * 2
        return fitted("classification", targets, ("a", "b", "c"), class_weights=request.param)


class TestMultiLabel(Of, TaskContract):
    @pytest.fixture(params=[None, "balanced"])
    def pair(self, request):
        targets = np.random.default_rng(1).integers(0, 2, (12, 3)).astype(float)
        targets[3, 1] = np.nan
        targets[9, 1] = np.nan
        return fitted("multi_label", targets, ("a", "b", "c"), positive_weights=request.param)


class TestRegression(Of, TaskContract):
    @pytest.fixture(params=[True, False])
    def pair(self, request):
        targets = np.random.default_rng(1).normal(size=(12, 3)) * 5 + 100
        targets[3, 1] = np.nan
        targets[9, 1] = np.nan
        return fitted("regression", targets, ("a", "b", "c"), standardise=request.param)


class TestNextToken(Of, TaskContract):
    outputs = (12, 5, 3)

    @pytest.fixture
    def pair(self):
        targets = np.random.default_rng(1).integers(0, 3, (12, 5))
        targets[3, 2] = targets[9, 4] = IGNORED
        return fitted("next_token", targets, ("a", "b", "c"))
