"""Mixtures, adaptation, and what they are trained on."""
