"""The small presets' training recipe: Muon for the blocks' matrices, AdamW for the rest, and their schedule.

LeRobot knows both configs, as ``--optimizer.type=muon_adamw`` and ``--scheduler.type=flat_then_linear``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

ParamGroup = dict[str, Any]


class MuonAdamW(Optimizer):
    """One optimizer whose parameter groups each follow torch's `Muon` or torch's `AdamW`.

    The two live inside and work on this object's own groups and state, so a learning-rate schedule, gradient
    clipping, ``state_dict`` and ``load_state_dict`` see a single ordinary optimizer. `Muon` runs with
    ``match_rms_adamw``: its orthogonalised update is scaled by 0.2 * sqrt(max(rows, columns)), which gives it
    the size of an AdamW update.

    Args:
        groups: Parameter groups, each with a boolean ``use_muon``; Muon's hold matrices only. A group may set
            its own ``lr``, ``weight_decay`` or any other option of its rule.
        muon: Options of `torch.optim.Muon` for the groups that do not set them.
        adamw: Options of `torch.optim.AdamW`, likewise.
    """

    def __init__(self, groups: Iterable[ParamGroup], muon: Mapping[str, Any], adamw: Mapping[str, Any]) -> None:
        super().__init__([dict(group) for group in groups], {"use_muon": None})
        for group in self.param_groups:
            if not isinstance(group["use_muon"], bool):
                raise ValueError(
                    f"a parameter group has use_muon={group['use_muon']!r}, expected True or False: "
                    "build the groups with split_parameters()"
                )
        # Each rule fills its defaults into the groups it is given: they are the same dict objects as ours.
        self._rules: dict[bool, Optimizer] = {}
        if muon_groups := [group for group in self.param_groups if group["use_muon"]]:
            self._rules[True] = Muon(muon_groups, adjust_lr_fn="match_rms_adamw", **muon)
        if adamw_groups := [group for group in self.param_groups if not group["use_muon"]]:
            self._rules[False] = AdamW(adamw_groups, **adamw)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every group by its rule; return the closure's loss where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for use_muon, rule in self._rules.items():
            # Shared again at every step: load_state_dict and accelerate's prepare put new objects in place.
            rule.state = self.state
            rule.param_groups = [group for group in self.param_groups if group["use_muon"] is use_muon]
            rule.step()
        return loss


def split_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter | Tensor]], muon_modules: Iterable[str] = ("blocks.",)
) -> list[ParamGroup]:
    """Sort trainable parameters into a Muon group and an AdamW group, each left out where it would be empty.

    Args:
        named_parameters: As `torch.nn.Module.named_parameters` gives them.
        muon_modules: A matrix goes to Muon when its name contains one of these. The factors of LoRA adapters never
            do: their product is the update, and orthogonalising each of the two is not orthogonalising that.

    Returns:
        Parameter groups for `MuonAdamW`, in the order of ``named_parameters``.
    """
    patterns = tuple(muon_modules)
    chosen: dict[bool, list[nn.Parameter | Tensor]] = {True: [], False: []}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and ".lora_" not in name
            chosen[is_matrix and any(part in name for part in patterns)].append(parameter)
    return [{"params": params, "use_muon": use_muon} for use_muon, params in chosen.items() if params]


@OptimizerConfig.register_subclass("muon_adamw")
@dataclass
class MuonAdamWConfig(OptimizerConfig):
    """Options of `MuonAdamW`.

    Attributes:
        lr: Learning rate of the Muon groups.
        adamw_lr: Learning rate of the AdamW groups; None takes ``lr``.
        weight_decay: Decoupled weight decay of all groups, per unit of learning rate.
        grad_clip_norm: LeRobot clips the gradient's global norm to this; 0 turns clipping off.
        momentum: Muon's momentum, in Nesterov's form.
        ns_steps: Newton-Schulz iterations per Muon update.
        betas: AdamW's decay rates of the gradient's first and second moment.
        eps: AdamW's denominator offset.
        muon_modules: Matrices whose parameter name contains one of these go to Muon, except LoRA's.
    """

    lr: float = 3e-3
    adamw_lr: float | None = 2e-3
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0
    momentum: float = 0.95
    ns_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    muon_modules: tuple[str, ...] = ("blocks.", "visual_summary.")

    def build(self, params: Any) -> MuonAdamW:
        """Build the optimizer.

        Args:
            params: Named parameters as a dict, split by name here, or groups that carry ``use_muon``.

        Raises:
            TypeError: ``params`` has no names to split by.
        """
        if isinstance(params, Mapping):
            groups = split_parameters(params.items(), self.muon_modules)
        else:
            groups = list(params)
            if nameless := [type(group).__name__ for group in groups if not isinstance(group, dict)]:
                raise TypeError(
                    f"muon_adamw got a bare {nameless[0]}, expected named parameters or groups: "
                    "return dict(self.named_parameters()) from get_optim_params"
                )
        adamw_lr = self.lr if self.adamw_lr is None else self.adamw_lr
        return MuonAdamW(
            groups,
            muon={
                "lr": self.lr,
                "weight_decay": self.weight_decay,
                "momentum": self.momentum,
                "ns_steps": self.ns_steps,
            },
            adamw={
                "lr": adamw_lr,
                "weight_decay": self.weight_decay,
                "betas": tuple(self.betas),
                "eps": self.eps,
            },
        )


def parameter_groups(
    named: Mapping[str, nn.Parameter], heads: Collection[str], heads_lr: float | None, muon: bool
) -> Mapping[str, nn.Parameter] | list[ParamGroup]:
    """Sort a policy's parameters: all but matrices, and the weights of single robots, do not decay.

    Args:
        named: Trainable parameters by name.
        heads: Names of the weights of single robots.
        heads_lr: Their learning rate; None is that of the others.
        muon: For `MuonAdamWConfig`, else for AdamW.

    Returns:
        Groups; for Muon without a rate of the heads' own the parameters themselves, which it sorts by name.
    """
    own_rate = {} if heads_lr is None else {"lr": heads_lr}
    robots = [parameter for name, parameter in named.items() if name in heads]
    trunk = {name: parameter for name, parameter in named.items() if name not in heads}
    if muon:
        if not own_rate:
            return named
        groups = split_parameters(trunk.items(), MuonAdamWConfig().muon_modules)
        groups.append({"params": robots, "use_muon": False, **own_rate})
    else:
        groups = [
            {"params": [p for p in trunk.values() if p.ndim > 1]},
            {"params": [p for p in trunk.values() if p.ndim <= 1], "weight_decay": 0.0},
            {"params": robots, "weight_decay": 0.0, **own_rate},
        ]
    return [group for group in groups if group["params"]]


@LRSchedulerConfig.register_subclass("flat_then_linear")
@dataclass
class FlatThenLinearSchedulerConfig(LRSchedulerConfig):
    """Warm up linearly, stay flat, then fall linearly to the end of the run.

    Attributes:
        num_warmup_steps: Steps from 1/num_warmup_steps of the rate up to the whole of it.
        flat_fraction: Part of the run, warm-up included, after which the rate begins to fall (0 to 1).
        end_factor: Factor on the rate at the last step of the run.
        total_steps: Length of the run; None takes ``--steps``. Set it when a run is to be continued past its
            ``--steps``: the rate then does not depend on where the first part stopped.
    """

    num_warmup_steps: int | None = 60
    flat_fraction: float = 0.3
    end_factor: float = 0.02
    total_steps: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.flat_fraction <= 1 and 0 <= self.end_factor <= 1):
            raise ValueError(
                f"flat_fraction is {self.flat_fraction} and end_factor is {self.end_factor}, "
                "expected both between 0 and 1"
            )

    def factor(self, step: int, num_training_steps: int) -> float:
        """The factor on every group's learning rate for update number ``step``, counted from 0."""
        total = self.total_steps or num_training_steps
        warmup = min(self.num_warmup_steps or 0, total)
        if step < warmup:
            return (step + 1) / warmup
        last = total - 1
        fall_from = max(warmup, self.flat_fraction * total)
        if step < fall_from:
            return 1.0
        fallen = min(1.0, (step - fall_from) / (last - fall_from)) if last > fall_from else 1.0
        return 1.0 + fallen * (self.end_factor - 1.0)

    def build(self, optimizer: Optimizer, num_training_steps: int) -> LambdaLR:
        """The schedule on all of ``optimizer``'s groups."""
        return LambdaLR(optimizer, lambda step: self.factor(step, num_training_steps))
