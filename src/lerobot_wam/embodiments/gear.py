"""Robots as DreamZero's own files describe them: a checkpoint's metadata.json, a GEAR dataset's modality.json.

Both list every key that was recorded, by alphabet. Which of them a model uses, in which order, and which actions are
relative, is in the training run's settings (conf.yaml); for the released robots it is known here (spec §2.4, §2.5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lerobot_wam.embodiments.action_space import ActionStatistics
from lerobot_wam.embodiments.spec import (
    FRAMES_PER_LATENT,
    LATENTS_PER_CHUNK,
    CameraView,
    Dimension,
    EmbodimentSpec,
    VideoTransform,
    ViewLayout,
    builtin_names,
    load_embodiment,
)

_CHUNK_STEPS = 24  # what DreamZero's scripts use on every robot (spec §2.3)
_LAYOUTS: dict[int, ViewLayout] = {1: "one", 2: "two", 3: "three"}
_VIDEO = VideoTransform(crop=0.95, color_jitter=(0.3, 0.4, 0.5, 0.08), uint8=True)


@dataclass(frozen=True)
class Keys:
    """What a model uses of a robot, in the order in which it is concatenated.

    Attributes:
        video: cameras.
        state: parts of the state vector.
        action: parts of the action vector.
        relative: the actions that are relative to the state of the same key.
    """

    video: tuple[str, ...]
    state: tuple[str, ...]
    action: tuple[str, ...]
    relative: tuple[str, ...]


_DROID = ("joint_position", "gripper_position")
_AGIBOT = (
    *("left_arm_joint_position", "right_arm_joint_position", "left_effector_position", "right_effector_position"),
    *("head_position", "waist_position"),
)
_YAM = ("left_joint_pos", "left_gripper_pos", "right_joint_pos", "right_gripper_pos")
RELEASED = {
    "oxe_droid": Keys(
        ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"), _DROID, _DROID, ("joint_position",)
    ),
    "agibot": Keys(("top_head", "hand_left", "hand_right"), _AGIBOT, (*_AGIBOT, "robot_velocity"), _AGIBOT),
    "yam": Keys(("top_camera-images-rgb", "left_camera-images-rgb", "right_camera-images-rgb"), _YAM, _YAM, _YAM),
}
"""The robots of the released checkpoints and recipes, by embodiment tag."""


def embodiment_from_gear(
    metadata: Mapping[str, Any], tag: str, conf: Mapping[str, Any] | None = None
) -> tuple[EmbodimentSpec, ActionStatistics]:
    """Read a checkpoint's robot: our built-in embodiment of that name where there is one, with its own numbers.

    The statistics of relative actions are those of the relative values, which is how DreamZero stores them.

    Args:
        metadata: content of ``experiment_cfg/metadata.json``.
        tag: embodiment tag, such as "oxe_droid".
        conf: content of ``experiment_cfg/conf.yaml``: key order, relative keys and steps per chunk. It wins over what
            is known of the released robots, and a robot that is not one of them needs it.

    Raises:
        ValueError: no such tag, a key without statistics, or an unknown robot without ``conf``.
    """
    if tag not in metadata:
        raise ValueError(f"metadata.json knows {', '.join(metadata)}, not {tag!r}: choose one of these embodiment tags")
    keys = RELEASED.get(tag) if conf is None else _keys_of_run(conf, tag)
    if keys is None:
        raise ValueError(
            f"{tag!r} is not one of the released robots ({', '.join(RELEASED)}): pass the checkpoint's conf.yaml, "
            "which says what the model uses of it"
        )
    statistics, modalities = metadata[tag]["statistics"], metadata[tag]["modalities"]
    state_widths, state_low, state_high = _ranges(statistics["state"], keys.state, "state")
    action_widths, action_low, action_high = _ranges(statistics["action"], keys.action, "action")
    rates = [float(camera["fps"]) for key, camera in modalities.get("video", {}).items() if key in keys.video]
    spec = _robot(tag, keys, state_widths, action_widths, fps=rates[0] if rates else None)
    chunk_steps = int((conf or {}).get("action_horizon", spec.chunk_steps))
    spec = replace(spec, chunk_steps=chunk_steps, video_stride=chunk_steps // (LATENTS_PER_CHUNK * FRAMES_PER_LATENT))
    spec.check_chunk()
    return spec, ActionStatistics(action_low[None], action_high[None], state_low, state_high)


def keys_of_dataset(modality: Mapping[str, Any], tag: str) -> Keys:
    """A released robot's keys; for any other tag everything that a modality.json lists.

    Then vectors are ordered by their place, and an action is relative if a state has its name and it does not grip.
    """
    if tag in RELEASED:
        return RELEASED[tag]
    state, action = (
        sorted(modality.get(group, {}), key=lambda key: modality[group][key]["start"]) for group in ("state", "action")
    )
    relative = [key for key in action if key in state and not _grips(key)]
    return Keys(tuple(modality.get("video", {})), tuple(state), tuple(action), tuple(relative))


def embodiment_from_modality(
    modality: Mapping[str, Any], fps: float, tag: str, keys: Keys
) -> tuple[EmbodimentSpec, dict[str, list[int]]]:
    """Read a GEAR dataset's robot.

    Args:
        modality: content of ``meta/modality.json``.
        fps: control steps per second of the dataset.
        tag: embodiment tag, or a name of one's own.
        keys: what is to be used, see :func:`keys_of_dataset`.

    Returns:
        The embodiment, and for each vector feature the columns that it uses of the dataset's, in its order.

    Raises:
        ValueError: a key that the dataset does not have, or keys from another feature.
    """
    columns: dict[str, list[int]] = {}
    widths: dict[str, dict[str, int]] = {}
    for group, default, wanted in (("state", "observation.state", keys.state), ("action", "action", keys.action)):
        entries = {key: _entry(modality, group, key) for key in wanted}
        features = {entry.get("original_key") or default for entry in entries.values()}
        if features - {default}:
            raise ValueError(
                f"{group} keys {', '.join(wanted)} are stored in {', '.join(sorted(features))}, expected all in "
                f"{default}: choose other keys, or join the columns in the dataset"
            )
        columns[default] = [i for entry in entries.values() for i in range(entry["start"], entry["end"])]
        widths[group] = {key: entry["end"] - entry["start"] for key, entry in entries.items()}
    spec = _robot(tag, keys, widths["state"], widths["action"], fps)
    cameras = [_entry(modality, "video", key).get("original_key") or f"observation.images.{key}" for key in keys.video]
    return replace(spec, cameras=tuple(CameraView(camera) for camera in cameras)), columns


def _robot(
    tag: str, keys: Keys, state: Mapping[str, int], action: Mapping[str, int], fps: float | None
) -> EmbodimentSpec:
    """The built-in embodiment of this name, else a new one, with dimensions of these widths."""
    if tag in builtin_names():
        spec = load_embodiment(tag)
    elif fps is None or len(keys.video) not in _LAYOUTS:
        raise ValueError(
            f"{tag}: {len(keys.video)} cameras with {fps or 'no'} frames/s, expected 1 to 3 cameras and their rate: "
            "choose the cameras that the model shall see"
        )
    else:
        spec = EmbodimentSpec(
            tag,
            tuple(CameraView(f"observation.images.{key}") for key in keys.video),
            state=(),
            action=(),
            fps=fps,
            video_stride=_CHUNK_STEPS // (LATENTS_PER_CHUNK * FRAMES_PER_LATENT),
            chunk_steps=_CHUNK_STEPS,
            robot_types=(tag,),
            view_layout=_LAYOUTS[len(keys.video)],
            video=_VIDEO,
        )
    return replace(
        spec,
        fps=fps or spec.fps,
        state=_dimensions(spec.state, state, ()),
        action=_dimensions(spec.action, action, keys.relative),
    )


def _dimensions(
    known: tuple[Dimension, ...], widths: Mapping[str, int], relative: Sequence[str]
) -> tuple[Dimension, ...]:
    """One dimension per number: with the built-in name, unit and limits where the count is the same, else by key."""
    names = [(key, f"{key}_{i}" if width > 1 else key) for key, width in widths.items() for i in range(width)]
    if len(known) == len(names):
        return tuple(replace(d, relative=key in relative) for d, (key, _) in zip(known, names, strict=True))
    return tuple(Dimension(name, relative=key in relative, gripper=_grips(key)) for key, name in names)


def _ranges(
    statistics: Mapping[str, Any], keys: Sequence[str], group: str
) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Widths per key, and the 1 % and 99 % quantiles of all keys in a row."""
    missing = [key for key in keys if not {"q01", "q99"} <= set(statistics.get(key, {}))]
    if missing:
        raise ValueError(
            f"metadata.json has no q01 and q99 for the {group} {', '.join(missing)}, only for {', '.join(statistics)}: "
            "is this the checkpoint's own metadata.json?"
        )
    low, high = ([np.atleast_1d(np.float64(statistics[key][q])) for key in keys] for q in ("q01", "q99"))
    return {key: len(part) for key, part in zip(keys, low, strict=True)}, np.concatenate(low), np.concatenate(high)


def _keys_of_run(conf: Mapping[str, Any], tag: str) -> Keys | None:
    """What the settings of a training run say; a released robot's keys where they say nothing of this tag."""
    transforms = conf.get("train_dataset", {}).get("all_transforms", {}).get(tag, {}).get("transforms", ())
    concat = next((step for step in transforms if str(step.get("_target_")).endswith("ConcatTransform")), None)
    known = RELEASED.get(tag)
    if concat is None:
        return known
    orders = [concat[f"{group}_concat_order"] for group in ("video", "state", "action")]
    relative = conf.get("relative_action_keys", known.relative if known else None)
    if relative is None:
        raise ValueError(f"conf.yaml names no relative_action_keys for {tag!r}: add the list (it may be empty)")
    return Keys(*(tuple(key.split(".", 1)[-1] for key in order) for order in (*orders, relative)))


def _grips(key: str) -> bool:
    return "gripper" in key or "effector" in key


def _entry(modality: Mapping[str, Any], group: str, key: str) -> Mapping[str, Any]:
    entries = modality.get(group, {})
    if key not in entries:
        raise ValueError(
            f"modality.json has no {group} {key!r}, it has {', '.join(entries) or 'none'}: choose among these"
        )
    return entries[key]
