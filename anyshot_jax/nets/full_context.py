"""Full-context embedding: each item is seen in the light of the whole support.

Vinyals et al., "Matching networks for one shot learning", 2016, appendix A.1 and A.2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax import nn as jnn


class FullContext(nn.Module):
    """Bidirectional LSTM over the support (in its given order) and attention LSTM on each query.

    Call: (x_s [N, D], x_q [Q, D]) -> (g [N, D], f [Q, D]). `steps`: read-outs of the attention
    LSTM.
    """

    steps: int = 5

    @nn.compact
    def __call__(self, x_s: Array, x_q: Array, *, train: bool, transductive: bool = False):
        del train, transductive  # no batch statistics here
        dim = x_s.shape[-1]
        forwards = nn.OptimizedLSTMCell(dim, name='forwards')
        backwards = nn.OptimizedLSTMCell(dim, name='backwards')
        forwards = nn.RNN(forwards)(x_s[None])[0]
        backwards = nn.RNN(backwards, reverse=True, keep_order=True)(x_s[None])[0]
        g = x_s + forwards + backwards
        cell = nn.OptimizedLSTMCell(dim, name='query')
        hidden, memory = jnp.zeros_like(x_q), jnp.zeros_like(x_q)
        mix = nn.Dense(dim, name='read')  # the cell's state is [h, r] folded back to D
        for _ in range(self.steps):
            read = jnn.softmax(hidden @ g.T) @ g
            state = mix(jnp.concatenate([hidden, read], -1))
            (memory, hidden), _ = cell((memory, state), x_q)
            hidden = hidden + x_q
        return g, hidden


Net = FullContext
