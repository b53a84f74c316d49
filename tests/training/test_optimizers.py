"""Settings of optimizers: every one that a recipe may name exists, reaches the optimizer, and is refused elsewhere."""

import pytest
import torch

from specdef.attacks.base import Attack
from specdef.attacks.wire import recipe_from_wire, recipe_to_wire
from specdef.errors import SpecdefError
from specdef.training.optimizers import OPTIMIZERS, build_optimizer
from specdef.training.recipe import Recipe


def built(name, **options):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    return build_optimizer(name, model, lr=1e-3, weight_decay=0.0, options=tuple(options.items()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_setting_a_recipe_may_name_is_the_optimizers_own(name):
    groups = built(name).param_groups
    for option in OPTIMIZERS[name].options:
        before = next(group[option] for group in groups if option in group)
        other = (0.5, 0.25) if option == "betas" else not before if isinstance(before, bool) else 0.125
        changed = built(name, **{option: other}).param_groups
        assert [group[option] for group in changed if option in group] == [
            other for group in groups if option in group
        ], option


def test_a_setting_changes_what_a_step_does():
    def stepped(**options):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        optimizer = build_optimizer("sgd", model, lr=0.1, weight_decay=0.0, options=tuple(options.items()))
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 4)).square().sum().backward()
            optimizer.step()
        return model.weight.detach()

    torch.manual_seed(0)
    bare = torch.nn.Linear(4, 4)
    plain = torch.optim.SGD(bare.parameters(), lr=0.1)
    for _ in range(2):
        plain.zero_grad()
        bare(torch.ones(1, 4)).square().sum().backward()
        plain.step()
    assert torch.equal(stepped(momentum=0), bare.weight)
    assert not torch.equal(stepped(), bare.weight)


@pytest.mark.parametrize(
    ("optimizer", "options", "said"),
    [
        ("adamw", {"momentum": 0.9}, "`momentum` must be a setting of optimizer adamw (betas, amsgrad)"),
        ("adamw", {"betas": 0.9}, "`betas` must be two numbers"),
        ("adamw", {"betas": (0.9, 1.0)}, "`betas` must be numbers of at least 0 and below 1"),
        ("sgd", {"momentum": "much"}, "`momentum` must be a number, true or false"),
    ],
)
def test_what_an_optimizer_does_not_have_is_refused(optimizer, options, said):
    with pytest.raises(SpecdefError) as caught:
        Recipe(optimizer=optimizer, optimizer_options=options)
    assert said in str(caught.value)


def test_a_recipe_without_settings_is_written_as_it_always_was():
    assert "optimizer_options" not in recipe_to_wire(Recipe())


def test_settings_survive_the_wire_and_stand_in_the_label():
    recipe = Recipe(optimizer_options={"betas": [0.9, 0.95], "amsgrad": True})
    assert recipe_to_wire(recipe)["optimizer_options"] == {"amsgrad": True, "betas": [0.9, 0.95]}
    assert recipe_from_wire(recipe_to_wire(recipe)) == recipe
    assert hash(recipe) == hash(Recipe(optimizer_options=(("amsgrad", True), ("betas", (0.9, 0.95)))))
    assert "betas 0.9 0.95" in Attack(recipe).label


def test_the_natural_gradient_takes_whole_layers_and_leaves_the_rest_to_adamw():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))
    model[2].bias.requires_grad_(False)  # a layer trained in part
    natural, plain = build_optimizer("kfac", model, lr=1e-3, weight_decay=0.0).param_groups
    assert [id(p) for p in natural["params"]] == [id(p) for p in model[0].parameters()]
    assert [id(p) for p in plain["params"]] == [id(p) for p in (*model[1].parameters(), model[2].weight)]


def test_the_natural_gradient_of_a_wide_layer_stays_finite():
    """Many inputs that are alike: the largest eigenvalue of their covariance is as many times its largest entry."""
    torch.manual_seed(0)
    model = torch.nn.Linear(256, 2)
    rows = 1 + 0.1 * torch.randn(16, 256)
    optimizer = build_optimizer("kfac", model, lr=1e-6, weight_decay=0.0)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rows), torch.arange(16) % 2).backward()
        optimizer.step()
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize(("name", "lr"), [("kfac", 0.05), ("adadelta", 1.0)])
def test_it_learns(name, lr):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    rows = torch.randn(64, 4)
    labels = (rows[:, 0] > rows[:, 1]).long()
    optimizer = build_optimizer(name, model, lr=lr, weight_decay=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_more_iterations_of_lbfgs_are_more_evaluations():
    """torch limits evaluations too, by what it is made with."""

    def evaluations(options):
        model = torch.nn.Linear(8, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.arange(8.0)[None])
        optimizer = build_optimizer("lbfgs", model, lr=0.1, weight_decay=0.0, options=options)
        count = 0

        def closure():
            nonlocal count
            count += 1
            optimizer.zero_grad()
            loss = (model.weight**4 + model.weight.roll(1) ** 2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return count

    assert evaluations((("max_iter", 40),)) > 3 * evaluations(())
    assert evaluations((("max_iter", 4),)) == evaluations(())
