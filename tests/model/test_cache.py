"""The K/V cache is a value on shared storage: what one holds never changes, whoever continues it."""

from collections.abc import Callable

import pytest
import torch
from tiny_loops import STEPS, frames, make_model, make_runtime, see
from torch import Tensor

from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.inputs import Context, NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel

LATENT = (1, 24, 2, 2, 2)


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return make_model()


@pytest.fixture(scope="module")
def context(model: WorldActionModel) -> Context:
    with torch.no_grad():
        return model.embed_context(torch.ones(1, 6, 16))


@pytest.fixture
def observe(model: WorldActionModel, context: Context) -> Callable[..., KVCache]:
    def write(cache: KVCache | None, seed: int) -> KVCache:
        latent = torch.randn(LATENT, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return model.write_observation(latent[:, :, :1] if cache is None else latent, context, cache)

    return write


def held(cache: KVCache) -> Tensor:
    return torch.stack([*cache.keys, *cache.values]).clone()


def test_what_is_appended_goes_behind_in_the_same_storage(observe: Callable[..., KVCache]):
    first = observe(None, 0)
    before = held(first)
    second = observe(first, 1)
    assert second.storage is first.storage
    assert (first.frames, second.frames) == (1, 3)
    assert torch.equal(held(first), before)


def test_a_second_continuation_moves_away(observe: Callable[..., KVCache]):
    first = observe(None, 0)
    one = observe(first, 1)
    before = held(one)
    other = observe(first, 2)
    assert other.storage is not one.storage
    assert torch.equal(held(one), before)
    assert torch.equal(held(other), held(observe(observe(None, 0), 2)))


@pytest.mark.parametrize("preallocate", [True, False])
def test_room_is_taken_at_once_or_when_it_is_needed(model: WorldActionModel, context: Context, preallocate: bool):
    latent = torch.randn(LATENT)
    empty = model.new_cache(latent, preallocate)
    with torch.no_grad():
        first = model.write_observation(latent[:, :, :1], context, empty)
        second = model.write_observation(latent, context, first)
        plain = model.write_observation(latent, context, model.write_observation(latent[:, :, :1], context))
    assert (first.storage is empty.storage) == (second.storage is first.storage) == preallocate
    assert second.frames == 3
    assert torch.equal(held(second), held(plain))


def test_a_denoising_pass_leaves_the_cache_as_it_was(model: WorldActionModel):
    loop = make_runtime(model)
    session = loop.new_session(seed=0)
    loop.plan([session], [see(0)])
    assert session.branch is not None
    cache, before = session.branch.cache, held(session.branch.cache)
    for _ in range(2):
        loop.plan([session], [see(0)])  # a window of its own, in the same storage
        assert session.branch.cache.storage is cache.storage
        assert torch.equal(held(session.branch.cache), before)


def test_rows_share_storage_and_picked_rows_do_not(model: WorldActionModel):
    loop = make_runtime(model, guidance=2.0)
    session = loop.new_session(seed=0)
    loop.plan([session], [see(0)])
    assert session.branch is not None
    cache = session.branch.cache
    shared, own = cache.rows(slice(0, 1)), cache.pick(slice(0, 1))
    assert torch.equal(held(shared), held(own))
    cache.storage.kv.zero_()
    assert not held(shared).any()
    assert held(own).any()


def test_stacked_caches_are_those_of_a_batch(model: WorldActionModel):
    sessions = [make_runtime(model).new_session(seed) for seed in range(2)]
    for robot, session in enumerate(sessions):
        make_runtime(model).plan([session], [see(0, robot)])
    caches = [session.branch.cache for session in sessions if session.branch is not None]
    joined = KVCache.stack(caches)
    assert joined.storage.used == len(caches[0].layout)
    for row, cache in enumerate(caches):
        assert torch.equal(held(joined)[:, row : row + 1], held(cache))


def test_a_pass_can_be_differentiated_while_others_run(model: WorldActionModel, context: Context):
    """Real-time chunking pulls on the actions through the network: a later pass must not overwrite what it needs."""
    with torch.no_grad():
        cache = model.write_observation(make_runtime(model).video_codec.encode(frames([0])), context)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, STEPS, 4, generator=generator)
    video = torch.randn(LATENT, generator=generator)

    def velocity(action: Tensor) -> Tensor:
        times = torch.full((1, 2), 500.0), torch.full((1, STEPS), 500.0)
        summary = torch.zeros(1, 1, 32)
        state, category = torch.zeros(1, 1, 4), torch.zeros(1, dtype=torch.int64)
        window = NoisyWindow(video, times[0], action, times[1], state, category, summary=summary)
        return model.denoise(window, context, cache)[1]

    asked = noisy.clone().requires_grad_()
    answered = velocity(asked)
    with torch.no_grad():
        plain = velocity(noisy)
    torch.testing.assert_close(answered.detach(), plain, rtol=0, atol=1e-6)
    (slope,) = torch.autograd.grad(answered.sum(), asked)
    nudge = 1e-2 * torch.randn(noisy.shape, generator=generator)
    with torch.no_grad():
        measured = (velocity(noisy + nudge) - velocity(noisy - nudge)).sum() / 2
    torch.testing.assert_close((slope * nudge).sum(), measured, rtol=0.02, atol=1e-5)
