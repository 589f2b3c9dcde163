"""What the messages of errors mean, where no code says it: an unpaid account, a limit that no wait helps with.

Not here: codes and types (`error_codes.py`), and how long a message asks to wait (`waits.py`).
"""

from __future__ import annotations

import re
from typing import Final

_QUOTA_WORDS: Final = re.compile(
    r"""
    insufficient \s (\w+\s){0,2} (balance|credits?|funds|quota)\b
    | (balance|credits?|quota|funds) \s (is|are|has\sbeen|have\sbeen|was) \s (\w+\s)?
      (insufficient|too\slow|not\senough|exhausted|used\sup|depleted|negative|empty|zero|below)\b
    | (not\senough|no|out\sof|used\s(up\s)?all(\s\w+){0,2}) \s (\w+\s)? (credits?|funds|balance)\b
    | exceeded \s (your|the|its) \s (current|monthly|free|plan|billing) \s (quota|spending|usage|budget)
    | (spend|spending|spend\scap|usage|billing|budget|credit|monthly) (\shard)? \s (limit|cap|quota) \s (\w+\s){0,4}?
      (reached|exceeded|exhausted)\b
    | (reached|exceeded|exceeds|hit) \s (\w+\s){0,4}?
      (spend|spending|usage|billing|budget|credit|monthly\s\w+) (\shard)? \s (limit|cap)s?\b
    | \btotal \s (request|token|call|usage)s? \s limit \s (reached|exceeded)\b
    | budget \s (has\sbeen\s)? exceeded
    | (account|organi[sz]ation|workspace|team|project|subscription|billing) \s (\S+\s){0,3}?
      (not\sactive|inactive|suspended|deactivated|disabled|overdue|in\sarrears|past\sdue|delinquent|not\sin\sgood\sstanding)\b
    | (credits?|quota) \s (exhausted|depleted|used\sup)\b
    | (does(n't|\snot)|do(n't|\snot)) \s have \s (any|enough|sufficient) \s (credits?|funds|balance)\b
    | exceeded \s your \s (\w+\s){0,2} included \s credits\b
    | key \s limit \s exceeded | over \s budget | exceededbudget
    | billing \s to \s be \s enabled | enable \s billing
    | no \s active \s subscription | (plan|package|subscription|credits) \s (has|have)? \s? expired\b
    | trial \s key .{0,60} /\s?month
    | account \s is \s in \s good \s standing   # DashScope: "make sure your account is in good standing"
    | (payment|account) \s (\w+\s)? (required|overdue|past\sdue) | \b(overdue|unpaid) \s (payment|invoice|bill)
    | exhausted \s (your|the|its|all|this) \s (\w+\s){0,2} (quota|credits?|balance|funds)\b
    | trial \s (\w+\s)? (has\s|is\s)? (ended|expired|over)\b
    | requires \s more \s credits | can \s only \s afford | card \s (was|is|has\sbeen) \s declined
    | \bnon-?\s?payment\b | please \s (\w+\s)? (top\s?up|recharge|refill)\b
    | failure \s to \s pay | arrearage | \bin \s arrears
    | \u4f59\u989d\u4e0d\u8db3 | \u6b20\u8d39   # balance insufficient; in arrears
    | \u989d\u5ea6\s*\u5df2?(\u4e0d\u8db3|\u7528\u5c3d|\u7528\u5b8c|\u8017\u5c3d)   # quota insufficient or used up
    # account stopped, frozen, banned, locked
    | \u8d26\u6237?\u53f7?\s*(\u5df2)?\s*(\u88ab)?(\u505c\u7528|\u51bb\u7ed3|\u5c01\u7981|\u9501\u5b9a)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Messages that mean that an account is unpaid, suspended or exhausted. Anthropic has no code for it, only a message
("Your credit balance is too low"). So do Zhipu (code 1113), MiniMax (1008), SiliconFlow (30001), Fireworks and xAI."""

_TOO_LARGE_WORDS: Final = re.compile(r"\brequest (\w+ )?(is )?too large", re.IGNORECASE)
_AMOUNT: Final = r"(\d[\d,]{0,18})\b"
_NUMBER: Final = rf"(?:\s(?:is|of|for|was))?\s?[:=]?\s?{_AMOUNT}"
_LIMIT: Final = re.compile(rf"\b(?:limit|maximum)(?:\stokens\sper\sminute)?{_NUMBER}", re.IGNORECASE)
_REQUESTED: Final = re.compile(rf"\b(?:requested|request\shas){_NUMBER}", re.IGNORECASE)
_SIZES: Final = re.compile(
    rf"\b(?:request(?:ed)?|prompt|input)\b[^\d\n]{{0,60}}{_AMOUNT}[^\d\n]{{0,30}}"
    rf"(?:\bexceeds?\b|\b(?:larg|great)er than\b|>)[^\d\n]{{0,50}}{_AMOUNT}",
    re.IGNORECASE,
)
_SIZE_WORDS: Final = re.compile(r"tokens?|tpm|length", re.IGNORECASE)
_NEAR: Final = 100
"""How far apart a limit and what was requested are, in characters, to belong together."""

_PERIOD: Final = re.compile(
    r"per[\s_-]?(?P<short>second|sec|minute|min|hour)|\b(?P<unit>[rt]p[sm])\b"
    r"|per[\s_-]?(?:day|week|month)|\b(?:daily|weekly|monthly)\b|\b[rt]pd\b|\u6bcf[\u65e5\u5929\u6708]|\u5f53[\u65e5\u5929]|\u4eca[\u65e5\u5929]",
    re.IGNORECASE,
)
_LIMIT_WORDS: Final = re.compile(
    r"limit|quota|exceed|exhaust|used up|allowance|\u4e0a\u9650|\u989d\u5ea6|\u9650\u989d|\u7528\u5b8c", re.IGNORECASE
)

_STATUS_WORDS: Final = {
    status: re.compile(words, re.IGNORECASE | re.VERBOSE)
    for status, words in {
        429: r"""
            \b(rate|requests?|tokens?|qps|[rt]pm) [\s-]? limits? \s (\w+\s){0,3}? (exceeded|reached|hit)\b
            | \b(exceed(ed|s)?|reached|hit|over) \s (\w+\s){0,5}? rate [\s-]? limits?\b
            | \brate \s? limit(ed|error)\b | \btoo \s many \s (\w+\s)? requests\b
            | \u8bf7\u6c42\u8fc7\u4e8e\u9891\u7e41 | \u9650\u6d41   # requests too frequent; throttled
        """,
        503: r"""
            \boverloaded\b | \b(over|at|no) \s capacity\b | \bcapacity \s (\w+\s)? exceeded\b
            | \btemporarily \s unavailable\b
            | \b(server|service|system|model|engine) \s (is\s)? (\w+\s)? (busy|unavailable)\b
            | \u8d1f\u8f7d\u5df2\u9971\u548c | \u7e41\u5fd9   # saturated; busy
        """,
        502: r"\bbad \s gateway\b",
        504: r"\bgateway \s time-?out\b | \bupstream \s request \s timeout\b",
        500: r"\binternal \s (server\s)? error\b",
    }.items()
}
"""What messages say of errors that come without a number, code or type: Kong, SambaNova, one-api."""


def status_named(message: str) -> int | None:
    """Return the HTTP status that the message of an error means, if it says so in the usual words."""
    return next((status for status, words in _STATUS_WORDS.items() if words.search(message)), None)


def says_unpaid(message: str) -> bool:
    """Return whether a message or a code says that an account is unpaid, suspended or exhausted."""
    return _QUOTA_WORDS.search(message) is not None


def words_of(code: str | None) -> str:
    """Return a code as words: `out_of_credits` and `OutOfCredits` say `out of credits`."""
    return re.sub(r"[_.\-]+|(?<=[a-z])(?=[A-Z])", " ", code[:100]) if code else ""


def says_too_large(message: str) -> bool:
    """Return whether a message says that the request alone exceeds a rate limit, so that no wait would help."""
    limit, requested = _LIMIT.search(message), _REQUESTED.search(message)
    if limit is not None and requested is not None and abs(limit.start() - requested.start()) <= _NEAR:
        return _integer(requested[1]) > _integer(limit[1])
    if (sizes := _SIZES.search(message)) is not None and _SIZE_WORDS.search(message) is not None:
        return _integer(sizes[1]) > _integer(sizes[2])
    return _TOO_LARGE_WORDS.search(message) is not None


def says_long_period(message: str) -> bool:
    """Return whether a message says that the limit of a day or longer is reached. The first period named is meant."""
    period = _PERIOD.search(message)
    is_long = period is not None and not (period["short"] or period["unit"])
    return is_long and _LIMIT_WORDS.search(message) is not None


def _integer(text: str) -> int:
    return int(text.replace(",", ""))
