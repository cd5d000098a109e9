"""The objective of pre-training: the masked tubelets' pixels (VideoMAE; VideoMAE v2).

The loss of a clip is the mean squared error over all numbers of its predicted tubelets. With
running cells these are the masked ones that have their turn, always as many, so that a plain mean
is the published sum over a count.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evad_jax.model import masking, tubelet_pixels
from evad_jax.model.layers import at_least_float32
from evad_jax.model.masked_autoencoder import (
  MaskedAutoencoder,
  Predictions,
  normalize_by_channel,
)
from evad_jax.model.masking import Places

Array = jax.Array


class PixelTerms(NamedTuple):
  """Mean squared errors per number, () float32: the loss, and what it is to be compared with."""

  error: Array  # of the prediction
  of_zero: Array  # of zeros: 511/512 with standardised targets of 512 pixels, less for flat ones


def pixel_targets(
  clips: Array,  # (B, T, H, W, 3) uint8
  places: Array,  # (B, M), indices of tokens in time order
  *,
  tubelet: int,
  patch: int,
  standardised: bool = True,
  dtype: jnp.dtype = jnp.float32,
) -> Array:  # (B, M, tubelet * patch * patch * 3)
  """What the model is to predict: each tubelet and channel standardised, or pixels in [0, 1].

  Raises InputError for a clip that does not divide into tubelets.
  """
  pixels = tubelet_pixels.pixels_at(clips, places, tubelet, patch)
  if not standardised:
    return pixels.astype(dtype) / 255
  return tubelet_pixels.standardise(pixels, dtype)


def pretraining_loss_terms(
  params: Any,
  clips: Array,  # (B, T, H, W, 3) uint8
  key: Array,  # of the masks of these clips
  example_mask: Array | None,  # (B,) bool, clips that count; None: all
  *,
  model: MaskedAutoencoder,
  mask_ratio: float,  # hidden part of a time step's tokens; published: 0.9
  decoder_mask: str = 'none',  # or 'running_cell' (v2)
  standardised: bool = True,  # targets
  count: Array | None = None,  # clips that count in the whole batch; None: in these clips
) -> tuple[Array, PixelTerms]:
  """The loss, (), and its terms, with one mask for each clip, drawn here.

  Raises InputError where clips, masks and model do not fit together.
  """
  grid = tubelet_pixels.grid_of(clips.shape[1:4], model.tubelet, model.patch)
  places = masking.draw(key, len(clips), grid, mask_ratio, decoder_mask)
  return terms_at(
    params, clips, places, example_mask, model=model, standardised=standardised, count=count
  )


def terms_at(
  params: Any,
  clips: Array,  # (B, T, H, W, 3) uint8
  places: Places,
  example_mask: Array | None,  # (B,) bool, clips that count; None: all
  *,
  model: MaskedAutoencoder,
  standardised: bool = True,
  count: Array | None = None,  # clips that count in the whole batch; None: in these clips
) -> tuple[Array, PixelTerms]:
  """The loss, (), and its terms, for given masks.

  A sum over the given clips divided by `count`: with the count of the whole batch, terms and
  gradients of microbatches add up to its own. Without any clip that counts, all are 0.
  """
  wide = at_least_float32(model.dtype)
  normal = normalize_by_channel(clips, model.dtype)
  predictions = model.apply({'params': params}, normal, places)
  targets = pixel_targets(
    clips,
    places.predicted,
    tubelet=model.tubelet,
    patch=model.patch,
    standardised=standardised,
    dtype=wide,
  )
  counts = jnp.ones(len(clips), bool) if example_mask is None else example_mask
  count = jnp.maximum(counts.sum() if count is None else count, 1).astype(wide)

  def mean(squares: Array) -> Array:
    return jnp.where(counts, squares.mean(axis=(1, 2)), 0).sum() / count

  error = mean((predictions.pixels.astype(wide) - targets) ** 2)
  return error, PixelTerms(error, mean(targets**2))


def reconstructions(
  clips: Array,  # (B, T, H, W, 3) uint8
  predictions: Predictions,
  *,
  tubelet: int,
  patch: int,
  standardised: bool = True,  # as the targets were
) -> Array:  # (B, T, H, W, 3) float32, grey levels in [0, 255]
  """The clips with the predicted pixels in place of the true ones, for pictures.

  Standardised predictions get mean and deviation of the true tubelets, as is usual.
  """
  pixels, places = predictions.pixels.astype(jnp.float32), predictions.places.predicted
  if standardised:
    true = tubelet_pixels.pixels_at(clips, places, tubelet, patch)
    pixels = tubelet_pixels.restore(pixels, true)
  else:
    pixels = 255 * pixels
  return jnp.clip(tubelet_pixels.fill_in(clips, pixels, places, tubelet, patch), 0, 255)
