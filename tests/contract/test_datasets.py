"""Every embedded data set fulfils the contract that extension authors test against."""

import pytest

from darts_core.data import load_data
from darts_core.data.contract import DatasetContract


class TestDigits(DatasetContract):
    @pytest.fixture
    def bundle(self):
        return load_data("digits", seed=1)

    @pytest.fixture
    def same_bundle(self):
        return load_data("digits", seed=1)


class TestSynthetic(DatasetContract):
    @pytest.fixture
    def bundle(self):
        return load_data("synthetic", count=200, classes=3)

    @pytest.fixture
    def same_bundle(self):
        return load_data("synthetic", count=200, classes=3)
