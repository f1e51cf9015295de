"""Frames are encoded as they arrive: the same actions, one group of frames left at the end, nothing in vain."""

from dataclasses import replace

import pytest
import torch
from tiny_loops import STEPS, make_model, make_runtime, run, see
from torch import Tensor

from lerobot_wam.codecs.video import SpaceTimeDCTCodec, VideoState
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Savings


class RememberingCodec(SpaceTimeDCTCodec):
    """Every latent frame holds a share of the one before it, as a causal autoencoder's does; calls are noted."""

    def __init__(self) -> None:
        super().__init__(patch=16, channels=24)
        self.calls: list[tuple[int, ...]] = []

    def encode(self, video: Tensor) -> Tensor:
        latent, state = self.encode_next(video[:, :, :1])
        latents = [latent]
        for group in video[:, :, 1:].split(4, dim=2) if video.shape[2] > 1 else ():
            latent, state = self.encode_next(group, state)
            latents.append(latent)
        return torch.cat(latents, dim=2)

    def encode_next(self, frames: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        self.calls.append((len(frames), frames.shape[2]))
        latent, _ = super().encode_next(frames, state)
        if state is not None:
            latent = latent + 0.5 * state[0]
        return latent, (latent,)


def build(stream_video: bool = True, execute_steps: int | None = None) -> tuple[Runtime, RememberingCodec]:
    runtime, codec = make_runtime(make_model(), execute_steps), RememberingCodec()
    runtime.video_codec, runtime.savings = codec, replace(Savings(), stream_video=stream_video)
    return runtime, codec


def test_streamed_frames_give_the_same_actions():
    found = []
    for stream_video in (True, False):
        runtime, _ = build(stream_video)
        found.append(run(runtime, runtime.new_session(0), range(4 * STEPS)))  # a window of three chunks, and the next
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_the_last_group_alone_is_left_when_a_chunk_is_due():
    runtime, codec = build()
    session = runtime.new_session(0)
    for step in range(STEPS + 1):
        codec.calls.clear()
        runtime.act([session], [see(step)])
        expected = {0: [(1, 1)], 1: [(1, 1)], 4: [(1, 4)], STEPS: [(1, 4)]}
        assert codec.calls == expected.get(step, [])


def test_sessions_at_other_places_of_their_blocks_act_as_if_alone():
    runtime, codec = build()
    early, late = runtime.new_session(0), runtime.new_session(1)
    actions = [run(runtime, early, range(2))]
    for step in range(2, 2 * STEPS + 2):
        first, second = runtime.act([early, late], [see(step), see(step - 2, robot=1)])
        actions.append(torch.stack([first, second]))
    alone = [
        run(runtime, runtime.new_session(seed), range(count), robot=seed)
        for seed, count in ((0, 2 * STEPS + 2), (1, 2 * STEPS))
    ]
    both = torch.stack(actions[1:])
    torch.testing.assert_close(torch.cat([actions[0], both[:, 0]]), alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(both[:, 1], alone[1], rtol=0, atol=1e-5)
    assert codec.calls


def test_sessions_that_see_the_same_number_of_frames_are_encoded_together():
    runtime, codec = build()
    sessions = [runtime.new_session(seed) for seed in range(2)]
    for step in range(STEPS + 1):
        runtime.act(sessions, [see(step, robot) for robot in range(2)])
    assert codec.calls == [(2, 1), (2, 1), (2, 4), (2, 4)]


@pytest.mark.parametrize("execute_steps", [4, None])
def test_nothing_is_encoded_for_a_window_that_ends(execute_steps: int | None):
    """Neither where too few actions are executed, nor in the last chunk of a window."""
    runtime, codec = build(execute_steps=execute_steps)
    session = runtime.new_session(0)
    chunks = 1 if execute_steps else 3
    steps = (execute_steps or STEPS) * chunks
    run(runtime, session, range(steps - (execute_steps or STEPS) + 1))
    codec.calls.clear()
    run(runtime, session, range(steps - (execute_steps or STEPS) + 1, steps))
    assert codec.calls == []
    run(runtime, session, [steps])
    assert codec.calls == [(1, 1)]


def test_conditioning_is_encoded_as_far_as_the_next_chunk_reads_and_the_rest_meanwhile():
    found = []
    for stream_video in (True, False):
        runtime = make_runtime(
            make_model(condition_channels=4 + 24), savings=replace(Savings(), stream_video=stream_video)
        )
        runtime.video_codec = codec = RememberingCodec()
        session = runtime.new_session(0)
        actions = run(runtime, session, [0])
        assert session.condition is not None
        window = runtime.model.config.max_frames
        assert len(session.condition.latents) == (1 + runtime.model.config.frames_per_chunk if stream_video else window)
        actions = torch.cat([actions, run(runtime, session, range(1, 4 * STEPS))])
        assert len(session.condition.latents) == window
        whole = codec.condition(see(3 * STEPS).frame[None], window)  # the newest window's
        torch.testing.assert_close(torch.cat(session.condition.latents, dim=2), whole, rtol=0, atol=1e-6)
        found.append(actions)
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
