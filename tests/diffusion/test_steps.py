"""Which steps run the network: the official masks, and the similarity rule for every sample on its own."""

import math

import pytest
import torch
from torch import Tensor

from lerobot_wam.diffusion.sampler import SamplerConfig, sample_chunk
from lerobot_wam.diffusion.steps import STATIC_STEPS, STATIC_TOTAL, SimilarSteps

VIDEO, ACTION = (2, 3, 2, 4, 4), (2, 8, 5)


@pytest.mark.parametrize("name", [*STATIC_STEPS, "all"])
def test_only_listed_steps_run_the_network_and_all_move_the_sample(name: str) -> None:
    asked, seen = [], []

    def velocity(video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool) -> tuple[Tensor, Tensor]:
        asked.append(video_t)
        seen.append(video[0, 0, 0, 0, 0].item())
        return torch.ones(VIDEO), torch.ones(ACTION)

    config = SamplerConfig(solver="euler", steps=STATIC_TOTAL, computed_steps=name)
    video, action, _ = sample_chunk(velocity, torch.zeros(VIDEO), torch.zeros(ACTION), config)
    steps = sorted(STATIC_STEPS.get(name, range(STATIC_TOTAL)))
    assert len(asked) == len(steps) == int(STATIC_TOTAL if name == "all" else name)
    # A constant velocity of 1 moves the sample by its way in sigma, skipped steps included.
    assert seen == pytest.approx([t / 1000 - 1 for t in asked], abs=1e-6)
    assert video.mean() == action.mean() == pytest.approx(-1, abs=1e-6)


def turning(angles: list[float]) -> list[Tensor]:
    """Velocities [1, 2] of which each is turned by an angle against the one before."""
    total, vectors = 0.0, []
    for angle in angles:
        total += angle
        vectors.append(torch.tensor([[math.cos(total), math.sin(total)]]))
    return vectors


def computed(choice: SimilarSteps, velocities: list[list[Tensor]], steps: int) -> list[list[int]]:
    """The steps that each sample computes; `velocities` are those of its computations in turn."""
    made: list[list[int]] = [[] for _ in velocities]
    held = [sample[0] for sample in velocities]
    for index in range(steps):
        due = choice.due(index)
        for row, sample in enumerate(velocities):
            if due[row]:
                held[row] = sample[len(made[row])]
                made[row].append(index)
        choice.note(torch.cat(held), due)
    return made


FAR, NEAR, SAME = math.acos(0.9), math.acos(0.94), math.acos(0.99)
PATTERNS = [
    ([0, *[FAR] * 9], list(range(10))),
    ([0, *[NEAR] * 9], [0, 1, 4, 7]),  # two computed, two skipped, one computed whatever it shows
    ([0, *[SAME] * 9], [0, 1, 6]),  # four skipped
    ([0, FAR, NEAR, FAR, *[FAR] * 6], [0, 1, 2, 5, 6, 7, 8, 9]),
]


@pytest.mark.parametrize(("angles", "expected"), PATTERNS)
def test_similar_velocities_are_reused(angles: list[float], expected: list[int]) -> None:
    assert computed(SimilarSteps(1), [turning(angles)], 10) == [expected]


def test_each_sample_of_a_batch_skips_what_it_would_alone() -> None:
    together = computed(SimilarSteps(len(PATTERNS)), [turning(angles) for angles, _ in PATTERNS], 10)
    assert together == [expected for _, expected in PATTERNS]


def test_dynamic_sampling_of_a_batch_equals_single_runs() -> None:
    """One sample's velocity hardly turns, the other's is new at each step."""
    torch.manual_seed(0)
    video, action = torch.randn(VIDEO), torch.randn(ACTION)
    counts: list[int] = []

    def field(rows: list[int]):
        def velocity(x: Tensor, a: Tensor, video_t: float, action_t: float, guided: bool) -> tuple[Tensor, Tensor]:
            counts.append(len(rows))
            noise = torch.randn(VIDEO, generator=torch.Generator().manual_seed(int(video_t)))
            turn = torch.tensor([0.0, 3.0])[rows].view(-1, 1, 1, 1, 1)
            return x + turn * noise[rows], a + video_t / 1000

        return velocity

    config = SamplerConfig(solver="unipc", steps=16, computed_steps="dynamic")
    both = sample_chunk(field([0, 1]), video, action, config)
    for row in range(2):
        counts.clear()
        one = slice(row, row + 1)
        alone = sample_chunk(field([row]), video[one], action[one], config)
        assert (len(counts) < 16) == (row == 0)
        for joined, single in zip(both, alone, strict=True):
            torch.testing.assert_close(joined[one], single)


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="chooses among 16 steps, but there are 4"):
        SamplerConfig(steps=4, computed_steps="8")
    with pytest.raises(ValueError, match="'9' is unknown; choose one of all, 8, 7, 6, 5, dynamic"):
        SamplerConfig(computed_steps="9")
    with pytest.raises(ValueError, match=r"video_final_sigma is 1.0; expected 0"):
        SamplerConfig(video_final_sigma=1.0)
