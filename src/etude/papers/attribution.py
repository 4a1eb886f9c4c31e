"""What arXiv asks of those who use its metadata, in one place.

https://info.arxiv.org/help/api/index.html asks for the line of thanks, and
https://info.arxiv.org/help/api/tou.html that nobody seem to be arXiv or endorsed by it. Whatever
leaves the reading room for other eyes carries both: feeds, digests, mails and pages.
"""

from __future__ import annotations

THANKS = "Thank you to arXiv for use of its open access interoperability."
NOT_ARXIV = "Etude is neither made nor endorsed by arXiv."
