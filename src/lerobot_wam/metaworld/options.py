"""What a policy sees of Meta-World here and what it commands. Loads no simulator."""

REPEATS = 4
"""Steps of Meta-World (80 a second) that one action is held for."""
CONTROL_HZ = 20
"""Control steps, and frames, per second."""
EPISODE_STEPS = 80
"""Default time limit (control steps): four times what the experts take on average."""
MAX_STEPS = 500 // REPEATS
"""Meta-World goes no further than 500 of its steps."""
CAMERA = "corner"
"""The one camera: behind the arm's right shoulder, as Meta-World's `corner2`, but close and upright."""
STATE = ("hand_x", "hand_y", "hand_z", "gripper_opening")
"""Position of the hand (m), and 0 (closed) to 1 (open): the arm has no joint positions to speak of, since it is led by
the hand, and where objects are is for the policy to see."""
ACTION = ("x", "y", "z", "gripper")
"""A step of the hand, -1 to 1 for -4 to 4 cm within a control step, and the gripper's effort, 1 to close."""
ROBOT_TYPE = "wam_metaworld_sawyer"
