"""Attribution lines required by arXiv's terms of use.

https://info.arxiv.org/help/api/index.html asks for the acknowledgement, and
https://info.arxiv.org/help/api/tou.html forbids the appearance of an endorsement by arXiv. Feeds,
digests, mails and pages carry both.
"""

from __future__ import annotations

THANKS = "Thank you to arXiv for use of its open access interoperability."
NOT_ARXIV = "Etude is neither made nor endorsed by arXiv."
