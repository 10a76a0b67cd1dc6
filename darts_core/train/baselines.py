"""The old place of `darts_core.models.baselines`, kept for one more version."""

from darts_core.models.baselines import BASELINES, baseline, is_baseline, mobilenetv2, resnet

__all__ = ["BASELINES", "baseline", "is_baseline", "mobilenetv2", "resnet"]
