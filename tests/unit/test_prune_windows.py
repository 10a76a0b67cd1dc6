"""Pruning of what lies beside layers that torch-pruning cannot follow."""

import copy

import torch
from torch import nn
from torch.nn import functional

from darts_core.prune.groups import find_groups, remove_channels


class Windows(nn.Module):
    """Attention within four windows, at whose reshapes torch-pruning divides by zero, then an MLP."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 1), nn.Linear(8, 24)
        self.proj, self.wide, self.head = nn.Linear(8, 8), nn.Linear(8, 32), nn.Linear(32, 5)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2).unflatten(1, (4, 16))
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 4)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(3)
        return self.head(self.wide(tokens + self.proj(mixed)).relu().mean((1, 2)))


def test_what_cannot_be_followed_stays_and_the_rest_is_pruned():
    torch.manual_seed(0)
    model, shape = Windows().eval(), (3, 8, 8)
    groups = {group.root: group for group in find_groups(model, shape)}
    assert groups["wide"].channels == 32
    assert not {"qkv", "stem", "head"} & set(groups)
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.wide.weight[3], silent.wide.bias[3] = 0, 0
    pruned = remove_channels(copy.deepcopy(model), shape, {"wide": [3]})
    assert pruned.wide.out_features == 31
    x = torch.randn(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), silent(x))
