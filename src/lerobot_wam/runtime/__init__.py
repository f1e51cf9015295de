"""Acting in closed loop: sessions, and what keeps them fast and safe."""
