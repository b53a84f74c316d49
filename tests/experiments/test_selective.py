"""Which channels speak on one kind of data alone."""

from __future__ import annotations

import torch

from experiments import selective


def test_what_a_channel_says_is_the_root_of_its_mean_square_over_all_inputs() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 2.0]).view(3, 1, 1, 1))
        model[0].bias.zero_()
    batches = [{"input": torch.full((2, 1, 1, 2), value)} for value in (3.0, 1.0, -2.0)]
    found = selective._spoken({"relu": model[1]}, model, batches, last=False)
    assert torch.allclose(found, torch.tensor([10 / 3, 4 / 3, 40 / 3], dtype=torch.float64).sqrt())


def test_what_a_layer_reads_is_watched_where_channels_are_the_last_axis() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    batches = [{"input": torch.tensor([[[2.0, 0.0], [4.0, 0.0]]])}]
    found = selective._spoken({"reader": model[1]}, model, batches, last=True)
    assert torch.allclose(found, torch.tensor([10.0, 0.0], dtype=torch.float64).sqrt())


def test_a_channel_silent_on_both_kinds_closes_nothing() -> None:
    authorised, closed = torch.tensor([0.0, 0.0, 2.0, 1.0]), torch.tensor([0.0, 3.0, 3.0, 1.0])
    row = selective._row("m", "c", authorised, closed)
    assert (row["channels"], row["silent"], row["largest"]) == (4, 1, 1.5)
