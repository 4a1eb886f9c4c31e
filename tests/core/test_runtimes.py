"""What oneDNN is told, and that a person's own word stays."""

from __future__ import annotations

from etude.core.runtimes import PRODUCTS, bound_products


def test_onednn_is_bounded_where_the_user_said_nothing():
    environment: dict[str, str] = {}
    bound_products(environment)
    assert environment == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(PRODUCTS)}
    own = {"DNNL_PRIMITIVE_CACHE_CAPACITY": "9"}
    bound_products(own)
    assert own == {"DNNL_PRIMITIVE_CACHE_CAPACITY": "9"}
