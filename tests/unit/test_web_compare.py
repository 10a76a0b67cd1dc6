"""The page that compares versions: results, settings that differ, curves and fronts over each other."""

import json

import report_fixture as fixture
from web_site import searched, site

from darts_core.store.jobs import Store
from darts_core.store.record import new_record


def test_versions_of_several_jobs_are_compared(root):
    searched(root, "two", trials=9)
    text = site(root).get("/compare?version=one/V001&version=two/V001").text
    assert "Best so far" in text
    assert "Fronts" in text
    assert "best acc" in text
    assert "0.58" in text
    assert "None." in text  # their settings do not differ
    assert "Not drawn" not in text
    searched(root, "three", hostile="loss")
    text = site(root).get("/compare?version=one/V001&version=two/V001&version=three/V001").text
    assert "Not drawn, as other objectives were searched: three/V001." in text
    # a metric is found under its other names; one that nobody has reported is said to be none
    two = "/compare?version=one/V001&version=two/V001&metric="
    assert "<th scope=row>best accuracy</th><td>0.55</td>" in site(root).get(f"{two}accuracy").text
    text = site(root).get(f"{two}nothing").text
    assert "No trial of these versions has reported &#39;nothing&#39;" in text
    assert "best acc" in text
    assert site(root).get(f"/api{two}nothing").status_code == 404
    # one that any trial has reported is none that nobody knows
    file = root / "one" / "V001" / "autosearch" / "trials" / "t0" / "result.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"metrics": {**told.get("metrics", {}), "nothing": 1.0}}))
    assert "No trial of these versions" not in site(root).get(f"{two}nothing").text
    assert site(root).get(f"/api{two}nothing").status_code == 200
    assert "Choose two versions" in site(root).get("/compare?version=one/V001").text
    assert site(root).get("/compare?version=one/V001&version=no/V001").status_code == 404


def test_a_confirmed_pick_stands_with_its_spread_in_the_compared_fronts(root):
    version = searched(root, "two", trials=9)
    folder = version.path / "autosearch" / "trials"
    for side, of in (("best", 8), ("baseline", 0)):
        for seed in (2, 3):
            made = folder / f"{side}{seed}"
            made.mkdir()
            row = json.loads((folder / f"t{of}" / "result.json").read_text())
            values = {"acc": row["values"]["acc"] + seed / 50, "ms": row["values"]["ms"] + seed}
            row |= {"trial_id": made.name, "number": 100 + seed + of, "phase": "confirm",
                    "confirms": side, "seed": seed, "values": values}  # fmt: skip
            (made / "result.json").write_text(json.dumps(row))
    text = site(root).get("/compare?version=one/V001&version=two/V001").text
    fronts = text[text.index("Fronts") :]
    assert "the pick, fresh seeds" in fronts
    assert "two/V001, your configuration, fresh seeds: " in fronts
    assert "one/V001, the pick" not in fronts  # it was not confirmed


def test_pipelines_are_compared_by_their_curves_and_models(tmp_path):
    store = Store(tmp_path / "runs")
    store.create_job("pipe", kind="pipeline")
    for seed in (0, 1):
        with store.new_version("pipe", new_record("pipeline", commands={})) as made:
            fixture.make_search(made / "search", seed=seed)
            fixture.make_train(made / "train", seed=seed)
            fixture.make_bench(made / "bench", device="cpu" if seed else fixture.DEVICE)
    with store.new_version("pipe", new_record("pipeline", commands={})) as made:
        fixture.make_bench(made / "bench")
    client, asked = site(tmp_path / "runs"), "/compare?version=pipe/V001&version=pipe/V002"
    text = client.get(asked).text
    assert "Val accuracy of the network, while training" in text
    assert "Rows of more than one device" in text  # and no front of two devices
    text = client.get("/compare?version=pipe/V001&version=pipe/V003").text
    assert "while training" not in text  # one curve is no comparison
    assert "Models of the versions" in text
    assert "pipe/V003, " in text


def test_a_plan_cut_in_half_leaves_the_comparison_standing(tmp_path):
    root = tmp_path / "runs"
    for job in ("a", "b"):
        version = searched(root, job)
        (version.path / "autosearch" / "config.yaml").write_text("num_samples: 9")
    (version.path / "autosearch" / "config.yaml").write_text("num_samples: [")
    answer = site(root).get("/compare?version=a/V001&version=b/V001")
    assert answer.status_code == 200
    assert "num_samples" in answer.text
