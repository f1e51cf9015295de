"""The module LeRobot's plugin discovery imports; it registers the plugin's configuration classes."""

import lerobot_wam.plugin  # noqa: F401
