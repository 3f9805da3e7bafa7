"""Small functions, the bugs that are put into them, and tests that tell the difference."""

from __future__ import annotations

from typing import NamedTuple


class Exercise(NamedTuple):
    """A function that is right, ways to break it, and what it should do."""

    purpose: str
    source: str
    bugs: tuple[tuple[str, str], ...]
    """What is written, and what stands there instead."""
    cases: tuple[str, ...]
    """Expressions that are true of the right one."""


EXERCISES = {
    "clamp": Exercise(
        "Return the number that is nearest to x and from low to high.",
        "def clamp(x, low, high):\n    return max(low, min(x, high))\n",
        (("max(low", "min(low"), ("min(x", "max(x"), ("min(x, high)", "min(x, low)")),
        ("clamp(5, 0, 9) == 5", "clamp(-1, 0, 9) == 0", "clamp(12, 0, 9) == 9", "clamp(3, 3, 3) == 3"),
    ),
    "is_even": Exercise(
        "Say whether n is even.",
        "def is_even(n):\n    return n % 2 == 0\n",
        (("== 0", "== 1"), ("% 2", "% 3"), ("n % 2", "n // 2")),
        ("is_even(0)", "is_even(4)", "not is_even(7)", "is_even(-2)", "not is_even(3)"),
    ),
    "mean": Exercise(
        "Return the mean of a list of numbers, and 0 for an empty one.",
        "def mean(numbers):\n    if not numbers:\n        return 0\n    return sum(numbers) / len(numbers)\n",
        (("sum(numbers) /", "sum(numbers) *"), ("return 0", "return None"), ("/ len(numbers)", "/ 2")),
        ("mean([4]) == 4", "mean([1, 2, 3]) == 2", "mean([]) == 0", "mean([1, 2]) == 1.5"),
    ),
    "count_vowels": Exercise(
        "Count the vowels a, e, i, o, u of a text, large or small.",
        "def count_vowels(text):\n    return sum(letter in 'aeiou' for letter in text.lower())\n",
        (("'aeiou'", "'aeio'"), ("text.lower()", "text"), ("letter in", "letter not in")),
        (
            "count_vowels('') == 0",
            "count_vowels('queue') == 4",
            "count_vowels('ANNA') == 2",
            "count_vowels('rhythm') == 0",
        ),
    ),
    "largest": Exercise(
        "Return the largest number of a list that is not empty.",
        "def largest(numbers):\n    best = numbers[0]\n    for number in numbers:\n"
        "        if number > best:\n            best = number\n    return best\n",
        (("> best", "< best"), ("numbers[0]", "0"), ("return best", "return number")),
        ("largest([1, 3, 2]) == 3", "largest([-5, -2, -9]) == -2", "largest([7]) == 7"),
    ),
    "factorial": Exercise(
        "Return the product of all numbers from 1 to n, which is 1 for 0.",
        "def factorial(n):\n    result = 1\n    for k in range(2, n + 1):\n"
        "        result *= k\n    return result\n",
        (("result = 1", "result = 0"), ("n + 1", "n"), ("*= k", "+= k")),
        ("factorial(0) == 1", "factorial(1) == 1", "factorial(4) == 24", "factorial(6) == 720"),
    ),
    "is_palindrome": Exercise(
        "Say whether a text is the same from back to front; case does not count.",
        "def is_palindrome(text):\n    text = text.lower()\n    return text == text[::-1]\n",
        (("[::-1]", "[::1]"), ("text.lower()", "text"), ("return text ==", "return text !=")),
        (
            "is_palindrome('Anna')",
            "not is_palindrome('ab')",
            "is_palindrome('')",
            "not is_palindrome('Radio')",
            "is_palindrome('level')",
        ),
    ),
    "unique": Exercise(
        "Return the items of a list without repetitions, in the order of their first appearance.",
        "def unique(items):\n    seen = []\n    for item in items:\n        if item not in seen:\n"
        "            seen.append(item)\n    return seen\n",
        (("not in", "in"), ("seen.append(item)", "seen.insert(0, item)"), ("return seen", "return items")),
        ("unique([1, 1, 2]) == [1, 2]", "unique([3, 1, 3, 2]) == [3, 1, 2]", "unique([]) == []"),
    ),
    "celsius": Exercise(
        "Turn degrees Fahrenheit into degrees Celsius.",
        "def celsius(fahrenheit):\n    return (fahrenheit - 32) * 5 / 9\n",
        (("- 32", "+ 32"), ("5 / 9", "9 / 5"), ("(fahrenheit - 32)", "fahrenheit - 32")),
        ("celsius(32) == 0", "celsius(212) == 100", "celsius(-40) == -40", "celsius(50) == 10"),
    ),
    "initials": Exercise(
        "Return the first letters of all words of a name, in capitals.",
        "def initials(name):\n    return ''.join(word[0].upper() for word in name.split())\n",
        (("word[0]", "word[-1]"), (".upper()", ".lower()"), ("''.join", "' '.join")),
        ("initials('ada lovelace') == 'AL'", "initials('Bo') == 'B'", "initials('') == ''"),
    ),
    "gcd": Exercise(
        "Return the greatest common divisor of two numbers above 0.",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n",
        (("a % b", "a // b"), ("return a", "return b"), ("a, b = b", "b, a = b")),
        ("gcd(12, 18) == 6", "gcd(7, 5) == 1", "gcd(9, 3) == 3", "gcd(10, 10) == 10"),
    ),
    "fizz": Exercise(
        "Return 'fizzbuzz' for multiples of 15, 'fizz' for others of 3, 'buzz' for others of 5, else ''.",
        "def fizz(n):\n    text = ''\n    if n % 3 == 0:\n        text += 'fizz'\n    if n % 5 == 0:\n"
        "        text += 'buzz'\n    return text\n",
        (("n % 5", "n % 4"), ("    if n % 5", "    elif n % 5"), ("'buzz'", "'bus'")),
        ("fizz(15) == 'fizzbuzz'", "fizz(9) == 'fizz'", "fizz(20) == 'buzz'", "fizz(4) == ''"),
    ),
}


def tests_of(name: str) -> str:
    """Unit tests of the function called *name*: one for each case."""
    tests = [
        f"def test_{number}():\n    assert {case}\n"
        for number, case in enumerate(EXERCISES[name].cases, start=1)
    ]
    return "\n".join([f"from {name} import {name}\n", *tests])
