"""Policies: as data, drawn per image, executed like the plain per-image loop; operations against Pillow."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from darts_core.augment import (
    AUGMENTATIONS,
    Operation,
    Policy,
    PolicyTransform,
    load_policy,
    make_policy,
    policy_from_dict,
    policy_from_yaml,
    policy_to_yaml,
    register_augmentation,
)
from darts_core.errors import ConfigError

PRESETS = (
    "none",
    "autoaugment_cifar10",
    "autoaugment_imagenet",
    "autoaugment_svhn",
    "randaugment",
    "trivialaugment",
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=6, channels=3, size=12):
    shape = (batch, channels, size, size)
    return torch.randint(0, 256, shape, generator=generator(7), dtype=torch.uint8)


def one(name, probability=1.0, magnitude=5.0, **fields):
    return Policy(((Operation(name, probability, magnitude),),), **fields)


def by_pillow(batch, function):
    results = []
    for image in batch:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        results.append(torch.from_numpy(np.array(function(picture))).permute(2, 0, 1))
    return torch.stack(results)


@pytest.mark.parametrize(
    ("name", "value", "pillow", "tolerance"),
    [
        ("equalize", 0.0, ImageOps.equalize, 0),
        ("invert", 0.0, ImageOps.invert, 0),
        ("auto_contrast", 0.0, ImageOps.autocontrast, 1),
        ("posterize", 5.0, lambda i: ImageOps.posterize(i, 5), 0),
        ("posterize", 8.0, lambda i: ImageOps.posterize(i, 8), 0),
        ("solarize", 96 / 255, lambda i: ImageOps.solarize(i, 96), 0),
        ("solarize", 1.0, lambda i: ImageOps.solarize(i, 256), 0),
        ("brightness", 1.5, lambda i: ImageEnhance.Brightness(i).enhance(1.5), 1),
        ("contrast", 0.4, lambda i: ImageEnhance.Contrast(i).enhance(0.4), 1),
        ("color", 1.7, lambda i: ImageEnhance.Color(i).enhance(1.7), 2),
        ("sharpness", 0.3, lambda i: ImageEnhance.Sharpness(i).enhance(0.3), 1),
        ("identity", 0.0, lambda i: i, 0),
        ("rotate", 90.0, lambda i: i.rotate(90), 0),
        (
            "translate_x",
            3 / 12,
            lambda i: i.transform(i.size, 0, (1, 0, -3, 0, 1, 0), fillcolor=(128,) * 3),
            1,
        ),
        (
            "translate_y",
            -2 / 12,
            lambda i: i.transform(i.size, 0, (1, 0, 0, 0, 1, 2), fillcolor=(128,) * 3),
            1,
        ),
    ],
)
def test_operations_agree_with_pillow(name, value, pillow, tolerance):
    x = pixels()
    result = AUGMENTATIONS[name].function(x.float() / 255, torch.full((len(x),), value))
    result = (result * 255).round().clamp(0, 255)
    assert (result - by_pillow(x, pillow)).abs().max() <= tolerance


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear_moves_lines_in_proportion_to_their_place(name):
    size = 21
    x = torch.zeros(1, 1, size, size)
    x[..., size // 2] = 1
    if name == "shear_y":
        x = x.transpose(2, 3).contiguous()
    y = AUGMENTATIONS[name].function(x, torch.tensor([0.3]))[0, 0]
    places = (y.argmax(1) if name == "shear_x" else y.argmax(0)) - size // 2
    expected = 0.3 * torch.arange(size)
    assert ((places.abs() - expected).abs() <= 1.01).all()
    back = AUGMENTATIONS[name].function(x, torch.tensor([-0.3]))[0, 0]
    places_back = (back.argmax(1) if name == "shear_x" else back.argmax(0)) - size // 2
    assert int(places[-1]) * int(places_back[-1]) < 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_every_operation_is_per_image_and_keeps_the_shape(name, channels):
    op = AUGMENTATIONS[name]
    x = pixels(channels=channels).float() / 255
    values = torch.linspace(op.low, op.high, len(x))
    together = op.function(x, values)
    assert together.shape == x.shape
    assert torch.isfinite(together).all()
    if op.colour and channels == 1:
        return
    for i in range(len(x)):
        alone = op.function(x[i : i + 1], values[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


def test_groups_are_the_same_as_one_image_after_the_other():
    # every random choice fixed by the policy itself, so that a plain loop can repeat it
    names = ["invert", "posterize", "solarize", "brightness"]
    subs = tuple((Operation(n, 1.0, 6.0), Operation("contrast", 1.0, 8.0)) for n in names)
    transform, x = PolicyTransform(Policy(subs)), pixels(batch=32)
    result = transform(x, generator(1))
    candidates = []
    for sub in subs:
        y = x.float() / 255
        for op in sub:
            entry = AUGMENTATIONS[op.name]
            value = entry.low + (entry.high - entry.low) * op.magnitude / 10
            y = entry.function(y, torch.full((len(x),), value)).clamp(0, 1)
        candidates.append((y * 255).round().to(torch.uint8))
    matches = torch.stack([(c == result).flatten(1).all(1) for c in candidates])
    assert (matches.sum(0) >= 1).all()
    assert (matches.sum(1) >= 2).all(), "each sub-policy is drawn for some images of one batch"


def test_probability_and_signs_are_drawn_per_image():
    x = pixels(batch=2000, channels=1, size=8)
    changed = (PolicyTransform(one("invert", 0.3))(x, generator(1)) != x).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - 0.3) < 0.04
    dot = torch.zeros(1000, 1, 9, 9, dtype=torch.uint8)
    dot[:, 0, 4, 4] = 255
    policy = one("translate_x", 1.0, 10.0, ranges={"translate_x": (0.0, 2 / 9)})
    moved = PolicyTransform(policy)(dot, generator(1)).flatten(1).argmax(1)
    sides = (moved == 4 * 9 + 6).float().mean()
    assert abs(float(sides) - 0.5) < 0.06


def test_magnitude_range_and_levels():
    grey = torch.full((3000, 1, 8, 8), 100, dtype=torch.uint8)
    policy = Policy(((Operation("brightness", 1.0, 0.0, 10.0),),), levels=3)
    values = PolicyTransform(policy)(grey, generator(1))[:, 0, 0, 0]
    assert sorted(values.unique().tolist()) == [10, 100, 190]
    assert values.eq(100).float().mean() == pytest.approx(1 / 3, abs=0.04)
    smooth = PolicyTransform(Policy(policy.sub_policies))(grey, generator(1))[:, 0, 0, 0]
    assert len(smooth.unique()) > 100
    assert 10 <= int(smooth.min()) <= int(smooth.max()) <= 190


def test_mirrored_values_lie_on_both_sides():
    grey = torch.full((1000, 1, 8, 8), 100, dtype=torch.uint8)
    policy = one(
        "brightness", magnitude=5.0, ranges={"brightness": (1.0, 1.4)}, mirrored=("brightness",)
    )
    values = PolicyTransform(policy)(grey, generator(1))[:, 0, 0, 0]
    assert sorted(values.unique().tolist()) == [80, 120]
    assert abs(float(values.eq(80).float().mean()) - 0.5) < 0.06


def test_rounds_repeat_the_draw():
    grey = torch.full((400, 1, 8, 8), 64, dtype=torch.uint8)
    policy = one("brightness", 1.0, 5.0, ranges={"brightness": (1.0, 2.0)}, rounds=2)
    assert PolicyTransform(policy)(grey, generator(1)).unique().tolist() == [144]


def test_same_state_same_result_and_the_state_moves_on():
    transform, x = PolicyTransform(policy_from_yaml("trivialaugment")), pixels()
    g = generator(3)
    first, second = transform(x, g), transform(x, g)
    assert not torch.equal(first, second)
    assert torch.equal(first, transform(x, generator(3)))


def test_colour_operations_on_one_channel_are_skipped_and_reported_once(caplog):
    transform, x = PolicyTransform(one("color", magnitude=9.0)), pixels(channels=1)
    with caplog.at_level(logging.WARNING, logger="darts_core"):
        assert torch.equal(transform(x, generator(1)), x)
        transform(x, generator(2))
    assert caplog.text.count("the augmentation skips color") == 1
    assert not torch.equal(transform(pixels(), generator(1)), pixels())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_run_and_survive_yaml(name, channels, tmp_path):
    policy = policy_from_yaml(name)
    assert policy.name == name
    assert policy.description
    x = pixels(batch=24, channels=channels)
    y = PolicyTransform(policy)(x, generator(1))
    assert y.dtype == torch.uint8
    assert y.shape == x.shape
    assert torch.equal(x, y) == (name == "none")
    policy_to_yaml(policy, tmp_path / "p.yaml")
    assert policy_from_yaml(tmp_path / "p.yaml") == policy
    loaded = load_policy(tmp_path / "p.yaml")
    assert (loaded is None) == (name == "none")


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "svhn"])
def test_published_policies_agree_with_an_independent_table(name):
    # kornia carries the same published policies; it leaves out magnitudes that have no effect
    from kornia.augmentation.auto.autoaugment import autoaugment

    table = getattr(autoaugment, f"{name}_policy")
    ours = policy_from_yaml(f"autoaugment_{name}").sub_policies
    assert len(ours) == len(table) == 25
    for sub, rows in zip(ours, table, strict=True):
        for op, (theirs, probability, magnitude) in zip(sub, rows, strict=True):
            assert (op.name, op.probability) == (theirs, probability)
            assert magnitude is None or op.magnitude == magnitude


def test_randaugment_settings_are_two_keys():
    policy = policy_from_yaml("randaugment")
    assert policy.rounds == 2
    assert {op.magnitude for sub in policy.sub_policies for op in sub} == {3.0}
    assert len(policy.sub_policies) == 14


def test_a_new_operation_is_one_function():
    @register_augmentation("test_shift_up", description="adds its value", low=0.0, high=0.5)
    def shift_up(images, value):
        return images + value.view(-1, 1, 1, 1)

    x = torch.full((3, 1, 8, 8), 51, dtype=torch.uint8)
    y = PolicyTransform(one("test_shift_up", 1.0, 4.0))(x, generator(1))
    assert y.unique().tolist() == [102]
    with pytest.raises(ConfigError, match="already registered"):
        register_augmentation("test_shift_up", description="again")(shift_up)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"sub_policies": [[["rotat", 1, 5]]]}, "Did you mean 'rotate'"),
        ({"sub_policies": [[["rotate", 1.2, 5]]]}, "probability 1.2"),
        ({"sub_policies": [[["rotate", 1, 11]]]}, "magnitude 11.0"),
        ({"sub_policies": [[["rotate", 1, [6, 5]]]]}, r"magnitude 6.0..5.0"),
        ({"sub_policies": [[["rotate", 1, [1, 2, 3]]]]}, "needs two numbers"),
        ({"sub_policies": [[["rotate", True, 5]]]}, "probability is True"),
        ({"sub_policies": [[["rotate", 1]]]}, "states no magnitude"),
        ({"sub_policies": [["rotate"]]}, "step 'rotate'"),
        ({"sub_policies": ["rotate"]}, "sub-policy is 'rotate'"),
        ({"sub_policies": [[[3, 1, 5]]]}, "operation 3"),
        ({}, "sub_policies is None"),
        ({"sub_policies": [], "round": 2}, "Did you mean 'rounds'"),
        ({"sub_policies": [], "rounds": 0}, "rounds=0"),
        ({"sub_policies": [], "rounds": 2.5}, "rounds is 2.5; needed is a whole number"),
        ({"sub_policies": [], "levels": 1}, "levels=1"),
        ({"sub_policies": [], "levels": 30.9}, "levels is 30.9; needed is a whole number"),
        ({"sub_policies": [], "ranges": [1]}, r"ranges are \[1\]"),
        ({"sub_policies": [], "ranges": {"rotate": [1]}}, "needed is two numbers"),
        ({"sub_policies": [], "schema_version": 99}, "schema_version 99"),
    ],
)
def test_wrong_policies_are_sentences(content, text):
    with pytest.raises(ConfigError, match=text):
        PolicyTransform(policy_from_dict(content))


def test_wrong_policy_files_are_sentences(tmp_path):
    file = tmp_path / "p.yaml"
    with pytest.raises(
        ConfigError, match=r"neither a YAML file nor a preset. Presets: autoaugment"
    ):
        policy_from_yaml(file)
    for text, reason in (
        ("- 1", "holds no mapping"),
        ("a: [", "not valid YAML"),
        ("rounds: 1", "sub_p"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            policy_from_yaml(file)
    file.write_text("sub_policies: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        policy_from_yaml(file)
    with pytest.raises(ConfigError, match=r"augment\.path=FILE"):
        load_policy(None)


def test_make_policy_takes_the_keys_of_a_preset():
    import yaml

    from darts_core.augment.policy import _config_folder

    files = sorted(_config_folder().glob("*.yaml"))
    assert {"none", "randaugment", "trivialaugment"} <= {file.stem for file in files}
    for file in files:
        content = yaml.safe_load(file.read_text())
        assert content["description"]
        target = content.pop("_target_")
        if target.endswith("make_policy"):
            made = make_policy(**content)
            assert (made is None) == (file.stem == "none")


@pytest.mark.parametrize("channels", [2, 4])
def test_color_of_images_of_any_number_of_channels(channels):
    x = pixels(channels=channels).float() / 255
    grey = x.mean(1, keepdim=True).expand_as(x)
    factors = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.5])
    wanted = torch.stack([g + (i - g) * f for i, g, f in zip(x, grey, factors, strict=True)])
    torch.testing.assert_close(AUGMENTATIONS["color"].function(x, factors), wanted)
    y = PolicyTransform(policy_from_yaml("randaugment"))(pixels(channels=channels), generator(1))
    assert y.shape == (6, channels, 12, 12)


def test_posterize_keeps_no_more_bits_than_there_are():
    x = pixels()
    policy = one("posterize", magnitude=10.0, ranges={"posterize": (8.0, 12.0)})
    assert torch.equal(PolicyTransform(policy)(x, generator(1)), x)


def test_images_that_are_no_bytes_are_refused_and_left_as_they_are():
    images = torch.rand(4, 3, 9, 9)
    before = images.clone()
    with pytest.raises(ConfigError, match=r"for images of bytes \(uint8, 0\.\.255\)"):
        make_policy(sub_policies=[[["invert", 1, 5]]])(images, torch.Generator())
    assert torch.equal(images, before)
