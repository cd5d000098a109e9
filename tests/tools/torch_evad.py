"""Encoder, pruning and decoder in eager PyTorch, the baseline that ours is timed against.

Written from this project's own modules, with its parameters; person detector and RoIAlign are left
out, so the actor features are an argument. Attention is either spelled out, or PyTorch's fused
scaled_dot_product_attention wherever nothing is pruned, which needs the matrix for the importance.
"""

import jax
import numpy as np
import torch
from torch.nn import functional

from evad_jax.model.position_embedding import position_table
from evad_jax.model.token_pruning import num_kept


def to_torch(params):
  """Parameters of EVAD with kernels as torch.nn.Linear stores them, (out, in)."""

  def convert(path, leaf):
    array = np.asarray(leaf)
    if path[-1].key == 'kernel' and array.ndim == 2:
      array = array.T
    return torch.from_numpy(np.array(array, order='C'))

  return jax.tree_util.tree_map_with_path(convert, dict(params))


def linear(p, x):
  return functional.linear(x, p['kernel'], p.get('bias'))


def layer_norm(p, x, eps):
  return functional.layer_norm(x, x.shape[-1:], p['scale'], p['bias'], eps)


def attention(p, x, num_heads, query_weight, fused):
  """x (B, n, D), query_weight (n,) or None -> (B, n, D), importance (B, n) or None."""
  b, n, width = x.shape
  bias = torch.cat([p['q_bias'], torch.zeros_like(p['q_bias']), p['v_bias']])
  qkv = functional.linear(x, p['qkv']['kernel'], bias).reshape(b, n, 3, num_heads, -1)
  query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, n, d)
  importance = None
  if fused and query_weight is None:
    out = functional.scaled_dot_product_attention(query, key, value)
  else:
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
    out = weights @ value
    if query_weight is not None:
      importance = (query_weight @ weights).mean(dim=1) / n
  return linear(p['out'], out.transpose(1, 2).reshape(b, n, width)), importance


def prune(x, places, importance, keyframe, kept):
  """Keeps the keyframe's tokens and the most important others, in order of importance."""
  chosen = importance[:, keyframe:].topk(kept, dim=1).indices  # (B, K)
  others = x[:, keyframe:].gather(1, chosen[..., None].expand(-1, -1, x.shape[2]))
  return torch.cat([x[:, :keyframe], others], dim=1), places.gather(1, chosen)


def block(p, x, places, num_heads, *, kept=None, enhanced_weight=1.0, fused):
  """One transformer block, which prunes to `kept` non-keyframe tokens where that is given."""
  keyframe = x.shape[1] - places.shape[1]
  weight = None
  if kept is not None:
    weight = x.new_ones(x.shape[1])
    weight[:keyframe] = enhanced_weight
  residual, importance = attention(
    p['attention'], layer_norm(p['norm1'], x, 1e-6), num_heads, weight, fused
  )
  x = x + residual
  if kept is not None:
    x, places = prune(x, places, importance, keyframe, kept)
  hidden = functional.gelu(linear(p['mlp']['fc1'], layer_norm(p['norm2'], x, 1e-6)))
  return x + linear(p['mlp']['fc2'], hidden), places


def keyframe_first(x):
  """(B, t, S, D) -> (B, t*S, D)."""
  middle = x.shape[1] // 2
  return torch.cat([x[:, middle : middle + 1], x[:, :middle], x[:, middle + 1 :]], dim=1).flatten(
    1, 2
  )


class TorchEvad:
  """The same settings as a model of this project, for one canvas."""

  def __init__(self, model, params, canvas, frames, fused):
    self.model, self.params, self.fused = model, to_torch(params), fused
    grid = (frames // model.tubelet, *(side // model.patch for side in canvas))
    pretrain = (model.pretrain_size // model.patch,) * 2
    self.grid = grid
    self.codes, self.decoder_codes = (
      torch.tensor(position_table(grid, pretrain, width), dtype=torch.float32)
      for width in (model.width, model.decoder_width)
    )

  def to(self, device, dtype):
    """Moves it there, all of it in that type."""
    self.params = jax.tree.map(lambda x: x.to(device, dtype), self.params)
    self.codes, self.decoder_codes = (x.to(device, dtype) for x in (self.codes, self.decoder_codes))
    return self

  def encode(self, clips):
    """clips (B, T, H, W, 3), normalised -> tokens (B, S + K, D) after the norm, indices (B, K)."""
    model, p = self.model, self.params['encoder']
    t, h, w = self.grid
    b, f, s = len(clips), model.tubelet, model.patch
    x = clips.reshape(b, t, f, h, s, w, s, 3).permute(0, 1, 3, 5, 2, 4, 6, 7)
    x = linear(p['tubelets']['projection'], x.reshape(b, t * h * w, -1)) + self.codes
    x = keyframe_first(x.reshape(b, t, h * w, -1))
    places = torch.arange((t - 1) * h * w, device=x.device).expand(b, -1)
    for i, rate in enumerate(model.block_keep_rates()):
      kept = None if rate == 1 else num_kept(x.shape[1], h * w, rate, i)
      x, places = block(
        p[f'block_{i}'],
        x,
        places,
        model.num_heads,
        kept=kept,
        enhanced_weight=model.enhanced_weight,
        fused=self.fused,
      )
    return layer_norm(p['norm'], x, 1e-6), places

  def decode(self, x, places, actors):
    """Tokens, their indices and actors (B, P, C) -> action logits (blocks, B, P, A)."""
    p = self.params['context_refinement']
    t, h, w = self.grid
    kept = linear(p['projection'], x)
    codes = keyframe_first(self.decoder_codes.reshape(1, t, h * w, -1))[0]
    order = places if self.model.token_restoring == 'scatter' else places.sort(dim=1).values
    codes = torch.cat([codes[: h * w].expand(len(x), -1, -1), codes[h * w + order]], dim=1)
    x = torch.cat([kept + codes, actors], dim=1)
    none = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
    logits = []
    for i in range(self.model.decoder_depth):
      x, _ = block(p[f'block_{i}'], x, none, self.model.decoder_heads, fused=self.fused)
      head = p[f'action_head_{i}']
      hidden = linear(head['hidden'], x[:, -actors.shape[1] :])
      hidden = functional.relu(layer_norm(head['norm'], hidden, 1e-5))
      logits.append(linear(head['action_logits'], hidden))
    return torch.stack(logits)

  @torch.inference_mode()
  def __call__(self, clips, actors):
    """clips (B, T, H, W, 3) and actors (B, P, C), tensors -> action logits (blocks, B, P, A)."""
    return self.decode(*self.encode(clips), actors)
