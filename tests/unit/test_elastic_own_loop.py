"""Networks, data and loops as people write them: shared parts, inputs written into, other outputs."""

import pytest
import torch
from elastic_cases import Fused, drawn, normed
from torch import nn
from torch.nn import functional

from darts_core.elastic import Sandwich, elastic
from darts_core.errors import ConfigError, PruneError, ResumeError
from darts_core.tasks import Classification, make_task
from darts_core.train.save import fit_to
from darts_core.train.teacher import Teacher, _fingerprints

LOSS = functional.cross_entropy


def _classes(count=8):
    return torch.arange(count) % 5


class Block(nn.Module):
    def __init__(self, norm, inner=None):
        super().__init__()
        self.inner = inner
        self.up, self.down = nn.Linear(32, 32), nn.Linear(32, 32)
        self.norm = norm

    def forward(self, x):
        if self.inner is not None:
            x = x + self.inner(self.norm(x))
        h = torch.relu(self.up(self.norm(x)))
        self.kept = h.square().mean()
        return x + self.down(h)


class Rows(nn.Module):
    """Blocks over rows [B, T, 8]; the first one is the least needed."""

    def __init__(self, shared_norm=True, attention=False):
        super().__init__()
        torch.manual_seed(0)
        norm = nn.LayerNorm(32)
        inner = Fused(32, 4) if attention else None
        self.first, self.head = nn.Linear(8, 32), nn.Linear(32, 5)
        self.blocks = nn.ModuleList(
            Block(norm if shared_norm else nn.LayerNorm(32), inner) for _ in range(3)
        )
        with torch.no_grad():
            self.blocks[0].down.weight.mul_(1e-3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


# the blocks' order, as batches that need the first one least would have it
FIRST_GOES = {"blocks.0..2.depth": ["blocks.2", "blocks.1", "blocks.0"]}


def test_values_of_double_precision_that_differ_in_their_sign_are_two_inputs():
    """The teacher answered -x with what it had said of x: in both products their highest bits were lost."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), drawn(2, 4, dtype=torch.float64)
    teacher = Teacher(model)
    teacher(x)
    assert torch.equal(teacher(-x), model(-x))
    assert teacher.asked == 2
    generator = torch.Generator().manual_seed(0)
    ones = torch.randint(0, 2, (4000, 40), generator=generator).double()
    for values in (ones, 2 * ones - 1):
        assert len(set(_fingerprints(values))) == len(values.unique(dim=0)) == 4000


def test_fingerprints_of_other_types_are_those_of_older_states():
    row = torch.tensor([[0.0, 1.0, -2.5, 7.0]])
    keys = {kind: _fingerprints(row.to(kind))[0].hex() for kind in (torch.float32, torch.float16)}
    keys[torch.int64] = _fingerprints(torch.tensor([[0, 1, 50_000, 7]]))[0].hex()
    assert keys == {
        torch.float32: "00008073612bc658000000009ec4c738",
        torch.float16: "005c08f46528f6f10040b916dd7e2140",
        torch.int64: "d23265f77b7a3e0572704ba7ed2ba84a",
    }


def test_what_all_blocks_share_is_cut_where_the_block_that_it_is_named_by_does_not_run():
    """Its norm kept all channels: "Given normalized_shape=[32], expected input ..."."""
    x = drawn(8, 3, 8)
    net = elastic(Rows(), x, orders=FIRST_GOES)
    found = net.plan(net.smallest)
    assert found.skipped == ("blocks.0",)
    assert net.smallest["blocks.2.down"] == 8
    Sandwich(net).backward(x, lambda output: LOSS(output, _classes()))
    net.model.eval()
    with net.running(net.smallest):
        sliced = net.model(x)
    plain = net.cut(net.smallest)
    assert plain.blocks[2].norm.normalized_shape == (8,)
    assert torch.equal(plain(x), sliced)


def test_heads_of_an_attention_that_blocks_share_are_told_by_a_place_that_is_left():
    x = drawn(8, 3, 8)
    net = elastic(Rows(attention=True), x, orders=FIRST_GOES)
    choices = {**net.largest, "blocks.0.inner.heads": 1, "blocks.0..2.depth": 2}
    plain, told = net.cut(choices), net.described(choices)
    assert told["replaced"] == {"blocks.0": "skip_connect"}
    assert told["sizes"] == {"blocks.1.inner.num_heads": 1}
    again = fit_to(Rows(attention=True), plain.state_dict(), **told).eval()
    assert torch.equal(again(x), plain(x))


def test_terms_that_blocks_keep_for_the_loss_have_no_gradient_where_they_do_not_run():
    """ "Trying to backward through the graph a second time": the whole network's, which was freed."""
    x = drawn(8, 3, 8)
    net = elastic(Rows(shared_norm=False), x, orders=FIRST_GOES)
    model = net.model.train()
    sandwich = Sandwich(net, drawn=0, share=0.0, others=1.0)
    sandwich.backward(
        x, lambda output: LOSS(output, _classes()) + sum(block.kept for block in model.blocks)
    )
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    (LOSS(model(x), _classes()) + sum(block.kept for block in model.blocks)).backward()
    with net.running(net.smallest):
        (LOSS(model(x), _classes()) + sum(block.kept for block in model.blocks[1:])).backward()
    for one, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(one, parameter.grad, atol=1e-7)


def _grouped():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


@pytest.mark.parametrize("make", [_grouped, Rows], ids=["channels in parts", "blocks"])
def test_a_resumed_training_whose_channels_or_blocks_come_in_another_order_is_refused(make):
    """It went on with sub-networks of other channels, or was told of other weights, which it had not."""
    shape = (8, 3, 8, 8) if make is _grouped else (8, 3, 8)
    one, two = ([(drawn(*shape, seed=seed), _classes())] for seed in (1, 2))
    first = Sandwich(elastic(make(), one[0][0], batches=one))
    state = first.state_dict()
    other = {name: list(order)[::-1] for name, order in first.net.orders.items()}
    if make is _grouped:
        other = elastic(make(), two[0][0], batches=two).orders
    assert other != first.net.orders
    again = Sandwich(elastic(make(), one[0][0], orders=other))
    with pytest.raises(ResumeError, match=r'orders=state\["orders"\]'):
        again.load_state_dict(state)
    told = Sandwich(elastic(make(), two[0][0], batches=two, orders=state["orders"]))
    told.load_state_dict(state)
    assert told.net.orders == first.net.orders
    del state["orders"]  # of an earlier program
    told.load_state_dict(state)
    changed = make()
    nn.init.normal_(next(changed.parameters()))
    with pytest.raises(ResumeError, match="made of other weights"):
        Sandwich(elastic(changed, one[0][0], batches=one)).load_state_dict(first.state_dict())


class Centred(nn.Module):
    """A network that brings its input to a range of its own, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.body = in_place, normed(nn.BatchNorm2d)

    def forward(self, x):
        if self.in_place:
            x -= 0.5
            x /= 0.25
            return self.body(x)
        return self.body((x - 0.5) / 0.25)


def test_a_network_that_writes_into_its_input_learns_from_what_it_is_given():
    """Nothing in it seemed to vary, and teacher and sub-networks would have had it written into again."""
    found = []
    for in_place in (True, False):
        batches = [(drawn(8, 3, 8, 8, seed=seed), _classes()) for seed in (1, 2)]
        net = elastic(Centred(in_place), batches[0][0], batches=batches)
        net.model.train()
        x = drawn(8, 3, 8, 8, seed=3)
        loss = Sandwich(net).backward(x, lambda output: LOSS(output, _classes()))
        cut = net.cut(net.smallest, batches)
        grads = [parameter.grad for parameter in net.model.parameters()]
        found.append(([net.variables, net.orders], [loss, *grads, *cut.state_dict().values()]))
        assert torch.equal(batches[1][0], drawn(8, 3, 8, 8, seed=2))
    (names, values), (same_names, same) = found
    assert names == same_names
    for one, other in zip(values, same, strict=True):
        assert torch.equal(one, other)


def test_channels_of_an_embedding_of_sparse_gradients_stay_and_others_vary():
    """The first step ended in "Could not run 'aten::as_strided' with arguments from 'SparseCPU'"."""

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(20, 32, sparse=True)
            self.same, self.up, self.head = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 5)

        def forward(self, x):
            x = self.words(x)
            return self.head(torch.relu(self.up(x + self.same(x))).mean(1))

    x = torch.arange(24).reshape(4, 6) % 20
    net = elastic(Words(), x)
    assert [variable.name for variable in net.variables] == ["up"]
    assert "sparse gradients" in net.left["same"]
    Sandwich(net).backward(x, lambda output: LOSS(output, _classes(4)))
    assert net.model.words.weight.grad.is_sparse


def test_layers_that_wait_for_their_first_input_are_refused_in_a_sentence():
    model = nn.Sequential(nn.LazyConv2d(16, 3), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(PruneError, match="call it once on a batch"):
        elastic(model, drawn(2, 3, 8, 8))


def test_of_one_example_what_a_training_reads_is_seen_as_of_two():
    """Norms behind a pooling do not run on one alone; a network without the block failed in its training."""

    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
            self.blocks = nn.ModuleList(Residual() for _ in range(3))
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            x = self.first(x).mean(1)
            for block in self.blocks:
                x = block(x)
            z = self.head(self.norm(x))
            return (z, self.blocks[0].up(x)) if self.training else z

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(16, 16)

        def forward(self, x):
            return x + self.up(torch.relu(x))

    for count in (2, 1):
        net = elastic(Read(), drawn(count, 3, 8))
        assert "reads more of it" in net.left["blocks.0"]
        net.cut(net.smallest).train()(drawn(4, 3, 8))


class Near(nn.Module):
    """Attention to at most `reach` neighbours on either side; its heads' size follows from the width."""

    def __init__(self, reach):
        super().__init__()
        self.heads, self.reach = 4, reach
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        place = torch.arange(t)
        near = (place[:, None] - place).abs() <= self.reach
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=near)
        return self.proj(found.transpose(1, 2).reshape(b, t, c))


def test_an_attention_whose_window_is_wider_than_the_example_keeps_its_window():
    """It was replaced by one without, which computes the same of sequences as short as the example alone."""
    for reach, opened in ((16, ()), (10_000, ("1",))):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, 32), Near(reach), nn.Linear(32, 32), nn.Linear(32, 5)
        ).eval()
        x = drawn(2, 60, 8)
        before = model(x)
        net = elastic(model, x[:, :12])
        assert net.opened == opened
        assert torch.allclose(model(x), before, atol=1e-6)


def test_what_a_network_counts_in_an_attribute_is_counted_once_a_step():
    """It was counted for each sub-network: a schedule of the network's own ran four times as fast."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls, self.rate = _grouped(), 0, 1.0

        def forward(self, x):
            if self.training:
                self.calls, self.rate = self.calls + 1, self.rate * 0.5
            return self.body(x)

    net = elastic(Counting(), drawn(2, 3, 8, 8))
    sandwich = Sandwich(net)
    net.model.train()
    for _ in range(2):
        sandwich.backward(drawn(8, 3, 8, 8), lambda output: LOSS(output, _classes()))
    assert (net.model.calls, net.model.rate) == (2, 0.25)
    assert net.model.body[0].out_channels == 32


def test_a_network_that_is_cut_out_in_inference_mode_learns_afterwards():
    """ "Inference tensors cannot be saved for backward": those of its parameters."""
    net = elastic(normed(nn.BatchNorm2d), drawn(2, 3, 8, 8))
    with torch.inference_mode():
        cut = net.cut(net.smallest, [(drawn(8, 3, 8, 8), None)])
    LOSS(cut.train()(drawn(8, 3, 8, 8)), _classes()).backward()
    assert all(parameter.grad is not None for parameter in cut.parameters())


class Otherwise(nn.Module):
    """A network that gives something else in evaluation mode."""

    def __init__(self, then):
        super().__init__()
        self.body, self.then = _grouped(), then

    def forward(self, x):
        return self.body(x) if self.training else self.then(self.body(x))


@pytest.mark.parametrize(
    ("then", "task", "words"),
    [
        (lambda z: z.softmax(1), None, "before a softmax in training and behind it in evaluation"),
        (lambda z: z[:, :1], "regression", r"\[8, 5\] in training and \[8, 1\] in evaluation mode"),
    ],
    ids=["a softmax", "fewer"],
)
def test_a_teacher_that_would_teach_something_else_is_refused(then, task, words):
    """Probabilities passed for outputs before the softmax: half of the loss asked for even guesses."""
    x = drawn(8, 3, 8, 8)
    net = elastic(Otherwise(then), x)
    net.model.train()

    def loss_of(output):
        return LOSS(output, _classes())

    with pytest.raises(ConfigError, match=words):
        Sandwich(net, task=task and make_task(task)).backward(x, loss_of)
    Sandwich(net, share=0.0).backward(x, loss_of)
    same = elastic(Otherwise(lambda z: z.log_softmax(1)), x)  # which teaches the same
    same.model.train()
    Sandwich(same).backward(x, loss_of)


def test_shares_of_half_precision_are_shares():
    """A softmax under autocast was taken for none, as soon as the teacher's shares summed to 1."""
    logits = 3 * drawn(64, 10)
    output, taught = logits.softmax(1).bfloat16(), logits.softmax(1)
    assert (output.float().sum(1) - 1).abs().max() > 1e-3
    teacher = Teacher(nn.Identity())
    assert teacher.other_outputs(Classification(), output, taught) is None
    assert "softmax" in Teacher(nn.Identity()).other_outputs(Classification(), logits, taught)
