"""Rectified flow over video and actions together: noise tables, the training objective, the samplers."""
