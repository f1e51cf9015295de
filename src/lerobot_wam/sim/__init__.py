"""A small simulated tabletop: arms, language tasks, experts, a LeRobot environment and a recorder."""
