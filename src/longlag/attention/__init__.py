"""The attentions, one file per kind, over one cache."""

from longlag.attention.additive import Additive
from longlag.attention.attention import Attention
from longlag.attention.cache import Cache
from longlag.attention.dot_product import DotProduct, rotate
from longlag.attention.local import Local
from longlag.attention.multiplicative import Multiplicative
from longlag.attention.read import Read

__all__ = [
    "Additive",
    "Attention",
    "Cache",
    "DotProduct",
    "Local",
    "Multiplicative",
    "Read",
    "rotate",
]
