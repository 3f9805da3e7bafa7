"""The embedded training service: the HUD contract over real torch, in a process of its own."""
