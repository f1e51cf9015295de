"""From wanted points of the tool tip to joint targets, for every arm."""

from __future__ import annotations

import mujoco
import numpy as np

from lerobot_wam.sim.tabletop import Scene

TRAVEL_HEIGHT = 0.085
"""Height of the tip above the table while it passes over cubes (m)."""
_FUNNEL = (0.015, 0.06)
"""Above a waypoint the tip is down within the first radius and at travel height beyond the second (m)."""
_IK_STEPS = 8
_DAMPING = 0.02
_POSTURE = 0.02


class InverseKinematics:
    """Joint positions that bring the tool tip to a point and keep the tool near its wanted elevation."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._data = mujoco.MjData(scene.model)
        self._count = len(scene.joint_qpos)
        self._home = np.array(scene.arm.home)[: self._count]

    def solve(
        self, joints: np.ndarray, target: np.ndarray, opening: float = 0.0, yaw: float | None = None
    ) -> np.ndarray:
        """Return joint positions near `joints` whose tip is near `target`.

        Args:
            joints: present joint positions, (dof,), in radians.
            target: wanted tip, (3,), in metres.
            opening: what a gripper shall do: from 0, shut, to 1, wide. Without effect on an arm that has none.
            yaw: turn the gripper so that its fingers part along the +y direction turned by this angle (rad).

        Returns:
            (dof,) float64 in radians, within the joint limits; a gripper's opening comes last.
        """
        scene, data, arm = self.scene, self._data, self.scene.arm
        model = scene.model
        low, high = scene.joint_low[: self._count], scene.joint_high[: self._count]
        q = joints[: self._count].copy()
        jac_position, jac_rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        for _ in range(_IK_STEPS):
            data.qpos[scene.joint_qpos] = q
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, jac_position, jac_rotation, scene.tip_site)
            tool = data.xmat[scene.tip_body].reshape(3, 3)
            axis, turns = tool @ np.array(arm.tool_axis), jac_rotation[:, scene.joint_dof]
            # The vertical part of the tool axis: d(axis)/dq = ω × axis.
            axis_rows = -np.cross(axis, turns, axisb=0, axisc=0)
            error = np.append(
                target - data.site_xpos[scene.tip_site], arm.tool_weight * (np.sin(arm.tool_pitch) - axis[2])
            )
            jacobian = np.vstack([jac_position[:, scene.joint_dof], arm.tool_weight * axis_rows[2:]])
            if yaw is not None and arm.gripper is not None:
                # The fingers' part across the wanted direction vanishes.
                fingers, across = tool @ np.array(arm.gripper.axis), np.array([np.cos(yaw), np.sin(yaw), 0.0])
                error = np.append(error, -arm.tool_weight * (fingers @ across))
                row = -across @ np.cross(fingers, turns, axisb=0, axisc=0)
                jacobian = np.vstack([jacobian, arm.tool_weight * row])
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + _DAMPING**2 * np.eye(len(error)))
            rest = _POSTURE * (self._home - q)
            q = q + inverse @ error + rest - inverse @ (jacobian @ rest)
            q = np.clip(q, low, high)
        return np.append(q, np.full(len(joints) - self._count, opening))


def toward(start: np.ndarray, goal: np.ndarray, step: float) -> np.ndarray:
    """Move from `start` toward `goal` by at most `step`."""
    delta = goal - start
    distance = np.linalg.norm(delta)
    return goal if distance <= step else start + delta * (step / distance)


def funnel(tip: np.ndarray, goal: np.ndarray, height: float = TRAVEL_HEIGHT) -> np.ndarray:
    """Return the point above `goal` to aim at from `tip`: at `height` while far away, lower as it closes in."""
    near, far = _FUNNEL
    away = float(np.linalg.norm(tip[:2] - goal[:2]))
    share = np.clip((away - near) / (far - near), 0, 1)
    return np.array([goal[0], goal[1], goal[2] + share * max(height - goal[2], 0)])
