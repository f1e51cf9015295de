"""The demonstration: record, train, evaluate and report, each step through LeRobot's own code and resumable."""
