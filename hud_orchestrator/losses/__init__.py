"""Policy-gradient losses as pure torch functions, one idea per file.

``registry`` lists those that the embedded service computes; ``client`` holds those that a client computes
from a ``forward``'s tensors.
"""
