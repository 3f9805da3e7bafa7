"""Task libraries that people use, as environments and tasks. Each needs an extra that has the library's name.

named           what a source text such as ``reasoning-gym:chain_sum?size=500`` names
adapted         what an adapter gives, and how it finds its library
reasoning_gym   procedural task families with verifiers
textarena       games in text, alone or against a script
gymnasium       environments with a few actions, played in text
verifiers       environments of the ``verifiers`` library that converse in text

Each has an ``environment.py``, which is what an environment process runs: everything about a task stands in
its row, so that a row means the same in every process, and in a file.
"""
