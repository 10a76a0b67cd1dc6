"""One guard: doubts a cell that is made of one operation alone."""

from darts_core.search import Doubt, Guard, GuardContext, GuardFinding


class Variety(Guard):
    """Asks for so many different operations in the first kind of cell."""

    name = "variety"

    def __init__(self, least: int = 2) -> None:
        self.least = least
        self.seen = 0

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        self.seen = self._different(context)
        return None

    def doubt(self, context: GuardContext) -> Doubt | None:
        seen = self._different(context)
        if not context.architecture.cells or seen >= self.least:
            return None
        return Doubt(
            self.name, f"the cell is made of {seen} operation(s), fewer than {self.least}."
        )

    def measurements(self) -> dict[str, float]:
        return {"variety": float(self.seen)}

    @staticmethod
    def _different(context: GuardContext) -> int:
        cells = context.architecture.cells
        return len({op for _, _, op in cells[0][1].edges}) if cells else 0
