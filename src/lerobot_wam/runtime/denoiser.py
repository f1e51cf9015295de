"""The network's passes over one chunk: the observation, the steps, guidance; nothing computed that nobody reads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lerobot_wam.diffusion.sampler import guide
from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.acceleration import Passes
from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.state import Branch, Savings


@dataclass
class Denoiser:
    """Velocities of one chunk of sessions that stand at the same place of their windows; see `VelocityFunction`.

    Attributes:
        model: The network.
        branch: The sessions' joined branches; with what was observed once the first pass is done.
        branches: Rows of a session in the batch: 1, or 2 with guidance.
        known: What a noisy window holds besides video, actions and their timesteps, a row per session.
        observed: Latents [B, C, F, h, w] that no pass has written yet; None once they are.
        observed_condition: Their first-frame conditioning channels.
        action_dims: 1 for dimensions that the robot has, else 0; [B, 1, A].
        guidance: Guidance scale.
        savings: What is not computed twice.
        passes: How passes are run.
        parallel: The processes that share the work, if any.
    """

    model: WorldActionModel
    branch: Branch
    branches: int
    known: dict[str, Tensor | None]
    observed: Tensor | None
    observed_condition: Tensor | None
    action_dims: Tensor
    guidance: float
    savings: Savings
    passes: Passes
    parallel: Parallel | None

    def observe(self) -> None:
        """Write what was observed, in a pass of its own for every branch."""
        assert self.observed is not None
        for rows in self._batches(guided=True):
            self._run("observe", self.branch.rows(rows), rows, {})
        self._written()

    def __call__(
        self, video: Tensor, action: Tensor, video_t: float, action_t: float, guided: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the velocities, and write what was observed if that has not been done."""
        batch, device = len(video), video.device
        noisy = {
            "video": video,
            "video_timestep": torch.full((batch, video.shape[2]), video_t, device=device),
            "action": action,
            "action_timestep": torch.full((batch, action.shape[1]), action_t, device=device),
        }
        guided = guided or self.observed is not None  # the next chunk may read what either branch observed
        found = [self._run("denoise", self.branch.rows(rows), rows, noisy) for rows in self._batches(guided)]
        if self.observed is not None:
            self._written()
        if self.parallel is not None:
            found = self.parallel.gather(found)
        velocity, action_velocity = found[0]
        if guided and self.guidance != 1.0:
            if len(found) == 1:
                (velocity, negative), action_velocity = (velocity[0::2], velocity[1::2]), action_velocity[0::2]
            else:
                negative = found[1][0]
            velocity = guide(velocity.float(), negative.float(), self.guidance)
        return velocity.float(), action_velocity.float() * self.action_dims

    def _batches(self, guided: bool) -> list[slice]:
        """Rows of each pass: all, or one branch after the other; the task's alone where there is no guidance."""
        if guided and self.savings.batched_guidance:
            return [slice(None)]
        return [slice(row, None, self.branches) for row in range(self.branches if guided else 1)]

    def _written(self) -> None:
        assert self.observed is not None
        self.branch = replace(self.branch, cache=self.model.observed(self.branch.cache, self.observed))
        self.observed = self.observed_condition = None

    def _run(self, name: str, branch: Branch, rows: slice, noisy: dict[str, Tensor]) -> tuple[Tensor, ...]:
        inputs = {"observed": self.observed, "observed_condition": self.observed_condition}
        if noisy:
            inputs |= noisy | self.known
        # Summaries are made with a branch's text, the rest is the same for all branches of a session.
        given = {
            key: value[rows] if key == "summary" else self._of_rows(value, rows)
            for key, value in inputs.items()
            if value is not None
        }
        names = tuple(given)

        def compute(*tensors: Tensor) -> tuple[Tensor, ...]:
            named = dict(zip(names, tensors, strict=True))
            seen, condition = named.pop("observed", None), named.pop("observed_condition", None)
            if noisy:
                return self.model.denoise(NoisyWindow(**named), branch.context, branch.cache, seen, condition)
            assert seen is not None
            return (self.model.observe(seen, branch.context, branch.cache, condition),)

        persistent = (branch.cache.storage.kv, *branch.context.tensors)
        return self.passes.run(compute, persistent, tuple(given.values()), (name, branch.cache.frames, names))

    def _of_rows(self, of_sessions: Tensor, rows: slice) -> Tensor:
        """Repeat what sessions have for the rows of a pass."""
        return of_sessions.repeat_interleave(self.branches, dim=0) if rows == slice(None) else of_sessions
