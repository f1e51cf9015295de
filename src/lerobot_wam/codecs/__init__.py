"""Frozen or training-free components behind small protocols: video to latents, text to tokens."""
