"""SQL that is written between parentheses: it may not leave them, nor swallow the last one.

No SQL is parsed: quotes, comments and parentheses are told apart.
"""

import re
from collections.abc import Callable

# Each ends where it should; what starts one and does not end is found by what follows.
_TOKEN = re.compile(
    r"""
    (?P<line>--[^\n]*) | (?P<block>/\*)
    | (?P<text>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*'
        | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | "(?:[^"]|"")*"
    | (?P<open>[(\[]) | (?P<close>[)\]])
    | (?P<endless>(?<![\w$])[eE]' | ['"] | (?<![\w$])\$(?:[^\W\d]\w*)?\$)
    | [^'"$/\-()\[\]eE]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")
_CLOSES = {")": "(", "]": "["}


def fault(sql: str) -> str | None:
    """Say what makes SQL mean something else between parentheses than by itself; None where nothing does."""
    opened: list[str] = []
    place = 0
    while place < len(sql):
        token = _TOKEN.match(sql, place)
        assert token is not None
        place = token.end()
        if token["block"]:
            place = _end_of_comment(sql, token.start())
        if token["endless"] or place < 0:
            return "does not end what it quotes or comments"
        if token["open"]:
            opened.append(token["open"])
        elif token["close"] and (not opened or opened.pop() != _CLOSES[token["close"]]):
            return "leaves its parentheses"
    return "does not close its parentheses" if opened else None


def ends_in_comment(sql: str) -> bool:
    """Tell whether what comes behind SQL, in the same line, would belong to a comment."""
    place, last = 0, None
    while 0 <= place < len(sql) and (last := _TOKEN.match(sql, place)):
        place = _end_of_comment(sql, last.start()) if last["block"] else last.end()
    return last is not None and bool(last["line"])


def outside_of_texts(sql: str, change: Callable[[str], str]) -> str:
    """Change SQL, but neither the texts that it quotes nor its comments."""
    parts, start, place = [], 0, 0
    while place < len(sql):
        token = _TOKEN.match(sql, place)
        assert token is not None
        place = token.end()
        if token["text"] or token["line"]:
            parts += [change(sql[start : token.start()]), token[0]]
            start = place
    return "".join([*parts, change(sql[start:])])


def enclosed(sql: str) -> str:
    """Put SQL between parentheses."""
    return f"({sql}\n)" if ends_in_comment(sql) else f"({sql})"


def _end_of_comment(sql: str, start: int) -> int:
    """Give where a comment ends, which may hold others; -1 where it does not."""
    depth = 0
    for mark in _COMMENT.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return -1
