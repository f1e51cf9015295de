"""The simulated world: a table, three coloured cubes, one arm under joint-position control, two cameras.

Frame: the origin is the middle of the work area on the table's top; +x points away from the arm, +y to its left,
+z up. The front camera stands before the arm and looks back at it from above. Tasks are worded for the one who sees its
image: left is the image's left (−y), right its right (+y), away is up in the image, toward the arm (−x).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from lerobot_wam.sim.arms import ArmSpec, Gripper, get_arm
from lerobot_wam.sim.looks import PLAIN, Look
from lerobot_wam.sim.meshes import thinned_mesh
from lerobot_wam.sim.options import CAMERAS, CONTROL_HZ, SUBSTEPS
from lerobot_wam.sim.rendering import render

COLOURS: tuple[str, ...] = ("red", "green", "blue")
CUBE_RGBA = {"red": (0.86, 0.10, 0.10, 1), "green": (0.10, 0.68, 0.18, 1), "blue": (0.10, 0.25, 0.88, 1)}
CUBE_HALF = PLAIN.cube_half
"""Half the edge of a cube (m) in the plain look."""
PLATES: tuple[str, ...] = ("yellow", "purple", "cyan")
PLATE_RGBA = {"yellow": (0.97, 0.80, 0.10, 1), "purple": (0.55, 0.20, 0.65, 1), "cyan": (0.15, 0.78, 0.85, 1)}
PLATE_HALF = (0.035, 0.035, 0.004)
"""Half the edges of a plate (m). Plates are in the worlds of arms with a gripper, and lie where no push could take a
cube up onto them."""
_TABLE_THICKNESS = 0.04
_FLOOR_DEPTH = 0.4
_OUT_OF_SIGHT = (0.0, 0.0, -1.0)
_SETTLE_STEPS = 5
_DRAWN_GROUP, _COLLISION_GROUP, _HIDDEN_GROUP = 2, 3, 4
"""MuJoCo draws the groups 0 to 2; shipped models keep what only collides (and weighs) in 3."""


def _freeze_joint(body: mujoco.MjsBody, joint: mujoco.MjsJoint, value: float) -> None:
    """Weld `body` to its parent where `joint` would hold it at `value` (rad or m)."""
    quat = np.array(body.quat, dtype=float)
    axis = np.array(joint.axis, dtype=float)
    if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
        shift = np.zeros(3)
        mujoco.mju_rotVecQuat(shift, axis * value, quat)
        body.pos = np.array(body.pos) + shift
        return
    if np.any(np.abs(joint.pos) > 0):
        raise ValueError(f"frozen joint {joint.name!r} must turn about its body's origin, found pos={joint.pos}")
    turn, turned = np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, axis, value)
    mujoco.mju_mulQuat(turned, quat, turn)
    body.quat = turned


def _load_arm(arm: ArmSpec) -> mujoco.MjSpec:
    """Return the arm's shipped model, stripped to its bodies, with thinned meshes that are only drawn."""
    spec = mujoco.MjSpec.from_file(str(arm.locate_model()))
    for kind in ("actuators", "equalities", "keys", "sensors", "cameras", "lights", "excludes", "textures"):
        for element in list(getattr(spec, kind)):
            spec.delete(element)
    for material in spec.materials:  # the Panda's model brings 31 MB of a kitchen's textures
        material.textures = [""] * len(material.textures)
    root = spec.body(arm.root_body)
    root.pos, root.quat = (0, 0, 0), (1, 0, 0, 0)
    bodies = [root, *root.find_all("body")]
    directory = arm.locate_model().parent / spec.meshdir
    used = {geom.meshname for body in bodies for geom in body.geoms}
    for mesh in spec.meshes:
        mesh.name = mesh.name or Path(mesh.file).stem
        if mesh.name in used:
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
            source = directory / mesh.file
            mesh.file = str(thinned_mesh(source, arm.mesh_cell / mesh.scale[0]) if arm.mesh_cell else source)
    for body in bodies:
        body.gravcomp = 1
        for geom in body.geoms:
            geom.contype = geom.conaffinity = 0
            collides_only = geom.type != mujoco.mjtGeom.mjGEOM_MESH or geom.group == _COLLISION_GROUP
            geom.group = _HIDDEN_GROUP if collides_only else _DRAWN_GROUP
            if arm.mesh_colour is not None:
                geom.material, geom.rgba = "", (*arm.mesh_colour, 1)
        for site in list(body.sites):
            spec.delete(site)
        for joint in list(body.joints):
            if joint.name in arm.frozen:
                _freeze_joint(body, joint, arm.frozen[joint.name])
                spec.delete(joint)
            elif joint.name in arm.joints:
                joint.armature, joint.frictionloss = arm.armature, 0.0
                joint.damping = np.zeros_like(joint.damping)
    for capsule in arm.capsules:
        spec.body(capsule.body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*capsule.start, *capsule.end],
            size=[capsule.radius, 0, 0],
            group=_DRAWN_GROUP if capsule.drawn else _HIDDEN_GROUP,
            rgba=[0.15, 0.15, 0.15, 1],
            mass=0,
            contype=2,
            conaffinity=1,
            friction=[0.3, 0.005, 0.0001],
        )
    spec.body(arm.tip_body).add_site(name="tip", pos=arm.tip_offset, group=_HIDDEN_GROUP)
    return spec


def _add_gripper(spec: mujoco.MjSpec, arm: ArmSpec, gripper: Gripper) -> None:
    """Give the fingers pads that hold, one drive, and a bond that makes them move as one."""
    first, second = gripper.fingers
    for finger in gripper.fingers:
        joint = spec.joint(finger.joint)
        joint.armature, joint.frictionloss, joint.damping = arm.armature, 0.0, np.zeros_like(joint.damping)
        spec.body(finger.body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=finger.pad,
            size=gripper.pad_half,
            group=_HIDDEN_GROUP,
            mass=0,
            condim=4,
            contype=2,
            conaffinity=1,
            friction=[1.5, 0.02, 0.0001],
        )
    ratio = (second.wide - second.shut) / (first.wide - first.shut)
    spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=second.joint,
        name2=first.joint,
        data=[second.shut - ratio * first.shut, ratio, *[0.0] * 9],
        solref=[0.01, 1.0],
        solimp=[0.97, 0.99, 0.001, 0.5, 2.0],
    )
    # The drive pulls at both, so that neither has to drag the other; its input is the opening from 0 to 1.
    span = spec.add_tendon(name="opening")
    span.wrap_joint(first.joint, 1.0)
    span.wrap_joint(second.joint, ratio)
    drive = spec.add_actuator(name="opening", target="opening", trntype=mujoco.mjtTrn.mjTRN_TENDON)
    drive.set_to_position(kp=gripper.stiffness, kv=gripper.damping)
    drive.forcelimited, drive.forcerange = True, (-gripper.force, gripper.force)
    drive.gainprm[0] *= first.wide - first.shut + ratio * (second.wide - second.shut)
    drive.biasprm[0] = gripper.stiffness * (first.shut + ratio * second.shut)


def _add_plates(spec: mujoco.MjSpec) -> None:
    """Add the plates: nothing moves them but a new scene."""
    for colour in PLATES:
        body = spec.worldbody.add_body(name=f"{colour} plate", mocap=True, pos=_OUT_OF_SIGHT)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=PLATE_HALF,
            rgba=PLATE_RGBA[colour],
            friction=[0.6, 0.005, 0.0001],
            contype=1,
            conaffinity=3,
        )


_SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


def _add_scene(spec: mujoco.MjSpec, look: Look) -> None:
    """Add table, floor, lights, cameras, cubes and distractors."""
    world, half = spec.worldbody, look.cube_half
    spec.visual.headlight.ambient = (look.light.ambient,) * 3
    spec.visual.headlight.diffuse = (0.25, 0.25, 0.25)
    spec.visual.headlight.specular = (0, 0, 0)
    world.add_light(pos=look.light.position, dir=look.light.direction, diffuse=look.light.strength, specular=[0, 0, 0])
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, -_TABLE_THICKNESS / 2],
        size=[0.75, look.table_half_width, _TABLE_THICKNESS / 2],
        rgba=[*look.table, 1],
        friction=[0.6, 0.005, 0.0001],
        contype=1,
        conaffinity=3,
    )
    for colour in COLOURS:
        body = world.add_body(name=colour, pos=[0, 0, half])
        body.add_freejoint(name=colour)
        body.add_geom(
            name=colour,
            type=_SHAPES[look.cube_shape],
            size=[half] * 3,
            rgba=CUBE_RGBA[colour],
            mass=0.06,
            condim=4,
            friction=[0.6, 0.005, 0.0001],
            contype=1,
            conaffinity=3,
        )
    if look.floor is not None:
        world.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[0, 0, -_FLOOR_DEPTH],
            size=[2.5, 2.5, 0.01],
            rgba=[*look.floor, 1],
            contype=0,
            conaffinity=0,
        )
    for thing in look.distractors:
        # A capsule lies across, and its length is as its width.
        lying = thing.shape == "capsule"
        world.add_geom(
            type=_SHAPES[thing.shape],
            pos=[thing.x, thing.y, thing.half],
            size=[thing.half] * 3,
            quat=[np.sqrt(0.5), np.sqrt(0.5) * lying, 0, 0] if lying else [1, 0, 0, 0],
            rgba=[*thing.rgb, 1],
            contype=0,
            conaffinity=0,
        )
    camera = look.camera
    elevation, azimuth = np.deg2rad(camera.elevation), np.deg2rad(camera.azimuth)
    for name, (usual_x, usual_y) in CAMERAS.items():
        x = usual_x * np.cos(azimuth) - usual_y * np.sin(azimuth)
        y = usual_x * np.sin(azimuth) + usual_y * np.cos(azimuth)
        forward = np.array([-x * np.cos(elevation), -y * np.cos(elevation), -np.sin(elevation)])
        world.add_camera(
            name=name,
            pos=np.array([-0.05, 0, 0]) - camera.distance * forward,
            xyaxes=[-y, x, 0, -x * np.sin(elevation), -y * np.sin(elevation), np.cos(elevation)],
            fovy=camera.fovy,
        )


@dataclass(frozen=True)
class Scene:
    """A compiled world of one arm and look, and the indices into it. Immutable; shared by all worlds of a process."""

    arm: ArmSpec
    look: Look
    fps: int
    """Control steps per second."""
    model: mujoco.MjModel
    joint_qpos: np.ndarray
    """Index of each of the arm's N commanded joints, without the gripper, in `qpos`, (N,)."""
    joint_dof: np.ndarray
    """The same in `qvel`, (N,)."""
    finger_qpos: np.ndarray
    """Index of each finger's slide in `qpos`, (2,), or (0,) for an arm without a gripper."""
    finger_range: np.ndarray
    """Where each finger is shut, and how far it goes from there, (2, 2) in metres, or (2, 0)."""
    cube_qpos: np.ndarray
    """Index of each cube's free joint in `qpos`, (3,), in the order of `COLOURS`."""
    cube_body: np.ndarray
    """Body index of each cube, (3,)."""
    tip_site: int
    tip_body: int
    joint_low: np.ndarray
    """Lower limits of actions (rad; 0 for a gripper), (dof,)."""
    joint_high: np.ndarray
    """Upper limits of actions (rad; 1 for a gripper), (dof,)."""


@functools.cache
def load_scene(arm_name: str, fps: int = CONTROL_HZ, look: Look = PLAIN) -> Scene:
    """Compile the world of one arm at one control rate in one look; later calls in the process return the same object.

    Raises:
        ValueError: the arm is unknown.
        ModuleNotFoundError: the package that ships the arm is not installed.
    """
    arm = get_arm(arm_name)
    spec = mujoco.MjSpec()
    spec.option.timestep = 1 / fps / SUBSTEPS[fps]
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.iterations = 20
    spec.option.ls_iterations = 10
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.map.znear = 0.05
    _add_scene(spec, look)
    child = _load_arm(arm)
    half = arm.base_yaw / 2
    frame = spec.worldbody.add_frame(pos=arm.base_position, quat=[np.cos(half), 0, 0, np.sin(half)])
    frame.attach_body(child.body(arm.root_body), "", "")
    for joint, gain in zip(arm.joints, arm.stiffness, strict=True):
        actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=gain, dampratio=1.0)
    if arm.gripper is not None:
        _add_gripper(spec, arm, arm.gripper)
        _add_plates(spec)
    model = spec.compile()
    joint_ids = [model.joint(joint).id for joint in arm.joints]
    fingers = arm.gripper.fingers if arm.gripper is not None else ()
    grip = np.zeros(len(arm.home) - len(joint_ids))
    return Scene(
        arm=arm,
        look=look,
        fps=fps,
        model=model,
        joint_qpos=model.jnt_qposadr[joint_ids],
        joint_dof=model.jnt_dofadr[joint_ids],
        finger_qpos=np.array([model.joint(finger.joint).qposadr[0] for finger in fingers], int),
        finger_range=np.array([(finger.shut, finger.wide - finger.shut) for finger in fingers]).reshape(-1, 2).T,
        cube_qpos=np.array([model.joint(colour).qposadr[0] for colour in COLOURS]),
        cube_body=np.array([model.body(colour).id for colour in COLOURS]),
        tip_site=model.site("tip").id,
        tip_body=model.body(arm.tip_body).id,
        joint_low=np.append(model.jnt_range[joint_ids, 0], grip),
        joint_high=np.append(model.jnt_range[joint_ids, 1], grip + 1),
    )


class Tabletop:
    """One running world: state of its own, compiled models and renderer shared with its siblings.

    Actions are absolute joint targets in radians, `fps` of them a second; a gripper's opening comes last (see
    `Gripper`). `scene` and `data` are others after a `reset` to another look.

    Attributes:
        camera_shift: how far the cameras have been pushed since the last `reset`, (3,), in metres.
    """

    def __init__(self, arm: str = "viperx", fps: int = CONTROL_HZ) -> None:
        self.scene = load_scene(arm, fps)
        self.arm = self.scene.arm
        self.data = mujoco.MjData(self.scene.model)
        self.camera_shift = np.zeros(3)

    def reset(
        self, cube_xy: np.ndarray, cube_yaw: np.ndarray, look: Look = PLAIN, plate_xy: np.ndarray | None = None
    ) -> None:
        """Put the arm at home and the cubes at `cube_xy` (3, 2) in metres, turned by `cube_yaw` (3,) in radians.

        Plates, which only arms with a gripper have, lie at `plate_xy` (3, 2), or out of sight.
        """
        if look != self.scene.look:
            self.scene = load_scene(self.arm.name, self.scene.fps, look)
            self.data = mujoco.MjData(self.scene.model)
        data = self.data
        self.camera_shift[:] = 0
        mujoco.mj_resetData(self.scene.model, data)
        self._put_arm(np.array(self.arm.home))
        for index, address in enumerate(self.scene.cube_qpos):
            half = cube_yaw[index] / 2
            data.qpos[address : address + 7] = (*cube_xy[index], look.cube_half, np.cos(half), 0, 0, np.sin(half))
        if plate_xy is not None:
            data.mocap_pos[:] = np.column_stack([plate_xy, np.full(len(PLATES), PLATE_HALF[2])])
        mujoco.mj_step(self.scene.model, data, nstep=_SETTLE_STEPS)

    def place_arm(self, joints: np.ndarray) -> None:
        """Put the arm at `joints` (dof,), in radians, at rest; whatever it touches there is pushed away."""
        self._put_arm(joints)
        self.data.qvel[:] = 0
        mujoco.mj_step(self.scene.model, self.data, nstep=SUBSTEPS[self.scene.fps])

    def _put_arm(self, joints: np.ndarray) -> None:
        scene, data = self.scene, self.data
        count, (shut, stroke) = len(scene.joint_qpos), scene.finger_range
        data.qpos[scene.joint_qpos] = joints[:count]
        data.qpos[scene.finger_qpos] = shut + stroke * joints[count:]
        data.ctrl[:] = joints

    def step(self, target: np.ndarray) -> None:
        """Hold the joint targets `target` (dof,), in radians, for one control step; they are clipped to the limits."""
        self.data.ctrl[:] = np.clip(target, self.scene.joint_low, self.scene.joint_high)
        mujoco.mj_step(self.scene.model, self.data, nstep=SUBSTEPS[self.scene.fps])

    @property
    def joints(self) -> np.ndarray:
        """Joint positions, (dof,) float64, in radians; a gripper's opening from 0 to 1 comes last."""
        shut, stroke = self.scene.finger_range
        opening = (self.data.qpos[self.scene.finger_qpos] - shut) / stroke
        return np.append(self.data.qpos[self.scene.joint_qpos], opening.reshape(-1, 2).mean(1))

    @property
    def cubes(self) -> np.ndarray:
        """Cube centres in the order of `COLOURS`, (3, 3) float64, in metres."""
        return self.data.xpos[self.scene.cube_body].copy()

    @property
    def cube_yaw(self) -> np.ndarray:
        """How far each cube's sides are turned from the table's, (3,) float64, in radians within ±π/4."""
        axes = self.data.xmat[self.scene.cube_body].reshape(-1, 3, 3)
        lying = np.abs(axes[:, 2]).argmin(1)  # the flattest of its three axes
        x, y = axes[np.arange(len(axes)), :2, lying].T
        return (np.arctan2(y, x) + np.pi / 4) % (np.pi / 2) - np.pi / 4

    @property
    def plates(self) -> np.ndarray:
        """Plate centres in the order of `PLATES`, (3, 3) float64, in metres; (0, 3) where there are none."""
        return self.data.mocap_pos.copy()

    @property
    def tip(self) -> np.ndarray:
        """Tool tip, (3,) float64, in metres."""
        return self.data.site_xpos[self.scene.tip_site].copy()

    @property
    def cube_half(self) -> float:
        """Half the edge of the cubes (m)."""
        return self.scene.look.cube_half

    @property
    def pace(self) -> float:
        """Control steps that last as long as one at `CONTROL_HZ`."""
        return self.scene.fps / CONTROL_HZ

    @property
    def max_tip_step(self) -> float:
        """The expert's fastest tip travel per control step (m)."""
        return self.arm.max_tip_step / self.pace

    @property
    def push_tip_step(self) -> float:
        """The expert's tip travel per control step while a cube is being pushed (m)."""
        return self.arm.push_tip_step / self.pace

    def image(self, size: int, camera: str = "front") -> np.ndarray:
        """Return one camera's view, (size, size, 3) uint8."""
        self.data.cam_xpos[:] = self.scene.model.cam_pos + self.camera_shift
        return render(self.scene.model, self.data, camera, size, self.arm.name)
