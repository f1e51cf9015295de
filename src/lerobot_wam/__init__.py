"""World Action Models for LeRobot. This package imports nothing: every room is opened by the one who needs it."""
