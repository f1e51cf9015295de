"""Muon and AdamW as one optimizer: the same numbers as torch's own two, through LeRobot's save and load."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from lerobot.optim.optimizers import OptimizerConfig, load_optimizer_state, save_optimizer_state
from lerobot.optim.schedulers import LRSchedulerConfig, load_scheduler_state, save_scheduler_state
from torch import nn

from lerobot_wam.optimizer import FlatThenLinearSchedulerConfig, MuonAdamWConfig, split_parameters

CONFIG = MuonAdamWConfig(lr=3e-3, adamw_lr=2e-3, weight_decay=0.01)
SCHEDULE = FlatThenLinearSchedulerConfig(num_warmup_steps=2, flat_fraction=0.4, end_factor=0.1)


class Net(nn.Module):
    """A block with two matrices and a bias, between layers that are not Muon's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8, bias=False))])
        self.head = nn.Linear(8, 2)

    def forward(self, x_BI: torch.Tensor) -> torch.Tensor:
        """Map (B, 3) to (B, 2)."""
        return self.head(self.blocks[0](self.stem(x_BI)))


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def set_gradients(net: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x_BI, y_BO = torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)
    net.zero_grad()
    (net(x_BI) - y_BO).square().mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)


def assert_equal(left: nn.Module, right: nn.Module) -> None:
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_split_takes_trainable_matrices_of_the_blocks():
    net = make_net()
    net.blocks[0][2].requires_grad_(False)
    muon, adamw = split_parameters(net.named_parameters())
    assert [p is net.blocks[0][0].weight for p in muon["params"]] == [True]
    assert (muon["use_muon"], adamw["use_muon"], len(adamw["params"])) == (True, False, 5)
    assert [g["use_muon"] for g in split_parameters(net.named_parameters(), ())] == [False]
    adapters = {"blocks.0.q.lora_A.default.weight": nn.Parameter(torch.zeros(2, 8))}
    assert [g["use_muon"] for g in split_parameters(adapters.items())] == [False]


def test_equals_torchs_two_optimizers_step_by_step():
    ours, theirs = make_net(), make_net()
    optimizer = CONFIG.build(dict(ours.named_parameters()))
    muon_group, adamw_group = split_parameters(theirs.named_parameters())
    muon = torch.optim.Muon(muon_group["params"], lr=3e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(adamw_group["params"], lr=2e-3, weight_decay=0.01, betas=(0.9, 0.95))
    for step in range(4):
        for net in (ours, theirs):
            set_gradients(net, step)
        optimizer.step()
        muon.step()
        adamw.step()
        assert_equal(ours, theirs)


def test_muon_update_has_the_size_of_an_adamw_update():
    matrix = nn.Parameter(torch.zeros(64, 32))
    matrix.grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    MuonAdamWConfig(lr=1.0).build([{"params": [matrix], "use_muon": True}]).step()
    assert 0.1 < matrix.square().mean().sqrt() < 0.3  # orthogonal: 1 / sqrt(max dim), times .2 * sqrt(max dim)


def test_2n_steps_equal_n_steps_saved_loaded_and_n_more(tmp_path: Path):
    def start() -> tuple[Net, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        net = make_net()
        optimizer = CONFIG.build(dict(net.named_parameters()))
        return net, optimizer, SCHEDULE.build(optimizer, 10)

    def run(net, optimizer, scheduler, steps) -> None:
        for step in steps:
            set_gradients(net, step)
            optimizer.step()
            scheduler.step()

    whole = start()
    run(*whole, range(10))
    first = start()
    run(*first, range(5))
    save_optimizer_state(first[1], tmp_path)
    save_scheduler_state(first[2], tmp_path)

    net, optimizer, scheduler = start()
    net.load_state_dict(copy.deepcopy(first[0].state_dict()))
    load_optimizer_state(optimizer, tmp_path)
    load_scheduler_state(scheduler, tmp_path)
    run(net, optimizer, scheduler, range(5, 10))

    assert_equal(net, whole[0])
    for ours, theirs in zip(
        optimizer.state_dict()["state"].values(), whole[1].state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs | ours)
    assert optimizer.state_dict()["param_groups"] == whole[1].state_dict()["param_groups"]
    assert scheduler.state_dict() == whole[2].state_dict()


def test_steps_alike_under_accelerate():
    plain, prepared = make_net(), make_net()
    optimizer = CONFIG.build(dict(plain.named_parameters()))
    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
    wrapped = CONFIG.build(dict(prepared.named_parameters()))
    prepared, wrapped, scheduler = accelerator.prepare(prepared, wrapped, SCHEDULE.build(wrapped, 4))
    schedule = SCHEDULE.build(optimizer, 4)
    for step in range(4):
        set_gradients(plain, step)
        set_gradients(prepared, step)
        for each in (optimizer, schedule, wrapped, scheduler):
            each.step()
    assert_equal(plain, prepared)


def test_parameters_without_names_are_refused():
    net = make_net()
    with pytest.raises(TypeError, match="named_parameters"):
        CONFIG.build(net.parameters())
    with pytest.raises(ValueError, match="split_parameters"):
        CONFIG.build([{"params": list(net.parameters())}])


def test_registered_with_lerobot():
    assert OptimizerConfig.get_choice_class("muon_adamw") is MuonAdamWConfig
    assert LRSchedulerConfig.get_choice_class("flat_then_linear") is FlatThenLinearSchedulerConfig


def test_schedule_warms_up_stays_flat_and_falls():
    factors = [SCHEDULE.factor(step, 10) for step in range(12)]
    assert factors[:5] == pytest.approx([0.5, 1, 1, 1, 1])
    assert factors[9:] == pytest.approx([0.1, 0.1, 0.1])
    assert all(a > b for a, b in pairwise(factors[4:10]))
    pinned = FlatThenLinearSchedulerConfig(num_warmup_steps=2, total_steps=10)
    assert pinned.factor(7, 5) == pinned.factor(7, 10)
    with pytest.raises(ValueError, match="between 0 and 1"):
        FlatThenLinearSchedulerConfig(flat_fraction=30)
