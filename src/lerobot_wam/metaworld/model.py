"""Meta-World's worlds, compiled to be drawn fast: their physics is untouched, their images are ours.

What costs time in Meta-World's own images is not their size: it is shadows, reflections, multisampling, 68 000
triangles of which a small image shows none, and textures of a megapixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from PIL import Image

from lerobot_wam.metaworld.options import CAMERA
from lerobot_wam.metaworld.tasks import Task
from lerobot_wam.sim.meshes import thinned_mesh

try:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("Meta-World is missing; pip install 'lerobot_policy_wam[metaworld]'") from error

_EYE, _LOOKS_AT, _FOVY = (0.75, 0.20, 0.75), (0.0, 0.72, 0.10), 45
_MESH_CELL = 0.01  # m
_TEXTURE_SIZE = 64  # pixels
_MARKER_RGBA, _MARKER_RADIUS = (0.1, 0.9, 0.2, 1.0), 0.025


def _compile(path: str, marked: bool) -> mujoco.MjModel:
    spec, folder = mujoco.MjSpec.from_file(path), Path(path).parent
    shapes = [geom for geom in spec.geoms if geom.type == mujoco.mjtGeom.mjGEOM_MESH]
    collide = {geom.meshname for geom in shapes if geom.contype or geom.conaffinity}
    for mesh in spec.meshes:
        if mesh.name not in collide:
            mesh.file = str(thinned_mesh(folder / spec.meshdir / mesh.file, _MESH_CELL / mesh.scale[0]))
    for texture in spec.textures:
        if texture.file:
            image = Image.open(folder / texture.file).convert("RGB").resize((_TEXTURE_SIZE,) * 2, Image.Resampling.BOX)
            texture.file, texture.width, texture.height, texture.nchannel = "", _TEXTURE_SIZE, _TEXTURE_SIZE, 3
            texture.data = image.tobytes()
    for site in spec.sites:
        if "goal" in site.name.lower():
            site.rgba = _MARKER_RGBA if marked else (0, 0, 0, 0)
            site.size = (_MARKER_RADIUS,) * 3
    backward = np.subtract(_EYE, _LOOKS_AT) / np.linalg.norm(np.subtract(_EYE, _LOOKS_AT))
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    spec.camera(CAMERA).name = "corner1"  # the name is Meta-World's
    spec.worldbody.add_camera(name=CAMERA, pos=_EYE, xyaxes=[*right, *np.cross(backward, right)], fovy=_FOVY)
    spec.visual.quality.offsamples = spec.visual.quality.shadowsize = 0
    return spec.compile()


def make_environment(task: Task) -> Any:
    """Return Meta-World's environment of `task`; each `seed` and `reset` draws another scene, as LeRobot's does.

    Its goal can be observed, which its experts need.
    """
    original = ALL_V3_ENVIRONMENTS[task.name]

    class Fast(original):  # type: ignore[valid-type,misc]
        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model = _compile(self.fullpath, task.marked)
            return model, mujoco.MjData(model)

    environment = Fast()
    environment._partially_observable = False
    del environment.sawyer_observation_space  # cached, and by now another
    environment._freeze_rand_vec = False
    environment.seeded_rand_vec = environment._set_task_called = True
    return environment
