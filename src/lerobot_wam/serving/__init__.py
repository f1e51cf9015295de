"""Robots far from the GPU: a server that holds the policy, and clients that hold the robots."""
