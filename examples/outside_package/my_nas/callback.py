"""One callback: ends a search or a training that is good enough."""

from darts_core.callbacks import Callback, EpochEnd


class GoodEnough(Callback):
    """Ends as soon as the metric on val has reached a value."""

    def __init__(self, value: float = 0.9) -> None:
        self.value = value

    def after_epoch(self, now: EpochEnd) -> str | None:
        values = now.values()
        if not values or now.metric.rating(values[-1]) < now.metric.rating(self.value):
            return None
        return f"val {now.metric.words} has reached {now.metric.text(self.value)}"
