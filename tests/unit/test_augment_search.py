"""Policy search: exact gradients on small cases, planted rotations and negatives that must be found."""

import itertools
import json

import pytest
import torch
from torch import nn

from darts_core.augment import Operation, Policy, policy_from_yaml
from darts_core.augment.objectives import BilevelObjective, DensityObjective
from darts_core.augment.relaxed import RelaxedPolicy
from darts_core.errors import ConfigError, NonFiniteLossError, TuneError
from darts_core.study.augment_search import search_policy
from darts_core.study.budget import Budget

# a half turn, whatever the magnitude
TURN = {"rotate": (180.0, 180.0)}
OPERATIONS = ("rotate", "invert", "brightness")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(count=240, size=8, classes=3, seed=0, turned=False):
    """uint8 images whose class is a fixed, lopsided pattern; `turned` turns them by 180 degrees."""
    # the patterns are those of every call; only labels and noise follow the seed
    patterns = torch.rand((classes, 1, size, size), generator=generator(11))
    patterns[:, :, size // 2 :] *= 0.2
    labels = torch.arange(count) % classes
    noise = torch.randn((count, 1, size, size), generator=generator(seed)) * 0.05
    images = ((patterns[labels] + noise).clamp(0, 1) * 255).round().to(torch.uint8)
    return (images.flip(2, 3) if turned else images), labels


def normalize(images):
    return images / 127.5 - 1


def template_classifier():
    """A linear network that knows the upright patterns."""
    images, labels = planted()
    means = torch.stack(
        [normalize(images[labels == c].float()).mean(0).flatten() for c in range(3)]
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[1].weight.copy_(means / 4)
        model[1].bias.copy_(-(means**2).sum(1) / 8)
    return model.requires_grad_(False)


def test_relaxed_images_lie_between_the_image_and_the_operation():
    policy = RelaxedPolicy(["invert"], length=1, temperature=0.3, generator=generator(1))
    x = torch.rand(64, 1, 8, 8, generator=generator(2))
    y = policy(x).detach()
    share = ((y - x) / (1 - 2 * x)).flatten(1)
    applied = share.median(1).values
    assert torch.allclose(share, applied[:, None].expand_as(share), atol=1e-3)
    assert 0 <= float(applied.min()) < 0.2
    assert 0.8 < float(applied.max()) <= 1


def test_gradients_of_probability_and_magnitude_are_exact():
    x = torch.rand(12, 3, 8, 8, generator=generator(3), dtype=torch.float64) * 0.4 + 0.1
    policy = RelaxedPolicy(["brightness", "color"], length=2).double()

    def loss():
        policy.generator.manual_seed(5)
        return (policy(x) ** 2).mean()

    loss().backward()
    for parameter in (policy.probability_O, policy.magnitude_O):
        for i in range(2):
            with torch.no_grad():
                parameter[i] += 1e-5
                above = loss()
                parameter[i] -= 2e-5
                below = loss()
                parameter[i] += 1e-5
            numeric = float(above - below) / 2e-5
            assert float(parameter.grad[i]) == pytest.approx(numeric, rel=1e-4, abs=1e-9)


def test_straight_through_operations_pass_gradients_on():
    policy = RelaxedPolicy(["posterize", "equalize"], length=2, generator=generator(1))
    x = torch.rand(16, 1, 8, 8, generator=generator(2), requires_grad=True)
    policy(x).sum().backward()
    assert float(x.grad.abs().min()) > 0
    assert float(policy.magnitude_O.grad[0]) != 0
    # equalize has no magnitude
    assert float(policy.magnitude_O.grad[1]) == 0


def test_gradient_of_the_sub_policy_weights_is_unbiased():
    # loss_i depends on the drawn sub-policy only: the exact gradient of the expectation is known
    policy = RelaxedPolicy(["identity", "invert", "brightness"], length=1, generator=generator(4))
    with torch.no_grad():
        policy.choice_S.copy_(torch.tensor([0.3, -0.2, 0.1]))
    cost_S = torch.tensor([1.0, 3.0, -2.0])
    weights = torch.softmax(policy.choice_S, 0)
    exact = torch.autograd.grad((weights * cost_S).sum(), policy.choice_S)[0]
    x = torch.rand(4000, 1, 4, 4)
    policy(x)
    log_weights = torch.log_softmax(policy.choice_S, 0)
    drawn = (policy.log_weight_B[:, None] - log_weights).abs().argmin(1)
    estimate = torch.autograd.grad(policy.loss(cost_S[drawn]), policy.choice_S)[0]
    assert (estimate - exact).abs().max() < 0.1
    assert policy.loss(cost_S[drawn]).item() == pytest.approx(float(cost_S[drawn].mean()))


def test_pairs_are_all_there_are():
    policy = RelaxedPolicy(["invert", "rotate", "color"], length=2)
    assert policy.sub_policies == list(itertools.combinations(range(3), 2))
    found = policy.discretize(keep=2)
    assert len(found.sub_policies) == 2
    assert found.sub_policies[0][0] == Operation("invert", 0.5, 5.0)


def test_a_pair_is_applied_in_both_orders():
    policy = RelaxedPolicy(["invert", "brightness"], length=2, ranges={"brightness": (0.5, 0.5)})
    with torch.no_grad():
        policy.probability_O.fill_(50.0)  # always applied
    grey = policy(torch.full((40, 1, 4, 4), 0.5)).detach()
    # half as bright and then inverted, and the other way round
    assert (100 * grey).round().unique().tolist() == [25.0, 75.0]


def test_bilevel_numbers_have_the_exact_derivative():
    """Against the validation loss after a step, differentiated by the strength of the augmentation."""
    images, labels = planted(count=24)
    val_images, val_labels = planted(count=30, seed=5, turned=True)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    strength = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def augment(batch):
        return batch.double() / 255 * (1 + strength)

    objective = BilevelObjective(
        model,
        lambda step: (images, labels),
        lambda step: (val_images, val_labels),
        lambda x: normalize(x.double()),
        learning_rate=0.3,
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    estimate = torch.autograd.grad(objective(augment, 0).mean(), strength)[0]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    inputs = normalize(augment(images) * 255)
    loss = nn.functional.cross_entropy(model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    moved = {n: p - 0.3 * g for n, p, g in zip(names, model.parameters(), gradients, strict=True)}
    logits = torch.func.functional_call(model, moved, (normalize(val_images.double()),))
    exact = torch.autograd.grad(nn.functional.cross_entropy(logits, val_labels), strength)[0]
    assert float(estimate) == pytest.approx(float(exact), rel=1e-3, abs=1e-5)
    objective.after_step()
    assert not torch.equal(before["1.weight"], model.state_dict()["1.weight"])


def test_bilevel_leaves_running_statistics_to_the_training_pass():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    batch = planted(count=24)
    objective = BilevelObjective(model, lambda step: batch, lambda step: batch, normalize)
    objective(lambda x: x.float() / 255, 0).mean()
    assert int(model[0].num_batches_tracked) == 1


def held_out_objective(model, batch_size=32):
    """Classify turned images with the network of upright ones: the policy has to turn them back."""
    images, labels = planted(seed=3, turned=True)

    def objective(augment, step):
        pick = torch.randint(0, len(labels), (batch_size,), generator=generator(step))
        logits = model(normalize(augment(images[pick]) * 255))
        return nn.functional.cross_entropy(logits, labels[pick], reduction="none")

    return objective


def test_gradient_search_finds_the_planted_rotation(tmp_path):
    result = search_policy(
        held_out_objective(template_classifier()),
        method="gradient",
        folder=tmp_path,
        budget=Budget(epochs=2),
        operations=OPERATIONS,
        ranges=TURN,
        seed=1,
        steps_per_epoch=30,
        learning_rate=0.15,
    )
    last = result.history[-1]["probabilities"]
    assert last["rotate"] > 0.9
    assert last["invert"] < 0.2
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = result.policy.sub_policies[0]
    assert "rotate" in {op.name for op in best}
    assert policy_from_yaml(result.path) == result.policy
    assert result.spent.epochs == 2
    report = json.loads((tmp_path / "policy_search.json").read_text())
    assert report["method"] == "gradient"
    assert len(report["history"]) == 2


def test_bilevel_search_finds_the_planted_rotation(tmp_path):
    """Training images upright, validation images turned: training on turned ones helps."""

    def drawn(images, labels, seed):
        def batch(step):
            pick = torch.randint(0, len(labels), (64,), generator=generator(1000 * seed + step))
            return images[pick], labels[pick]

        return batch

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    objective = BilevelObjective(
        model,
        drawn(*planted(), 1),
        drawn(*planted(seed=2, turned=True), 2),
        normalize,
        learning_rate=0.02,
    )
    result = search_policy(
        objective,
        method="gradient",
        folder=tmp_path,
        budget=Budget(epochs=2),
        operations=OPERATIONS,
        ranges=TURN,
        length=1,
        steps_per_epoch=40,
        learning_rate=0.15,
    )
    last = result.history[-1]["probabilities"]
    assert last["rotate"] > 0.8
    assert last["rotate"] > last["invert"] + 0.2


def test_density_search_finds_the_planted_rotation(tmp_path):
    images, labels = planted(count=90, seed=3, turned=True)
    objective = DensityObjective([(template_classifier(), lambda: [(images, labels)])], normalize)
    turn = Policy(((Operation("rotate", 1.0, 5.0),),), ranges=TURN)
    nothing = Policy(())
    assert objective(turn) == 1.0
    assert objective(nothing) < 0.6
    assert objective(turn) == objective(turn)
    result = search_policy(
        objective,
        method="density",
        folder=tmp_path,
        budget=Budget(trials=30),
        operations=OPERATIONS,
        ranges=TURN,
        length=1,
        sub_policies=2,
        keep=3,
        seed=1,
    )
    steps = [op for sub in result.policy.sub_policies for op in sub]
    assert len(steps) == 6
    # a policy drawn blindly turns an image with probability 1/3 * 1/2
    turned = sum(op.probability for op in steps if op.name == "rotate") / len(steps)
    assert turned > 0.6
    assert objective(result.policy) > objective(nothing) + 0.2
    assert len(result.history) == 30


def test_density_over_folds_is_the_mean_over_images():
    right, wrong = planted(count=30), planted(count=90, turned=True)
    model = template_classifier()
    folds = [(model, lambda: [right]), (model, lambda: [wrong])]
    alone = [DensityObjective([fold], normalize)(Policy(())) for fold in folds]
    both = DensityObjective(folds, normalize, draws=2)(Policy(()))
    assert both == pytest.approx((30 * alone[0] + 90 * alone[1]) / 120)


def test_interrupted_gradient_search_goes_on_bit_for_bit(tmp_path):
    def run(folder, epochs):
        return search_policy(
            held_out_objective(template_classifier()),
            method="gradient",
            folder=folder,
            budget=Budget(epochs=epochs),
            operations=OPERATIONS,
            steps_per_epoch=5,
            seed=3,
        )

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 3)
    assert parts.policy == whole.policy
    assert [row["loss"] for row in parts.history] == [row["loss"] for row in whole.history]
    with pytest.raises(TuneError, match="other settings"):
        search_policy(
            held_out_objective(template_classifier()),
            method="gradient",
            folder=tmp_path / "parts",
            budget=Budget(epochs=3),
            operations=("rotate", "invert"),
        )


def test_seconds_end_a_search_within_an_epoch(tmp_path):
    result = search_policy(
        held_out_objective(template_classifier()),
        method="gradient",
        folder=tmp_path,
        budget=Budget(trainings=2.0, training_seconds=0.1),
        operations=OPERATIONS,
        steps_per_epoch=100_000,
    )
    assert result.history[-1]["steps"] < 10_000
    # the next step would not fit; a step is at most as long as those before it together
    assert 0.1 <= result.spent.device_seconds < 5
    assert result.ended == "the budget of 0.2 device-seconds is spent"


def test_colour_is_left_out_on_one_channel(tmp_path):
    result = search_policy(
        lambda augment, step: augment(torch.rand(4, 1, 8, 8)).mean((1, 2, 3)),
        method="gradient",
        folder=tmp_path,
        budget=Budget(epochs=1),
        channels=1,
        steps_per_epoch=1,
        keep=1000,
    )
    assert "color" not in result.policy.operations
    assert "rotate" in result.policy.operations


def test_wrong_searches_are_sentences(tmp_path):
    def search(**changes):
        fields = {"method": "gradient", "folder": tmp_path, "budget": Budget(epochs=1)}
        fields |= {"operations": OPERATIONS}
        return search_policy(lambda *_: torch.tensor(float("nan")), **{**fields, **changes})

    with pytest.raises(TuneError, match="Choose gradient or density"):
        search(method="grid")
    with pytest.raises(TuneError, match="has no trials"):
        search(budget=Budget(trials=3))
    with pytest.raises(TuneError, match="has no epochs"):
        search(method="density")
    with pytest.raises(TuneError, match="sub_policies=0"):
        search(method="density", budget=Budget(trials=3), sub_policies=0)
    with pytest.raises(TuneError, match="steps_per_epoch=0"):
        search(steps_per_epoch=0)
    with pytest.raises(ConfigError, match="length 3"):
        search(length=3)
    with pytest.raises(ConfigError, match="Did you mean 'rotate'"):
        search(operations=["rotates", "invert"])
    with pytest.raises(ConfigError, match="temperature=0"):
        search(temperature=0.0)
    with pytest.raises(NonFiniteLossError, match="became nan at step 0"):
        search()
    with pytest.raises(ConfigError, match="at least one fold"):
        DensityObjective([], normalize)
