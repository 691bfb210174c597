"""The attentions, one file per kind, over one cache."""

from longlag.attention.additive import Additive as Additive
from longlag.attention.attention import Attention as Attention
from longlag.attention.cache import Cache as Cache
from longlag.attention.dot_product import DotProduct as DotProduct
from longlag.attention.dot_product import rotate as rotate
from longlag.attention.local import Local as Local
from longlag.attention.multiplicative import Multiplicative as Multiplicative
