"""What every LeRobot command imports: configuration classes, and nothing heavy."""

import lerobot_wam.configuration_wam
import lerobot_wam.metaworld.config_metaworld
import lerobot_wam.remote.configuration_remote
import lerobot_wam.sim.config_arm_robot
import lerobot_wam.sim.config_expert_teleop
import lerobot_wam.sim.config_tabletop  # noqa: F401
