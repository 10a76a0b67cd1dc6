"""What the tests of AutoSearch share: a small space, one trial run to its end, a job file."""

from darts_core.autosearch.spec import Objective, SearchSpec
from darts_core.study.space import SearchDimension

BASE = SearchSpec(
    "s",
    (SearchDimension("x", choices=(1, 2, 3)),),
    (Objective("acc"),),
    algorithm="grid_search",
    confirm_seeds=0,
)


def one(workshop, spec=BASE, config=None, **options):
    return workshop.run_one(spec, 0, config or {"x": 1}, step="s", **options)


def log_of(workshop, row):
    return (workshop.version / "autosearch/trials" / row["trial_id"] / "log.txt").read_text()


def write(tmp_path, text, name="job.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path
