"""One robot's closed loop: observe, dream, act. Reality overwrites imagination (spec §3.3; design, decisions 3, 6, 7).

A `Session` is a value that belongs to one robot; the `Runtime` is the model and serves any number of sessions.
Sessions that stand at the same place in their windows are computed as one batch, and each draws its noise from a
generator of its own, so a batch of N equals N runs alone. Imagined video is returned and never enters the cache.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lerobot_wam.codecs.image import ImageCodec
from lerobot_wam.codecs.text import TextCodec
from lerobot_wam.codecs.video import VideoCodec
from lerobot_wam.diffusion.sampler import SamplerConfig, VelocityFunction, sample_chunk
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.model.inputs import Context
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.acceleration import EAGER, Passes
from lerobot_wam.runtime.denoiser import Denoiser
from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.rows import Rows
from lerobot_wam.runtime.stages import NO_STAGES, Stages
from lerobot_wam.runtime.state import Branch, Dream, LoopRules, Observation, Savings, Session, Stream
from lerobot_wam.runtime.stitching import Commitment, Guidance, smooth
from lerobot_wam.runtime.streaming import encode_arrived, encode_condition, joined_condition, whole_block
from lerobot_wam.runtime.surprise import Watch, watch

OURS = LoopRules()
ALL_SAVINGS = Savings()


class Runtime:
    """Runs sessions on a model.

    Args:
        model: The network, in evaluation mode.
        video_codec: Pixels to latents and back.
        text_codec: Text to tokens.
        action_spaces: Per category, the embodiment's normalisation.
        sampler: Solver, steps, guidance.
        video_stride: Control steps between two video frames.
        execute_steps: Actions executed per chunk. Fewer than the chunk holds restarts the window at every chunk,
            because only whole observed blocks may enter the cache.
        negative_prompt: Text of the negative branch; used when guidance is not 1.
        image_codec: Image tokens of the window's first frame, for models with an image branch.
        rules: Where the loop may do as the official one does.
        savings: What is not computed twice.
        action_only: Whether nobody wants the video: dreams then hold actions alone.
        stages: Is told what is being computed.
        passes: How the network's passes are run.
        watching: Is told how far observed latents are from dreamed ones. Every frame is then encoded, also those of
            chunks behind which the window starts anew; it needs `savings.stream_video`.
    """

    def __init__(
        self,
        model: WorldActionModel,
        video_codec: VideoCodec,
        text_codec: TextCodec,
        action_spaces: Sequence[ActionSpace],
        sampler: SamplerConfig,
        video_stride: int,
        execute_steps: int | None = None,
        negative_prompt: str = "",
        image_codec: ImageCodec | None = None,
        rules: LoopRules = OURS,
        savings: Savings = ALL_SAVINGS,
        action_only: bool = False,
        stages: Stages = NO_STAGES,
        passes: Passes = EAGER,
        watching: Watch | None = None,
    ) -> None:
        self.model = model
        self.video_codec = video_codec
        self.text_codec = text_codec
        self.action_spaces = action_spaces
        self.sampler = sampler
        self.video_stride = video_stride
        self.chunk_steps = model.config.actions_per_chunk
        self.execute_steps = self.chunk_steps if execute_steps is None else execute_steps
        self.negative_prompt = negative_prompt
        self.image_codec = image_codec
        self.rules = rules
        self.savings = savings
        self.action_only = action_only
        self.stages = stages
        self.passes = passes
        self.watching = watching
        self.parallel: Parallel | None = None  # see `Parallel.share`
        self.prompts = slice(0, 1 if sampler.guidance == 1.0 else 2)  # of (task, negative prompt)
        self.block_frames = 1 + model.config.frames_per_chunk * video_codec.temporal_stride

    @property
    def branches(self) -> int:
        """Rows of a session in a batch: one for each prompt that this process computes under."""
        return self.prompts.stop - self.prompts.start

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.patch_embedding.weight.device

    def new_session(self, seed: int, category: int = 0) -> Session:
        """Start a session whose noise is a function of `seed`."""
        return Session(generator=torch.Generator().manual_seed(seed), category=category)

    def act(self, sessions: Sequence[Session], observations: Sequence[Observation]) -> list[Tensor]:
        """Advance every session by one control step.

        Returns:
            The action [A] of each session, in physical units.
        """
        for session, observation in zip(sessions, observations, strict=True):
            self.observe(session, observation)
        self.encode_ahead(sessions)
        due = [(s, o) for s, o in zip(sessions, observations, strict=True) if not s.queue]
        if due:
            self.plan_observed([session for session, _ in due], [observation for _, observation in due])
        for session in sessions:
            session.steps += 1
        return [session.queue.pop(0) for session in sessions]

    def observe(self, session: Session, observation: Observation) -> None:
        """Take note of a frame. A new instruction ends the window and the current chunk."""
        self._instruct(session, observation.task)
        if session.steps % self.video_stride == 0:
            session.frames.append(observation.frame)

    @torch.no_grad()
    def encode_ahead(self, sessions: Sequence[Session]) -> None:
        """Encode what sessions have observed so far, where their next chunks will read it."""
        self._watch(sessions)
        going_on = [session for session in sessions if self._goes_on(session)]
        self._encode_arrived(going_on)
        self._encode_condition([session for session in going_on if session.queue])

    def plan_observed(self, sessions: Sequence[Session], observations: Sequence[Observation]) -> list[Dream]:
        """Plan for sessions that observed every control step, up to the newest one, which is given here; see `plan`."""
        if self.rules.restart_frame == "newest":
            return self.plan(sessions, observations)
        seen = list(zip(sessions, observations, strict=True))
        clips = [torch.stack(s.frames[1:] if len(s.frames) == self.block_frames else [o.frame]) for s, o in seen]
        return self.plan_frames(sessions, clips, [o.state for o in observations], [o.task for o in observations])

    def plan_frames(
        self, sessions: Sequence[Session], clips: Sequence[Tensor], states: Sequence[Tensor], tasks: Sequence[str]
    ) -> list[Dream]:
        """Plan from the frames seen since the last call, which is how the official server is called (spec §3.3).

        Args:
            sessions: Sessions that need a chunk.
            clips: Per session [T, 3, H, W] in [-1, 1], oldest first. With 8 frames in a chunk: T = 1 starts a new
                window, 8 are the frames after the last call's, 4 every other of them (each is shown twice), and 9
                a whole block with the frame that it begins with.
            states: Newest proprioception [S] of each.
            tasks: Instruction of each; a new one starts a new window.

        Returns:
            The dream of each session.

        Raises:
            ValueError: A clip of another length.
        """
        observations = []
        for session, clip, state, task in zip(sessions, clips, states, tasks, strict=True):
            self._instruct(session, task)
            official = self.rules.restart_frame == "official"
            first = clip[0] if official or not session.frames else session.frames[-1]
            session.begin_block(whole_block(clip, first, self.block_frames))
            if len(clip) == 1:
                session.end_window()
            oldest = official and len(clip) == self.block_frames - 1 and self._place(session) == 1
            observations.append(Observation(clip[0] if oldest else clip[-1], state, task))
        return self.plan(sessions, observations)

    @torch.no_grad()
    def plan(
        self,
        sessions: Sequence[Session],
        observations: Sequence[Observation],
        given_action: Sequence[Tensor] | None = None,
        given_latents: Sequence[Tensor] | None = None,
        execute_steps: int | None = None,
        commitments: Sequence[Commitment | None] | None = None,
    ) -> list[Dream]:
        """Write what was observed into each session's cache, dream the next chunk and queue its actions.

        Args:
            sessions: Sessions that need a chunk, in any state.
            observations: The newest observation of each.
            given_action: Absolute physical actions [steps, A] per session to simulate instead of acting.
            given_latents: Latents [C, F, h, w] per session to label instead of dreaming.
            execute_steps: Actions to queue; None takes the runtime's.
            commitments: What each session's chunk is to agree with, if anything.

        Returns:
            The dream of each session.
        """
        if not self.model.config.imagines and (given_action or given_latents):
            raise ValueError("this network imagines no video (imagines=false): it can act, not simulate or label")
        groups: dict[int, list[int]] = defaultdict(list)
        for session, observation in zip(sessions, observations, strict=True):
            self._instruct(session, observation.task)
        self._watch(sessions)
        for index, session in enumerate(sessions):
            groups[self._place(session)].append(index)
        dreams: dict[int, Dream] = {}
        for place, indices in groups.items():
            group, seen = [sessions[i] for i in indices], [observations[i] for i in indices]
            made = self._denoise(
                group,
                seen,
                place,
                *self._observe(group, seen, place),
                None if given_action is None else [given_action[i] for i in indices],
                None if given_latents is None else [given_latents[i] for i in indices],
                None if commitments is None else [commitments[i] for i in indices],
            )
            dreams.update(zip(indices, made, strict=True))
        for index, session in enumerate(sessions):
            if session.held is not None:
                dreams[index] = replace(dreams[index], actions=session.held.expand(self.chunk_steps, -1))
            session.dream = dreams[index]
            planned = execute_steps or math.ceil(self.execute_steps / (2 if session.cautious else 1))
            session.queue = list(session.dream.actions[:planned])
            session.begin_block([observations[index].frame])
            session.steps = 0
            session.chunks += 1
        return [dreams[i] for i in range(len(sessions))]

    @torch.no_grad()
    def imagine(self, dream: Dream) -> Tensor:
        """Decode a dream to pixels in [-1, 1], [T, 3, H, W]; T = 8 frames for a chunk of 2 latents.

        Raises:
            ValueError: Only actions were asked for.
        """
        if dream.latents is None:
            raise ValueError("this dream has no video: only actions were asked for; set action_only to false")
        with self.stages("decode"):
            anchor = self.video_codec.encode(dream.anchor_frame[None, :, None].to(self.device))
            video = self.video_codec.decode(torch.cat([anchor, dream.latents[None]], dim=2))
        return video[0, :, 1:].transpose(0, 1).clamp(-1, 1)

    def _instruct(self, session: Session, task: str) -> None:
        if task != session.task:
            session.task, session.instructed, session.queue, session.held = task, False, [], None
            session.end_window()

    def _place(self, session: Session) -> int:
        """Latent frames in the session's window once its observed block is written; 1 where the window restarts.

        It restarts at the first chunk, after a change of task, when what was observed since the last chunk is not a
        whole block, and, unless it slides, when it is full.
        """
        return self._next_place(session) if len(session.frames) == self.block_frames else 1

    def _next_place(self, session: Session) -> int:
        """Likewise, if what is being observed becomes a whole block."""
        config = self.model.config
        if session.branch is None or not session.branch.cache.frames:
            return 1
        after = session.branch.cache.frames + config.frames_per_chunk
        if after < config.max_frames:
            return after
        return config.max_frames - config.frames_per_chunk if self.rules.window_full == "slide" else 1

    def _goes_on(self, session: Session) -> bool:
        """Whether the next chunk will read the frames since the last one; a new window reads the newest alone."""
        whole = self.execute_steps == self.chunk_steps and self.rules.restart_frame == "newest"
        return whole and self._next_place(session) > 1

    def _watch(self, sessions: Sequence[Session]) -> None:
        """Compare what sessions saw with what they dreamed, as far as it is not yet done."""
        if self.watching is not None:
            dreamt = [session for session in sessions if session.dream is not None]
            self._encode_arrived(dreamt)
            watch(dreamt, self.watching)

    def _encode_arrived(self, sessions: list[Session]) -> None:
        if self.savings.stream_video and sessions:
            with self.stages("vae"):
                encode_arrived(self.video_codec, sessions, self.device)

    def _encode_condition(self, waiting: list[Session]) -> None:
        """Encode one more latent frame of the conditioning that the next chunks will read, while nothing is due."""
        lengths = [len(session.condition.latents) for session in waiting if session.condition is not None]
        if lengths and min(lengths) < self.model.config.max_frames:
            frames = torch.stack([session.frames[0] for session in waiting]).to(self.device)
            with self.stages("vae"):
                encode_condition(self.video_codec, waiting, frames, 1 + min(lengths))

    def _observe(
        self, group: list[Session], observations: list[Observation], place: int
    ) -> tuple[Branch, Tensor, Tensor | None]:
        """Encode what sessions at the same place of their windows observed.

        Returns:
            Their joined branches, with room for what they observed and the chunk behind it; the observed latents; and
            their conditioning channels.
        """
        config = self.model.config
        frames = torch.stack([o.frame for o in observations]).to(self.device)
        if place == 1:
            with self.stages("vae"):
                latent = self.video_codec.encode(frames.unsqueeze(2))
            for session in group:
                session.condition = Stream() if config.condition_channels else None
            self._start_windows(group, frames, latent)
        else:
            first = place - config.frames_per_chunk
            for session in group:
                assert session.branch is not None
                if session.branch.cache.frames > first:
                    session.branch = replace(session.branch, cache=session.branch.cache.slide(config))
            if self.savings.stream_video:
                self._encode_arrived(group)
                latent = torch.cat([torch.cat(session.stream.latents[1:], dim=2) for session in group])
            else:
                with self.stages("vae"):
                    pixels = torch.stack([torch.stack(s.frames, dim=1) for s in group]).to(self.device)
                    latent = self.video_codec.encode(pixels)[:, :, 1:]
        with self.stages("vae"):
            needed = place + config.frames_per_chunk if self.savings.stream_video else config.max_frames
            encode_condition(self.video_codec, group, frames, needed)
        branch = Branch.stack([session.branch for session in group if session.branch is not None])
        branch = replace(branch, cache=self.model.with_room(branch.cache, latent))
        return branch, latent, joined_condition(group, place - latent.shape[2], latent.shape[2])

    def _start_windows(self, group: list[Session], frames: Tensor, latent: Tensor) -> None:
        """Give sessions empty windows on their newest frames [B, 3, H, W], in the storage of the last ones."""
        told = {id(s): s.branch.context.without_image() for s in group if s.branch is not None and s.instructed}
        if new := [session for session in group if id(session) not in told]:
            texts = [text for s in new for text in (s.task or "", self.negative_prompt)[self.prompts]]
            with self.stages("text"):
                context = self._remembered(self.model.embed_text(self.text_codec.encode(texts)[0].to(self.device)))
            told |= {id(session): context.rows(self._rows_of(row)) for row, session in enumerate(new)}
        context = Context.stack([told[id(session)] for session in group])
        if self.image_codec is not None:
            with self.stages("image"):
                image = self.image_codec.encode(frames).repeat_interleave(self.branches, dim=0)
                context = self._remembered(self.model.with_image(context, image))
        for row, session in enumerate(group):
            own, old = context.pick(self._rows_of(row)), session.branch
            if self.savings.preallocate and old is not None and len(old.context.text) == self.branches:
                session.branch = Branch(own.stored_in(old.context), old.cache.emptied())
            else:
                blank = latent[row : row + 1].expand(self.branches, -1, -1, -1, -1)
                session.branch = Branch(own, self.model.new_cache(blank, self.savings.preallocate))
            session.instructed = True

    def _remembered(self, context: Context) -> Context:
        return self.model.remember(context) if self.savings.remember_context else context

    def _rows_of(self, session: int) -> slice:
        """Rows of a session in a batch of several."""
        return slice(session * self.branches, (session + 1) * self.branches)

    def _denoise(
        self,
        group: list[Session],
        observations: list[Observation],
        place: int,
        branch: Branch,
        latent: Tensor,
        latent_condition: Tensor | None,
        given_action: list[Tensor] | None,
        given_latents: list[Tensor] | None,
        commitments: list[Commitment | None] | None,
    ) -> list[Dream]:
        config, device, batch = self.model.config, self.device, len(group)
        frames = torch.stack([o.frame for o in observations]).to(device)
        height, width = frames.shape[-2:]
        shape = self.video_codec.latent_shape(1, height, width)
        video_shape = (shape[0], config.frames_per_chunk, *shape[2:])
        padding = 1.0 if self.rules.padded_actions == "noise" else 0.0
        rows = Rows(self.action_spaces, group, observations, config, device, padding)
        # Every session draws video and action noise from its own stream, whatever is given.
        action_shape = (config.actions_per_chunk, config.action_dim)
        noise = [(self._noise(s, video_shape), self._noise(s, action_shape)) for s in group]
        video = torch.stack([v for v, _ in noise]).to(device)
        action = torch.stack([a for _, a in noise]).to(device) * rows.dims
        given: Literal["none", "video", "action"] = "none"
        if given_latents is not None:
            video, given = torch.stack(given_latents).to(device), "video"
        if given_action is not None:
            action, given = torch.zeros_like(action), "action"
            for row, physical in enumerate(given_action):
                encoded = rows.encode(row, physical)
                action[row, :, : encoded.shape[1]] = encoded.to(device)

        condition = joined_condition(group, place, config.frames_per_chunk)

        def each(of_session: Tensor) -> Tensor:
            return of_session.repeat_interleave(self.branches, dim=0)

        summary = self.model.summarise(
            each(frames.unsqueeze(1)),
            each(rows.state),
            each(rows.category),
            branch.context,
            None if rows.has_robot is None else each(rows.has_robot),
        )
        known = {"state": rows.state, "category": rows.category, "condition": condition, "summary": summary}
        denoiser = Denoiser(
            self.model,
            branch,
            self.branches,
            known | {"has_robot": rows.has_robot},
            latent,
            latent_condition,
            rows.dims,
            self.sampler.guidance,
            self.savings,
            self.passes,
            self.parallel,
        )
        velocity: VelocityFunction = denoiser
        if commitments is not None:
            ahead = [None if c is None else c.over(self.chunk_steps) for c in commitments]
            targets = [None if old is None else rows.encode(row, old) for row, old in enumerate(ahead)]
            velocity = Guidance.towards(targets, commitments, action).applied_to(denoiser)
        if not self.savings.fuse_observation:
            with self.stages("observe"):
                denoiser.observe()
        with self.stages("denoise"):
            skip = self.action_only and self.savings.skip_last_negative
            latents, actions, expected = sample_chunk(velocity, video, action, self.sampler, given, skip)
        for row, session in enumerate(group):
            session.branch = denoiser.branch if batch == 1 else denoiser.branch.pick(self._rows_of(row))
        dreams = []
        for row, observation in enumerate(observations):
            absolute = rows.decode(row, actions[row])
            if self.rules.smoothing:
                absolute = smooth(absolute, [dimension.gripper for dimension in rows.spaces[row].spec.action])
            video_latents = None if self.action_only else latents[row]
            dreams.append(Dream(absolute, video_latents, place == 1, observation.frame, expected[row]))
        return dreams

    def _noise(self, session: Session, shape: tuple[int, ...]) -> Tensor:
        if self.rules.noise_stream == "fixed":
            session.generator.manual_seed(session.generator.initial_seed())
        return torch.randn(shape, generator=session.generator)
