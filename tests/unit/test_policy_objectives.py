"""Objectives of a policy search made from a bundle: their splits, resumes, and a planted negative."""

import pickle

import torch
from torch import nn

from darts_core.augment import Operation, Policy
from darts_core.augment.objectives import BilevelObjective
from darts_core.data import RawData, load_data, make_bundle
from darts_core.study.augment_search import search_policy
from darts_core.study.budget import Budget
from darts_core.train.config import TrainConfig
from darts_core.train.policy_objectives import bilevel_objective, density_objective

RECIPE = TrainConfig(
    epochs=3, batch_size=64, learning_rate=0.1, cutout=0, crop_padding=0, flip=False, drop_path=0.0
)


def linear(inputs=64, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


def half_negative():
    """Digits of which the alpha split is shown as negatives: inverting training images helps."""
    plain = load_data("digits").take("params", 400).take("alpha", 400)
    pixels = plain.pool.inputs_N
    pixels[plain.parts["alpha"]] = 255 - pixels[plain.parts["alpha"]]
    return plain


def test_bilevel_finds_the_planted_negative_and_reads_params_and_alpha_only(tmp_path):
    bundle = half_negative()
    seen = []
    original = bundle.split
    bundle.split = lambda names: (seen.append(names), original(names))[1]
    result = search_policy(
        bilevel_objective(linear(), bundle, learning_rate=0.05),
        method="gradient",
        folder=tmp_path,
        budget=Budget(epochs=1),
        operations=("invert", "rotate", "sharpness"),
        length=1,
        steps_per_epoch=50,
        learning_rate=0.15,
    )
    learned = result.history[-1]["probabilities"]
    assert learned["invert"] > 0.7
    assert learned["invert"] > max(learned["rotate"], learned["sharpness"])
    assert set(seen) == {"params", "alpha"}
    assert bundle.test_reads == 0


def test_interrupted_bilevel_search_equals_a_whole_one(tmp_path):
    def run(folder, epochs):
        objective = bilevel_objective(linear(), half_negative(), batch_size=32, seed=4)
        return search_policy(
            objective,
            method="gradient",
            folder=folder,
            budget=Budget(epochs=epochs),
            operations=("invert", "rotate"),
            length=1,
            # an epoch of the search ends inside one of the data
            steps_per_epoch=5,
        )

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 2)
    parts = run(tmp_path / "parts", 3)
    assert [row["loss"] for row in parts.history] == [row["loss"] for row in whole.history]
    assert parts.policy == whole.policy


def test_density_prefers_images_that_look_like_training_images(tmp_path):
    bundle = half_negative()
    objective = density_objective(linear, bundle, RECIPE, folder=tmp_path)
    invert = Policy(((Operation("invert", 1.0, 0.0),),))
    assert objective(invert) > objective(Policy(())) + 0.3
    assert (tmp_path / "fold0.pt").is_file()
    again = density_objective(linear, bundle, RECIPE, folder=tmp_path)
    assert again(invert) == objective(invert)
    # as a worker of tune.workers=2 receives it
    assert pickle.loads(pickle.dumps(objective))(invert) == objective(invert)


def test_two_folds_judge_both_halves():
    bundle = load_data("digits").take("params", 130).take("alpha", 130)
    objective = density_objective(linear, bundle, RECIPE, folds=2)
    assert len(objective.folds) == 2
    sizes = [sum(len(y) for _, y in batches()) for _, batches in objective.folds]
    assert sizes == [130, 130]
    assert objective(Policy(())) > 0.3


def test_pixels_are_the_batches_before_normalising():
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8).numpy()
    labels = torch.arange(60).numpy() % 2
    bundle = make_bundle("made", RawData(images, labels, ("a", "b"), "made"))
    raw = list(bundle.batches("params", 4, seed=1, pixels=True))
    cooked = list(bundle.batches("params", 4, seed=1))
    for (u, y), (x, z) in zip(raw, cooked, strict=True):
        assert u.dtype == torch.uint8
        assert torch.equal(bundle.normalize(u), x)
        assert torch.equal(y, z)


class DropsPaths(nn.Module):
    """Like the networks of cells: a training leaves its drop-path on."""

    def __init__(self, kept=nn.Identity):
        super().__init__()
        self.drop_path_prob = 0.5
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), kept(), nn.Linear(32, 10))

    def forward(self, x):
        keep = 1 - self.drop_path_prob
        return self.body(x * (torch.rand(len(x), 1, 1, 1) < keep) / keep)


def plain(images):
    return images.float() / 255


def test_what_augmenting_is_worth_does_not_depend_on_what_a_network_drops():
    bundle = load_data("digits").take("params", 64).take("alpha", 64)
    torch.manual_seed(0)
    model = DropsPaths(kept=lambda: nn.Dropout(0.5))
    objective = bilevel_objective(model, bundle, batch_size=32)
    before = torch.get_rng_state()
    first, again, other = (objective(plain, step) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    # both ends of the finite difference dropped the same: it is a derivative, of a size like the loss
    assert float(first.abs().max()) < 1.0


def test_drop_path_of_a_training_before_is_off():
    bundle = load_data("digits").take("params", 64).take("alpha", 64)
    torch.manual_seed(0)
    on, off = DropsPaths(), DropsPaths()
    off.load_state_dict(on.state_dict())
    off.drop_path_prob = 0.0
    found = [bilevel_objective(m, bundle, batch_size=32)(plain, 0) for m in (on, off)]
    assert torch.equal(*found)


def test_an_auxiliary_head_gets_no_gradient():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.second = linear(), nn.Linear(10, 10)

        def forward(self, x):
            logits = self.body(x)
            return (logits, self.second(logits)) if self.training else logits

    batch = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8)
    model = Two()
    objective = BilevelObjective(model, lambda step: batch, lambda step: batch, lambda x: x / 255)
    alone = BilevelObjective(linear(), lambda step: batch, lambda step: batch, lambda x: x / 255)
    assert torch.equal(objective(plain, 0), alone(plain, 0))
    assert float(model.second.weight.grad.abs().max()) == 0.0


def test_a_bundle_that_was_first_read_in_inference_mode_still_passes_gradients():
    bundle = load_data("digits").take("params", 64).take("alpha", 64)
    with torch.inference_mode():
        bundle.normalize(bundle.split("val").inputs[:2])
    inputs = torch.zeros(2, 1, 8, 8, requires_grad=True)
    bundle.normalize(inputs).sum().backward()
    assert float(inputs.grad.min()) > 0
