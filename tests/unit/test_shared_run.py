"""The run folder of a stage that several processes share."""

import pytest
import torch

from darts_core.distributed import Group
from darts_core.errors import ResumeError
from darts_core.runlog import RunFolder
from darts_core.stages import shared_run
from darts_core.stages.schema import TrainStage


def test_a_folder_that_the_first_process_is_refused_ends_all_with_its_sentence(
    tmp_path, monkeypatch
):
    sent: list[str] = []

    def text(group: Group, own: str) -> str:
        sent.append(own)
        return sent[-1] if group.primary else sent[0]

    monkeypatch.setattr(Group, "text", text)
    monkeypatch.setattr(Group, "agree", lambda _, value: value)
    RunFolder.create(tmp_path, {"of": "another configuration"}, tensorboard=False)
    told = []
    for rank in (0, 1):
        group = Group(rank, 2, torch.device("cpu"))
        monkeypatch.setattr(shared_run, "current_group", lambda group=group: group)
        with pytest.raises(ResumeError, match="holds a run of another configuration") as failed:
            shared_run.open_run(TrainStage(), tmp_path)
        told.append(str(failed.value))
    assert told[0] == told[1]
    monkeypatch.setattr(shared_run, "current_group", lambda: None)
    sent.clear()
    group, run, finished = shared_run.open_run(TrainStage(), tmp_path / "new")
    assert (group, finished, run is not None, sent) == (None, False, True, ["{}"])
