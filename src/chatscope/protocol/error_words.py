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
      (insufficient|too\slow|not\senough|exhausted|used\sup|depleted|negative|empty)\b
    | (not\senough|no|out\sof|used\s(up\s)?all(\s\w+){0,2}) \s (\w+\s)? (credits?|funds|balance)\b
    | exceeded \s (your|the|its) \s (current|monthly|free|plan|billing) \s (quota|spending|usage|budget)
    | (spend|spending|spend\scap|usage|billing|budget|credit|monthly) (\shard)? \s (limit|cap|quota) \s (\w+\s){0,4}?
      (reached|exceeded|exhausted)\b
    | (reached|exceeded|exceeds|hit) \s (\w+\s){0,4}?
      (spend|spending|usage|billing|budget|credit|monthly\s\w+) (\shard)? \s (limit|cap)\b
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
"""Messages that mean that an account is unpaid, suspended or used up. Anthropic has no code for it, only a message
("Your credit balance is too low"). So do Zhipu (code 1113), MiniMax (1008), SiliconFlow (30001), Fireworks and xAI."""

_TOO_LARGE_WORDS: Final = re.compile(r"request (is )?too large", re.IGNORECASE)
_NUMBER: Final = r"(?:\s(?:is|of|for|was))?\s?[:=]?\s?(\d[\d,]{0,18})\b"
_LIMIT: Final = re.compile(rf"\b(?:limit|maximum){_NUMBER}", re.IGNORECASE)
_REQUESTED: Final = re.compile(rf"\brequest(?:ed)?{_NUMBER}", re.IGNORECASE)
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


def says_unpaid(message: str) -> bool:
    """Return whether a message or a code says that an account is unpaid, suspended or used up."""
    return _QUOTA_WORDS.search(message) is not None


def words_of(code: str | None) -> str:
    """Return a code as words: `out_of_credits` and `OutOfCredits` say `out of credits`."""
    return re.sub(r"[_.\-]+|(?<=[a-z])(?=[A-Z])", " ", code[:100]) if code else ""


def says_too_large(message: str) -> bool:
    """Return whether a message says that the request alone exceeds a rate limit, so that no wait would help."""
    limit, requested = _LIMIT.search(message), _REQUESTED.search(message)
    if limit is None or requested is None or abs(limit.start() - requested.start()) > _NEAR:
        return _TOO_LARGE_WORDS.search(message) is not None
    return _integer(requested[1]) > _integer(limit[1])


def says_long_period(message: str) -> bool:
    """Return whether a message says that the limit of a day or longer is reached. The first period named is meant."""
    period = _PERIOD.search(message)
    is_long = period is not None and not (period["short"] or period["unit"])
    return is_long and _LIMIT_WORDS.search(message) is not None


def _integer(text: str) -> int:
    return int(text.replace(",", ""))
