"""Fast off-screen images: one GL context per process, arm and size, and EGL wherever there is no display."""

from __future__ import annotations

import importlib
import os
import sys

if not os.environ.get("DISPLAY") and sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

_MAX_GEOMS = 1000


def _use_chosen_gl() -> None:
    """Honour `MUJOCO_GL` even if another package imported MuJoCo before this one could set it.

    MuJoCo picks its GL library when it is first imported; LeRobot's plugin discovery may do that.
    """
    gl_context = sys.modules[mujoco.Renderer.__module__].gl_context
    chosen = os.environ.get("MUJOCO_GL", "")
    loaded = getattr(getattr(gl_context, "GLContext", None), "__module__", "")
    if chosen in ("egl", "osmesa") and chosen not in loaded:
        importlib.reload(gl_context)


class _Screen:
    """An off-screen image, and the uploaded meshes of one arm: models that differ in other things share it."""

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        _use_chosen_gl()
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._size, self._rect, self._option = size, mujoco.MjrRect(0, 0, size, size), mujoco.MjvOption()
        self._gl = sys.modules[mujoco.Renderer.__module__].gl_context.GLContext(size, size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> np.ndarray:
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        mujoco.mjv_updateScene(model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        image = np.empty((self._size, self._size, 3), np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        return image[::-1].copy()

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()


_screens: dict[tuple[str, int], _Screen] = {}


def render(model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int, meshes: str) -> np.ndarray:
    """Return the view of `camera`, (size, size, 3) uint8. Not for use from several threads.

    Args:
        model: a compiled world; those of one arm have the same meshes and share a GL context.
        data: its state.
        camera: a camera of the model.
        size: edge of the image (pixels).
        meshes: name of the model's set of meshes, which is that of its arm.
    """
    key = (meshes, size)
    if key not in _screens:
        _screens[key] = _Screen(model, size)
    return _screens[key].draw(model, data, camera)


def close_renderers() -> None:
    """Free every off-screen context of this process; the next image opens a new one."""
    while _screens:
        _screens.popitem()[1].close()
