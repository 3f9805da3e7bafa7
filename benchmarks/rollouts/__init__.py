"""Rollouts per second and what one costs, ours beside the hud SDK's own loop: ``python -m benchmarks.rollouts``."""
