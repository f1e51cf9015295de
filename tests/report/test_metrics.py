"""PSNR, SSIM and the Wilson interval against definitions and published values."""

import numpy as np
import pytest

from lerobot_wam.report.metrics import pool, psnr, score_frames, ssim
from lerobot_wam.report.statistics import wilson_interval


def noise(seed: int, frames: int = 2, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


def test_identical_frames():
    frames = noise(0)
    score = score_frames(frames, frames, noise(1))
    assert score.psnr_per_frame == [np.inf, np.inf]
    summary = score.summary()
    assert summary["psnr"] == summary["psnr_moving"] == np.inf
    assert summary["ssim"] == pytest.approx(1)


def test_psnr_of_a_known_error():
    real = np.full((1, 16, 16, 3), 100, np.uint8)
    score = score_frames(real + np.uint8(51), real, real)  # 51/255 = 0.2
    assert score.psnr_per_frame == pytest.approx([-10 * np.log10(0.04)])
    assert psnr(0.01) == pytest.approx(20)


def test_only_pixels_that_move_in_reality_count_as_moving():
    start = np.full((1, 16, 16, 3), 100, np.uint8)
    real = start.copy()
    real[0, :4] = 200  # a quarter moves
    real[0, 4:8, :, 1] += 8  # 8/255 is not more than the threshold
    imagined = real.copy()
    imagined[0, :4] = 149  # 51/255 off where it moves
    imagined[0, 8:] = 0  # and far off where it does not
    score = score_frames(imagined, real, start)
    assert score.moving_share == pytest.approx([0.25])
    assert score.summary()["psnr_moving"] == pytest.approx(-10 * np.log10(0.04))
    assert np.isnan(score_frames(start, start, start).summary()["psnr_moving"])


def test_pooling_weighs_frames_and_moving_pixels_alike():
    clips = [noise(seed, frames) for seed, frames in ((0, 3), (1, 1))]
    real = [noise(seed, frames) for seed, frames in ((2, 3), (3, 1))]
    start = [np.zeros_like(frames) for frames in real]
    apart = pool([score_frames(*three) for three in zip(clips, real, start, strict=True)])
    together = score_frames(*(np.concatenate(part) for part in (clips, real, start)))
    assert apart.summary() == pytest.approx(together.summary())


def test_ssim_follows_its_definition():
    a, b = noise(0, 1, 14), (noise(0, 1, 14) // 2 + noise(1, 1, 14) // 2)
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for row in range(4):
            for col in range(4):
                x, y = (f[0, row : row + 11, col : col + 11, channel] / 255 for f in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                top = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
                values.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    np.testing.assert_allclose(ssim(a, b), [np.mean(values)], rtol=1e-9)


def test_frames_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        score_frames(noise(0), noise(0, 3), noise(0))
    with pytest.raises(ValueError, match="8x8 pixels: SSIM needs 11"):
        ssim(noise(0, size=8), noise(0, size=8))


@pytest.mark.parametrize(
    ("successes", "episodes", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, table I
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (29, 29, (0.8830, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval(successes, episodes, expected):
    assert wilson_interval(successes, episodes) == pytest.approx(expected, abs=5e-5)


def test_wilson_interval_refuses_more_successes_than_episodes():
    with pytest.raises(ValueError, match="successes is 5 of 4 episodes"):
        wilson_interval(5, 4)
