"""What every LeRobot command imports: configuration classes, and nothing heavy."""

import lerobot_wam.configuration_wam
import lerobot_wam.sim.config_tabletop  # noqa: F401
