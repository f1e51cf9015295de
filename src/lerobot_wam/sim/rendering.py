"""Fast off-screen images: one renderer per process and size, and EGL wherever there is no display."""

from __future__ import annotations

import importlib
import os
import sys

if not os.environ.get("DISPLAY") and sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

_renderers: dict[tuple[int, int], mujoco.Renderer] = {}


def _use_chosen_gl() -> None:
    """Honour `MUJOCO_GL` even if another package imported MuJoCo before this one could set it.

    MuJoCo picks its GL library when it is first imported; LeRobot's plugin discovery may do that.
    """
    gl_context = sys.modules[mujoco.Renderer.__module__].gl_context
    chosen = os.environ.get("MUJOCO_GL", "")
    loaded = getattr(getattr(gl_context, "GLContext", None), "__module__", "")
    if chosen in ("egl", "osmesa") and chosen not in loaded:
        importlib.reload(gl_context)


def render(model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
    """Return the view of `camera`, (size, size, 3) uint8. Not for use from several threads."""
    key = (id(model), size)
    if key not in _renderers:
        _use_chosen_gl()
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        renderer = mujoco.Renderer(model, size, size)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        _renderers[key] = renderer
    renderer = _renderers[key]
    renderer.update_scene(data, camera)
    return renderer.render()


def close_renderers() -> None:
    """Free every off-screen context of this process; the next image opens a new one."""
    while _renderers:
        _renderers.popitem()[1].close()
