"""What a pass costs: counted from shapes as torch counts it when it runs, and the sizes of the large presets."""

import pytest
import torch
from tiny_loops import make_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lerobot_wam.bench.cost import Cost, PassShape, pass_cost
from lerobot_wam.bench.roofline import Roofline, measure_roofline
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.model.inputs import Context, NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel

ROWS, CELLS, WORDS, PATCHES = 2, 4, 6, 5
WAN_14B = WAMConfig(preset="wan2.1-14b", device="cpu").model_config


def tiny(**overrides: object) -> WorldActionModel:
    sizes = {"visual_summary": None, "image_dim": 3, "condition_channels": 4, "patch": (1, 2, 2)}
    return make_model(**(sizes | overrides))


def context_of(model: WorldActionModel, remembered: bool) -> Context:
    context = model.embed_context(torch.randn(ROWS, WORDS, 16), torch.randn(ROWS, PATCHES, 3))
    return model.remember(context) if remembered else context


def run_pass(model: WorldActionModel, past: int, observed: int, noisy: bool, remembered: bool) -> int:
    """FLOP that torch counts in one pass."""
    context, channels = context_of(model, remembered), model.config.latent_channels
    latents = {n: torch.randn(ROWS, channels, n, 4, 4) for n in (1, 2)}
    extra = {n: torch.randn(ROWS, 4, n, 4, 4) for n in (1, 2)}
    cache = model.new_cache(latents[1])
    for _ in range(past // 2 + past % 2):
        frames = 1 if not cache.frames else 2
        cache = model.write_observation(latents[frames], context, cache, extra[frames])
    window = NoisyWindow(
        video=latents[2],
        video_timestep=torch.full((ROWS, 2), 500.0),
        action=torch.randn(ROWS, 8, 4),
        action_timestep=torch.full((ROWS, 8), 500.0),
        state=torch.randn(ROWS, 1, 4),
        category=torch.zeros(ROWS, dtype=torch.int64),
        condition=extra[2],
    )
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        if not noisy:
            model.observe(latents[observed], context, cache, extra[observed])
        elif observed:
            model.denoise(window, context, cache, latents[observed], extra[observed])
        else:
            model.denoise(window, context, cache)
    return counter.get_total_flops()


@pytest.mark.parametrize("state_self_only", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize(
    ("past", "observed", "noisy"),
    [(0, 1, False), (3, 2, False), (1, 0, True), (3, 0, True), (0, 1, True), (3, 2, True)],
)
def test_flops_are_those_that_torch_counts(
    past: int, observed: int, noisy: bool, remembered: bool, state_self_only: bool
):
    model = tiny(state_self_only=state_self_only)
    shape = PassShape(CELLS, past, observed, noisy, WORDS + PATCHES, remembered, ROWS)
    assert pass_cost(model.config, shape).flops == run_pass(model, past, observed, noisy, remembered)


@pytest.mark.parametrize(("past", "tera"), [(1, 48), (7, 56)])
def test_a_denoising_pass_of_the_14b_model(past: int, tera: float):
    """1,785 tokens behind the first frame, and at the end of a window of four chunks."""
    cost = pass_cost(WAN_14B, PassShape(880, past, 0, True, 512 + 257))
    assert cost.flops == pytest.approx(tera * 1e12, rel=0.02)


def test_bytes_are_the_weights_once_and_the_cache_for_every_row():
    model = tiny()
    config, blocks = model.config, model.blocks.state_dict()
    unread = ("cross_attn.k", "cross_attn.v")  # of what is remembered
    matrices = sum(w.numel() for name, w in blocks.items() if w.ndim == 2 and not any(u in name for u in unread))
    one, two = (PassShape(CELLS, past=3, observed=0, noisy=True, context=11, rows=rows) for rows in (1, 2))
    cached = 2 * config.num_layers * config.dim * (3 * CELLS + 11)
    assert pass_cost(config, two).bytes - pass_cost(config, one).bytes == 2 * cached
    halved = pass_cost(config, one, weight_bytes=1).bytes
    assert pass_cost(config, one, weight_bytes=2).bytes - halved == matrices


def test_the_roofline_is_the_slower_of_computing_and_reading():
    roofline = Roofline(flops=100.0, bandwidth=10.0)
    assert roofline.seconds(Cost(flops=500.0, bytes=20.0)) == 5.0
    assert roofline.seconds(Cost(flops=500.0, bytes=20.0) + Cost(flops=0.0, bytes=80.0)) == 10.0


def test_the_roofline_of_this_machine_is_measured():
    roofline = measure_roofline(torch.device("cpu"), torch.float32)
    assert 1e8 < roofline.flops < 1e15
    assert 1e8 < roofline.bandwidth < 1e14
