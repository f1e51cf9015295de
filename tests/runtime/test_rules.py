"""Windows that slide, restart, are conditioned on their first frame, or are fed as the official server is."""

from typing import Any

import pytest
import torch
from tiny_loops import CHUNKS, STEPS, frames, make_model, make_runtime, run, same, see

from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import LoopRules, Savings, Session

OFFICIAL = LoopRules(restart_frame="official", noise_stream="fixed", padded_actions="noise")
SLIDE = LoopRules(window_full="slide")
CONDITIONED: dict[str, Any] = {"condition_channels": 4 + 24, "image_dim": 3, "visual_summary": None}


def rewritten(runtime: Runtime, session: Session, blocks: list[range], first: int) -> KVCache:
    """The cache of a window that starts at step `first` and holds nothing but these blocks."""
    context = session.branch.context
    cache = runtime.model.write_observation(runtime.video_codec.encode(frames([first])), context)
    for block in blocks:
        latent = runtime.video_codec.encode(frames(block))[:, :, 1:]
        cache = runtime.model.write_observation(latent, context, cache)
    return cache


def block(chunk: int) -> range:
    return range(STEPS * chunk, STEPS * (chunk + 1) + 1)


@pytest.mark.parametrize("absolute_positions", [False, True])
def test_sliding_is_exact_where_nothing_was_mixed(absolute_positions: bool):
    """The first layer's keys and values hold no context: turned back by a chunk, they equal a window without it."""
    loop = make_runtime(make_model(absolute_positions=absolute_positions), rules=SLIDE)
    session = loop.new_session(seed=0)
    held = []
    for step in range(STEPS * (CHUNKS + 2) + 1):
        run(loop, session, [step])
        if step % STEPS == 0:
            held.append((session.branch.cache.frames, session.dream.starts_window))
    assert held == [(1, True), (3, False), (5, False), (5, False), (5, False), (5, False)]
    slid = session.branch.cache
    fresh = rewritten(loop, session, [block(CHUNKS), block(CHUNKS + 1)], first=0)
    assert slid.layout.position.tolist() == fresh.layout.position.tolist()
    assert slid.layout.block.tolist() == fresh.layout.block.tolist()
    torch.testing.assert_close(slid.keys[0], fresh.keys[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(slid.values[0], fresh.values[0], rtol=0, atol=1e-5)
    # Deeper layers have read the dropped chunks; that is what makes it an approximation.
    assert not torch.allclose(slid.values[1], fresh.values[1], atol=1e-4)


def test_sliding_a_window_of_one_chunk_restarts_it():
    loop = make_runtime(make_model(max_chunks=1), rules=SLIDE)
    session = loop.new_session(seed=0)
    run(loop, session, range(STEPS + 1))
    assert session.dream.starts_window
    assert session.branch.cache.frames == 1


@pytest.mark.parametrize("fused", [True, False])
def test_every_call_carries_the_first_frames_conditioning(fused: bool):
    """Frame 0, each observed block and each chunk get the channels of their own place in the window."""
    loop = make_runtime(make_model(**CONDITIONED), savings=Savings(fuse_observation=fused))
    session, seen = loop.new_session(seed=0), []
    loop.model.patch_embedding.register_forward_pre_hook(lambda _m, args: seen.append(args[0][:, 24:]))
    run(loop, session, range(STEPS + 1))
    expected = loop.video_codec.condition(see(0).frame[None], 1 + 2 * CHUNKS)
    places = []
    for observed, chunk in ((slice(0, 1), slice(1, 3)), (slice(1, 3), slice(3, 5))):
        places += [chunk, observed] if fused else [observed, chunk]  # one pass embeds both, the chunk first
        places += (loop.sampler.steps - 1) * [chunk]
    assert len(seen) == len(places)
    for channels, place in zip(seen, places, strict=True):
        torch.testing.assert_close(channels, expected[:, :, place])
    run(loop, session, [STEPS + 1], task="touch blue")  # a new window is conditioned anew
    torch.testing.assert_close(seen[-1], loop.video_codec.condition(see(STEPS + 1).frame[None], 3)[:, :, 1:])


@pytest.mark.parametrize("stream", ["session", "fixed"])
def test_noise_of_successive_chunks(stream: Any):
    loop = make_runtime(make_model(), rules=LoopRules(noise_stream=stream))
    session = loop.new_session(seed=5)
    first, second = (loop.plan_frames([session], [see(0).frame[None]], [see(0).state], ["push"])[0] for _ in range(2))
    assert torch.equal(first.latents, second.latents) == (stream == "fixed")
    again = loop.plan_frames([loop.new_session(seed=5)], [see(0).frame[None]], [see(0).state], ["push"])[0]
    assert torch.equal(first.latents, again.latents)


@pytest.mark.parametrize("padding", ["zero", "noise"])
def test_what_the_network_is_shown_in_dimensions_that_a_robot_lacks(padding: Any):
    model, seen = make_model(), []
    loop = make_runtime(model, rules=LoopRules(padded_actions=padding))
    model.action_encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0][..., 2:]))
    run(loop, loop.new_session(seed=0), [0])
    assert len(seen) == loop.sampler.steps
    assert all(bool(padded.any()) == (padding == "noise") for padded in seen)


def call(loop: Runtime, session: Session, steps: range) -> Any:
    clip = torch.stack([see(step).frame for step in steps])
    return loop.plan_frames([session], [clip], [see(steps[-1]).state], ["push red"])[0]


@pytest.mark.parametrize(("rules", "begins_with"), [(LoopRules(), 0), (OFFICIAL, 1)], ids=["newest", "official"])
def test_calls_of_eight_frames_are_what_acting_does(rules: LoopRules, begins_with: int):
    """Called with the frames since the last call, or step by step: the same loop, in both sets of rules."""
    model = make_model()
    loop = make_runtime(model, rules=rules)
    called, stepped = loop.new_session(seed=0), loop.new_session(seed=0)
    for chunk in range(CHUNKS + 1):
        first = STEPS * (chunk - 1)
        dream = call(loop, called, range(first + 1, first + STEPS + 1) if chunk else range(1))
        run(loop, stepped, range(first + 1, first + STEPS + 1) if chunk else range(1))
        same(called.branch.cache, stepped.branch.cache, tolerance=0)
        torch.testing.assert_close(dream.actions, stepped.dream.actions, rtol=0, atol=0)
        if chunk == 1:  # a block begins with the frame before it, or with a copy of its own first
            pixels = frames([begins_with, *range(1, STEPS + 1)])
            latent, context = loop.video_codec.encode(pixels)[:, :, 1:], called.branch.context
            start = model.write_observation(loop.video_codec.encode(frames([0])), context)
            same(called.branch.cache, model.write_observation(latent, context, start))


@pytest.mark.parametrize(
    ("rules", "length", "conditioned_on"),
    [(LoopRules(), 8, 8), (LoopRules(), 4, 4), (OFFICIAL, 8, 1), (OFFICIAL, 4, 4), (OFFICIAL, 9, 9), (OFFICIAL, 1, 1)],
)
def test_which_frame_a_full_window_restarts_on(rules: LoopRules, length: int, conditioned_on: int):
    loop = make_runtime(make_model(), rules=rules)
    session = loop.new_session(seed=0)
    call(loop, session, range(1))
    for _ in range(CHUNKS - 1):
        assert not call(loop, session, range(1, 9)).starts_window
    dream = call(loop, session, range(1, length + 1))
    assert dream.starts_window
    assert torch.equal(dream.anchor_frame, see(conditioned_on).frame)


def test_four_frames_are_shown_twice_each():
    loop = make_runtime(make_model(), rules=OFFICIAL)
    session = loop.new_session(seed=0)
    call(loop, session, range(1))
    call(loop, session, range(1, 5))
    shown = torch.stack([see(step).frame for step in (1, 1, 1, 2, 2, 3, 3, 4, 4)], dim=1)[None]
    latent, context = loop.video_codec.encode(shown)[:, :, 1:], session.branch.context
    start = loop.model.write_observation(loop.video_codec.encode(frames([0])), context)
    same(session.branch.cache, loop.model.write_observation(latent, context, start))


def test_other_numbers_of_frames_are_refused():
    loop = make_runtime(make_model())
    with pytest.raises(ValueError, match="3 frames in one call; expected 1, 4, 8 or 9"):
        call(loop, loop.new_session(seed=0), range(3))


@pytest.mark.parametrize("rules", [LoopRules(), SLIDE, OFFICIAL], ids=["ours", "slide", "official"])
@pytest.mark.parametrize("conditioned", [False, True])
def test_robots_of_any_history_are_computed_together(rules: LoopRules, conditioned: bool):
    """Four robots with tasks and episodes of their own: the batch equals single runs, guidance and skipping included.

    Robot 1 starts a new episode at step 5 and 30, robot 2 is told something new at step 11, robot 3 ends at step 20.
    """
    loop = make_runtime(
        make_model(**(CONDITIONED if conditioned else {})),
        rules=rules,
        solver="unipc",
        steps=16,
        guidance=3.0,
        computed_steps="dynamic",
    )
    tasks = ["push red", "push red", "touch blue", "push green"]
    together = [loop.new_session(seed) for seed in range(4)]
    alone = [loop.new_session(seed) for seed in range(4)]
    places = set()
    for step in range(4 * STEPS + 2):
        if step in (5, 30):
            together[1], alone[1] = loop.new_session(7 + step), loop.new_session(7 + step)
        if step == 11:
            tasks[2] = "touch yellow"
        robots = range(4 if step < 20 else 3)
        seen = [see(step, robot, tasks[robot]) for robot in robots]
        batch = loop.act([together[robot] for robot in robots], seen)
        single = [loop.act([alone[robot]], [what])[0] for robot, what in zip(robots, seen, strict=True)]
        torch.testing.assert_close(torch.stack(batch), torch.stack(single), rtol=0, atol=1e-5)
        places.add(tuple(session.branch.cache.frames for session in together))
    assert len(places) >= 8
    for one, other in zip(together, alone, strict=True):
        same(one.branch.cache, other.branch.cache)


@torch.no_grad()
def test_training_masks_the_state_to_itself_whatever_inference_does():
    """`state_self_only=False` is the official pair: masked in training, open with the cache."""
    models = {masked: make_model(state_self_only=masked, visual_summary=None) for masked in (True, False)}
    models[False].load_state_dict(models[True].state_dict())
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(1, 24, 2, 2, 2, generator=generator)
    first = torch.randn(1, 24, 1, 2, 2, generator=generator)
    window = NoisyWindow(
        video=video,
        video_timestep=torch.full((1, 2), 500.0),
        action=torch.randn(1, STEPS, 4, generator=generator),
        action_timestep=torch.full((1, STEPS), 500.0),
        state=torch.randn(1, 1, 4, generator=generator),
        category=torch.zeros(1, dtype=torch.int64),
    )

    def outputs(model: WorldActionModel) -> tuple[torch.Tensor, torch.Tensor]:
        context = model.embed_context(torch.ones(1, 6, 16))
        cached = model.denoise(window, context, model.write_observation(first, context))
        return model(window, first, context)[1], cached[1]

    (trained, masked), (trained_open, opened) = outputs(models[True]), outputs(models[False])
    assert torch.equal(trained, trained_open)
    torch.testing.assert_close(trained, masked, rtol=0, atol=1e-5)
    assert not torch.allclose(masked, opened, atol=1e-4)
