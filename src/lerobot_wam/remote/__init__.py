"""A policy of LeRobot whose model is elsewhere: `lerobot-wam serve` holds it, `lerobot-wam drive` uses it."""
