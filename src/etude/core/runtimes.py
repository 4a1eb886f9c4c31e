"""oneDNN's settings, by its environment variables; a person's own win.

oneDNN keeps the programs of its products. It makes one for each shape, a quarter to half a megabyte
in bfloat16, and keeps 1,024. Packed rows have hundreds of lengths, so that a long run held 0.3 to
0.5 GB of them. oneDNN reads its environment when the first product is computed.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

PRODUCTS = 256
"""Programs of products that oneDNN keeps: those of some 20 lengths of row, every layer's."""

_PRODUCT_SETTINGS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")


def bound_products(environment: MutableMapping[str, str] | None = None) -> None:
    """Let oneDNN keep `PRODUCTS` programs; call it before the first product is computed.

    Args:
        environment: of the process; None: its own.
    """
    environment = os.environ if environment is None else environment
    if not any(name in environment for name in _PRODUCT_SETTINGS):
        environment[_PRODUCT_SETTINGS[0]] = str(PRODUCTS)
