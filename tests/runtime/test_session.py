"""The closed loop without LeRobot: what is observed is remembered, what is imagined is not."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny_loops import CHUNKS, SIZE, STEPS, frames, make_model, make_runtime, run, same, see

from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Observation


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return make_model()


@pytest.fixture
def runtime(model: WorldActionModel) -> Callable[..., Runtime]:
    return partial(make_runtime, model)


def test_the_cache_holds_what_was_observed(runtime: Callable[..., Runtime], model: WorldActionModel):
    loop = runtime()
    session = loop.new_session(seed=0)
    run(loop, session, range(9))
    codec = loop.video_codec
    context = session.branch.context
    first = model.write_observation(codec.encode(frames([0])), context)
    both = model.write_observation(codec.encode(frames(range(9)))[:, :, 1:], context, first)
    assert session.branch.cache.frames == 3
    same(session.branch.cache, both)
    imagined = model.write_observation(session.dream.latents[None], context, first)
    assert not torch.allclose(imagined.keys[-1], both.keys[-1], atol=1e-2)


def test_imagination_leaves_no_trace(runtime: Callable[..., Runtime]):
    """Two robots that see the same and dream differently remember the same."""
    loop = runtime()
    sessions = [loop.new_session(seed) for seed in (0, 1)]
    for session in sessions:
        run(loop, session, range(17))
    assert not torch.equal(sessions[0].dream.latents, sessions[1].dream.latents)
    same(sessions[0].branch.cache, sessions[1].branch.cache, tolerance=0)


def test_guidance_remembers_on_both_branches(runtime: Callable[..., Runtime]):
    loop = runtime(guidance=2.0, solver="unipc")
    session = loop.new_session(seed=0)
    run(loop, session, range(9))
    positive, negative = session.branch.cache.values[-1]
    assert session.branch.cache.frames == 3
    assert not torch.equal(positive, negative)


def test_a_full_window_starts_again_on_the_newest_frame(runtime: Callable[..., Runtime], model: WorldActionModel):
    loop = runtime()
    session = loop.new_session(seed=0)
    seen = []
    for step in range(STEPS * (CHUNKS + 2)):
        run(loop, session, [step])
        if step % STEPS == 0:
            seen.append((session.branch.cache.frames, session.dream.starts_window))
    assert seen == [(1, True), (3, False), (5, False), (1, True), (3, False)]
    latent = loop.video_codec.encode(frames([STEPS * CHUNKS]))
    after_restart = model.write_observation(latent, session.branch.context)
    assert torch.allclose(session.branch.cache.keys[0][:, : after_restart.keys[0].shape[1]], after_restart.keys[0])


def test_a_new_task_ends_the_chunk_and_the_window(runtime: Callable[..., Runtime]):
    loop = runtime()
    session = loop.new_session(seed=0)
    run(loop, session, range(11))
    assert (session.chunks, len(session.queue)) == (2, 5)
    run(loop, session, [11], task="touch blue")
    assert (session.chunks, len(session.queue)) == (3, 7)
    assert session.dream.starts_window
    assert session.branch.cache.frames == 1
    run(loop, session, range(12, 20), task="touch blue")
    assert (session.chunks, session.branch.cache.frames) == (4, 3)


@pytest.mark.parametrize("executed", [1, 4, 7])
def test_part_of_a_chunk_starts_the_window_again(runtime: Callable[..., Runtime], executed: int):
    """Only whole observed blocks may enter the cache."""
    loop = runtime(execute_steps=executed)
    session = loop.new_session(seed=0)
    for step in range(2 * executed + 1):
        run(loop, session, [step])
        assert session.branch.cache.frames == 1
        assert session.dream.starts_window
    assert session.chunks == 3


def test_every_stride_th_frame_is_remembered(model: WorldActionModel, runtime: Callable[..., Runtime]):
    """A chunk of 8 actions at stride 1 or, were the model one of 16 actions, frames 0, 2, 4, ... at stride 2."""
    loop = runtime(stride=2)
    loop.chunk_steps = loop.execute_steps = 16
    session = loop.new_session(seed=0)
    session.queue = [torch.zeros(2)] * 16
    session.task = "push red"
    run(loop, session, range(16))
    assert len(session.frames) == 8
    assert all(torch.equal(kept, see(2 * i).frame) for i, kept in enumerate(session.frames))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_batch_equals_single_runs(runtime: Callable[..., Runtime], guidance: float):
    """Three robots; the second is told something new at step 3, so it stands elsewhere in its window from then on."""
    loop = runtime(guidance=guidance)

    def task(robot: int, step: int) -> str:
        return ("push red", "touch blue" if step >= 3 else "push red", "push green")[robot]

    together = [loop.new_session(seed) for seed in range(3)]
    alone = [loop.new_session(seed) for seed in range(3)]
    places = set()
    for step in range(20):
        seen = [see(step, robot, task(robot, step)) for robot in range(3)]
        batch = loop.act(together, seen)
        single = [loop.act([session], [what])[0] for session, what in zip(alone, seen, strict=True)]
        torch.testing.assert_close(torch.stack(batch), torch.stack(single), rtol=0, atol=1e-5)
        places.add(tuple(session.branch.cache.frames for session in together))
    assert places == {(1, 1, 1), (3, 1, 3), (3, 3, 3), (5, 3, 5), (5, 5, 5)}
    for one, other in zip(together, alone, strict=True):
        same(one.branch.cache, other.branch.cache)


def test_sessions_share_no_storage(runtime: Callable[..., Runtime]):
    loop = runtime()
    sessions = [loop.new_session(seed) for seed in range(2)]
    for step in range(9):
        loop.act(sessions, [see(step, robot) for robot in range(2)])
    before = sessions[0].branch.cache.keys[0].clone()
    sessions[1].branch.cache.keys[0].zero_()
    assert torch.equal(sessions[0].branch.cache.keys[0], before)


def test_given_actions_are_simulated_and_given_video_is_labelled(runtime: Callable[..., Runtime]):
    loop = runtime()
    dream = loop.plan([loop.new_session(0)], [see(0)])[0]
    given = torch.rand(STEPS, 2) * 0.1 + see(0).state
    simulated = loop.plan([loop.new_session(0)], [see(0)], given_action=[given])[0]
    torch.testing.assert_close(simulated.actions, given)
    assert not torch.equal(simulated.latents, dream.latents)
    latents = loop.video_codec.encode(frames(range(9)))[0, :, 1:]
    labelled = loop.plan([loop.new_session(0)], [see(0)], given_latents=[latents])[0]
    assert torch.equal(labelled.latents, latents)
    assert not torch.equal(labelled.actions, dream.actions)


def test_imagined_frames_follow_the_anchor(runtime: Callable[..., Runtime]):
    loop = runtime()
    dream = loop.plan([loop.new_session(0)], [see(0)])[0]
    video = loop.imagine(dream)
    assert video.shape == (8, 3, SIZE, SIZE)
    assert video.abs().max() <= 1


def test_actions_are_anchored_at_the_chunks_first_state(runtime: Callable[..., Runtime]):
    """Every action of a chunk is relative to where the robot was when the chunk began, not to where it is now."""
    loop = runtime()
    session = loop.new_session(seed=0)
    actions = run(loop, session, range(STEPS))
    torch.testing.assert_close(actions, session.dream.actions)
    moved = Observation(see(0).frame, see(0).state + 5.0, "push red")
    again = loop.plan([loop.new_session(0)], [moved])[0]
    torch.testing.assert_close(loop.plan([loop.new_session(0)], [see(0)])[0].actions, actions)
    assert (again.actions - actions).mean() == pytest.approx(5.0, abs=1.0)  # the state token is clipped, too


def test_cached_denoising_equals_the_training_forward(runtime: Callable[..., Runtime], model: WorldActionModel):
    """With the state masked to itself: chunk by chunk over the session's cache = all at once with teacher forcing."""
    assert model.config.state_self_only
    loop = runtime()
    session = loop.new_session(seed=0)
    total = 1 + 2 * CHUNKS
    generator = torch.Generator().manual_seed(1)
    clean = loop.video_codec.encode(frames(range(1 + STEPS * CHUNKS)))
    noisy = NoisyWindow(
        video=torch.randn(1, 24, total - 1, 2, 2, generator=generator),
        video_timestep=torch.tensor([[900.0, 900.0, 300.0, 300.0, 20.0, 20.0]]),
        action=torch.randn(1, STEPS * CHUNKS, 4, generator=generator),
        action_timestep=torch.tensor([900.0, 300.0, 20.0]).repeat_interleave(STEPS)[None],
        state=torch.randn(1, CHUNKS, 4, generator=generator),
        category=torch.zeros(1, dtype=torch.int64),
    )
    video, action = [], []
    for chunk in range(CHUNKS):
        run(loop, session, range(STEPS * chunk, STEPS * chunk + 1))
        branch = session.branch
        assert branch.cache.frames == 1 + 2 * chunk
        f, a = slice(2 * chunk, 2 * chunk + 2), slice(STEPS * chunk, STEPS * (chunk + 1))
        state = noisy.state[:, chunk : chunk + 1]
        summary = model.summarise(see(STEPS * chunk).frame[None, None], state, noisy.category, branch.context)
        part = NoisyWindow(
            noisy.video[:, :, f],
            noisy.video_timestep[:, f],
            noisy.action[:, a],
            noisy.action_timestep[:, a],
            state,
            noisy.category,
            summary=summary,
        )
        for outputs, output in zip((video, action), model.denoise(part, branch.context, branch.cache), strict=True):
            outputs.append(output)
        run(loop, session, range(STEPS * chunk + 1, STEPS * (chunk + 1)))
    context = session.branch.context
    anchors = torch.stack([see(STEPS * chunk).frame for chunk in range(CHUNKS)])[None]
    window = NoisyWindow(**{**vars(noisy), "summary": model.summarise(anchors, noisy.state, noisy.category, context)})
    full_video, full_action = model(window, clean[:, :, : total - 2], context)
    torch.testing.assert_close(torch.cat(video, dim=2), full_video, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(action, dim=1), full_action, rtol=0, atol=1e-5)
