"""Rollouts per second and what one costs, ours beside the hud SDK: ``python -m benchmarks.rollouts``."""
