"""The last look at every action before a robot gets it. Numpy only: it runs beside the robot, without a model."""
