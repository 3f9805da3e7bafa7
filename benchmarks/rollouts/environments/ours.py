"""The environment of both loops, by our template."""

from hud_orchestrator import Environment

env = Environment("bench")
talking = Environment("talking")


@env.template()
async def add(a: int, b: int):
    """Two numbers."""
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0


@talking.tool()
async def say(word: str) -> str:
    """Say a word."""
    talking.state.said.append(word)
    return "ok"


@talking.template()
async def talk(wanted: int):
    """Say as many words as wanted."""
    talking.state.said = []
    yield "talk"
    yield min(len(talking.state.said) / wanted, 1.0)


single = [add(a=a, b=b) for a in range(20) for b in range(20)]
turns = [talk(wanted=wanted) for wanted in range(1, 20)]
