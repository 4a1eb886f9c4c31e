"""arXiv's category taxonomy and the OAI-PMH sets of the categories.

Source: https://arxiv.org/category_taxonomy. Closed categories are omitted: nothing
new is announced in them.
"""

from __future__ import annotations

_CLASSES = {
    "cs": (
        "AI AR CC CE CG CL CR CV CY DB DC DL DM DS ET FL GL GR GT HC IR IT LG LO MA MM MS NA NE NI "
        "OH OS PF PL RO SC SD SE SI SY"
    ),
    "econ": "EM GN TH",
    "eess": "AS IV SP SY",
    "math": (
        "AC AG AP AT CA CO CT CV DG DS FA GM GN GR GT HO IT KT LO MG MP NA NT OA OC PR QA RA RT SG "
        "SP ST"
    ),
    "astro-ph": "CO EP GA HE IM SR",
    "cond-mat": "dis-nn mes-hall mtrl-sci other quant-gas soft stat-mech str-el supr-con",
    "nlin": "AO CD CG PS SI",
    "physics": (
        "acc-ph ao-ph app-ph atm-clus atom-ph bio-ph chem-ph class-ph comp-ph data-an ed-ph "
        "flu-dyn gen-ph geo-ph hist-ph ins-det med-ph optics plasm-ph pop-ph soc-ph space-ph"
    ),
    "q-bio": "BM CB GN MN NC OT PE QM SC TO",
    "q-fin": "CP EC GN MF PM PR RM ST TR",
    "stat": "AP CO ME ML OT TH",
    "gr-qc": "",
    "hep-ex": "",
    "hep-lat": "",
    "hep-ph": "",
    "hep-th": "",
    "math-ph": "",
    "nucl-ex": "",
    "nucl-th": "",
    "quant-ph": "",
}
_PHYSICS = {
    *("astro-ph", "cond-mat", "nlin", "physics", "gr-qc", "hep-ex", "hep-lat", "hep-ph"),
    *("hep-th", "math-ph", "nucl-ex", "nucl-th", "quant-ph"),
}

CATEGORIES = frozenset(
    f"{archive}.{name}" if name else archive
    for archive, names in _CLASSES.items()
    for name in (names.split() or [""])
)
"""Every open category."""


def oai_set(category: str) -> str:
    """Return the OAI-PMH set of a category: ``cs:cs:CV`` of ``cs.CV``, ``physics:hep-th``."""
    archive, _, name = category.partition(".")
    group = "physics" if archive in _PHYSICS else archive
    return ":".join([group, archive, name] if name else [group, archive])


def category_of(oai_set: str) -> str:
    """Return the category of an OAI-PMH set; a group or archive gives its own name."""
    return ".".join(oai_set.split(":")[1:]) or oai_set
