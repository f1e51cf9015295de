"""Which part of a window is real."""

import numpy as np
import torch

from lerobot_wam.data.windows import hold_last, latent_frame_mask, real_chunks, steps_until_task_change


def test_steps_until_the_task_changes():
    episode = np.array([0, 0, 0, 0, 1, 1, 1])
    task = np.array([0, 0, 1, 1, 1, 1, 0])
    assert steps_until_task_change(episode, task).tolist() == [2, 1, 2, 1, 2, 1, 1]


def test_a_task_that_returns_is_a_change_too():
    assert steps_until_task_change(np.zeros(5, int), np.array([0, 1, 0, 0, 0])).tolist() == [1, 1, 3, 2, 1]


def test_one_task_an_episode_is_the_usual_case():
    assert steps_until_task_change(np.array([0, 0, 1, 1]), np.array([3, 3, 3, 3])) is None
    assert steps_until_task_change(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])) is None


def test_an_episode_starts_even_where_the_task_stays():
    """Between episodes the count starts anew, though the text is the same."""
    episode, task = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1])
    assert steps_until_task_change(episode, task).tolist() == [2, 1, 2, 1, 1]


def test_hold_last_repeats_what_was_real():
    x = torch.arange(10.0).reshape(2, 5)
    real = torch.tensor([[True, True, False, False, False], [True] * 5])
    assert hold_last(x, real).tolist() == [[0, 1, 1, 1, 1], [5, 6, 7, 8, 9]]
    assert hold_last(x[..., None], real).shape == (2, 5, 1)
    assert hold_last(x, torch.zeros(2, 5, dtype=torch.bool)).tolist() == [[0] * 5, [5] * 5]


def test_a_latent_is_real_when_all_its_frames_are():
    pad = torch.zeros(3, 9, dtype=torch.bool)
    pad[1, 4:] = True  # frames 1..3 are not a whole latent
    pad[2, 5:] = True
    assert latent_frame_mask(pad, 4).tolist() == [[True, True, True], [True, False, False], [True, True, False]]


def test_chunks_are_counted_to_the_last_real_one():
    action = torch.zeros(2, 24, dtype=torch.bool)
    frame = torch.zeros(2, 7, dtype=torch.bool)
    frame[:, 0] = True
    assert real_chunks(action, frame, 3).tolist() == [1, 1]
    action[0, :9] = True
    assert real_chunks(action, frame, 3).tolist() == [2, 1]
    frame[1, 5] = True
    assert real_chunks(action, frame, 3).tolist() == [2, 3]
