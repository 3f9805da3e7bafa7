"""Policy-gradient losses as pure torch functions, one idea per file; ``registry`` lists them."""
