"""Strict reading of weights: every tensor accounted for, or a short error that names what does not fit."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_SHOWN = 5


def read_weights(path: str, expected: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the tensors of `expected`, in their shapes.

    A file with a weight average (`ema_model.*`) fits a policy that keeps none: the average, which acts, becomes the
    model. A file without one fits a policy that keeps one: the average starts from the model.

    Raises:
        ValueError: The file is damaged, or tensors are missing, unexpected or of another shape.
    """
    try:
        state = load_file(path, device=device)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): copy or download it again") from error
    averages = {k.removeprefix("ema_"): v for k, v in state.items() if k.startswith("ema_model.")}
    keeps_average = any(k.startswith("ema_model.") for k in expected)
    if averages and not keeps_average:
        state = {k: v for k, v in state.items() if not k.startswith("ema_model.")} | averages
    elif keeps_average and not averages:
        state |= {f"ema_{k}": v for k, v in state.items() if k.startswith("model.")}
    problems = [f"missing {k}" for k in expected.keys() - state.keys()]
    problems += [f"unexpected {k}" for k in state.keys() - expected.keys()]
    problems += [
        f"{k} is {list(state[k].shape)}, expected {list(expected[k].shape)}"
        for k in expected.keys() & state.keys()
        if state[k].shape != expected[k].shape
    ]
    if problems:
        raise ValueError(
            f"{path} does not fit the configuration in {len(problems)} tensors: "
            f"{'; '.join(sorted(problems)[:_SHOWN])}{' ...' if len(problems) > _SHOWN else ''}"
        )
    return state
