"""Compares the model settings of a checkpoint with those of a configuration."""

from typing import Any

from ml_collections import ConfigDict

from evad_jax.distributed.processes import tell
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD

# Settings of training or computation: a checkpoint works with any value.
FREE = ('drop_path', 'decoder_drop_path', 'proposal_init', 'remat', 'attention', 'dtype')
# Settings that the same parameters can run with; metrics are those of the trained values.
BEHAVIOUR = (
  'keep_rate',
  'prune_blocks',
  'enhanced_weight',
  'roi_extension',
  'token_restoring',
  'padding',
)


def plain(value: Any) -> Any:
  """Settings as JSON returns them: lists for tuples, floats for equal integers."""
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def saved_settings(settings: dict[str, Any], where: Any) -> dict[str, Any]:
  """The complete model settings of a checkpoint: settings newer than it have their defaults.

  Raises InputError for settings that this version does not know.
  """
  saved = settings['model']
  unknown = sorted(set(saved) - set(EVAD.__dataclass_fields__))
  if unknown:
    raise InputError(
      f'{where}: the checkpoint has the model settings {", ".join(unknown)}, which this version '
      'does not know; use the version that wrote it.'
    )
  fields = EVAD.__dataclass_fields__
  defaults = {key: fields[key].default for key in fields if key not in ('parent', 'name')}
  saved = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
  return defaults | {'dtype': 'float32'} | saved


def differing(ours: dict[str, Any], theirs: dict[str, Any], keys: Any) -> list[str]:
  """The keys whose values differ, in order."""
  return [key for key in keys if plain(ours[key]) != plain(theirs[key])]


def for_evaluation(config: ConfigDict, settings: dict[str, Any], where: Any) -> ConfigDict:
  """Compares the two, and returns the configuration to evaluate a checkpoint with.

  Where the architectures agree, keep rates and the like come from the checkpoint, unless
  config.eval.settings is 'config'. Prints what differs.

  Raises InputError naming the keys in which the architectures differ.
  """
  check_complete(settings, where)
  theirs, ours = saved_settings(settings, where), config.model.to_dict()
  wrong = differing(ours, theirs, [key for key in ours if key not in FREE + BEHAVIOUR])
  if wrong:
    raise InputError(
      f'{where}: the checkpoint is of another model: '
      f'{_pairs(wrong, ours, theirs)}; use the configuration it was trained with.'
    )
  other = differing(ours, theirs, BEHAVIOUR)
  if other:
    chosen = config.eval.settings
    rest = ' (--config.eval.settings=config takes those of the configuration)'
    tell(
      f"Using the {chosen}'s settings where they differ: {_pairs(other, ours, theirs)}"
      f'{rest if chosen == "checkpoint" else ""}',
    )
  if config.eval.settings == 'config' or not other:
    return config
  config = config.copy_and_resolve_references()
  with config.ignore_type():  # one keep rate, or one for each block
    config.model.update({key: theirs[key] for key in BEHAVIOUR})
  return config


def check_complete(settings: dict[str, Any], where: Any) -> None:
  """Raises InputError for a converted encoder, which has no detector yet."""
  kind = settings.get('source', {}).get('kind', 'detector')
  if kind != 'detector':
    raise InputError(
      f'{where}: holds an encoder without a detector ({settings["source"]["title"]}); train from '
      f'it with --config.init_from={where}, and evaluate the result.'
    )


def tell_other_classes(settings: dict[str, Any], classes: list[str]) -> None:
  """Warns where the data have as many classes as the checkpoint, but other names or another order.

  A warning and no error, as renaming is harmless; the metrics show another order.
  """
  known = settings.get('classes') or classes
  other = [i for i, (a, b) in enumerate(zip(known, classes, strict=True)) if a != b]
  if other:
    i = other[0]
    tell(
      f'Warning: {len(other)} of {len(classes)} classes have other names in the data than in the '
      f'checkpoint; the first is at index {i}, {classes[i]!r} instead of {known[i]!r}. If the '
      'order differs, the metrics mean nothing.',
    )


def _pairs(keys: list[str], ours: dict[str, Any], theirs: dict[str, Any]) -> str:
  return ', '.join(
    f'{k} is {theirs[k]} in the checkpoint and {ours[k]} in config.model' for k in keys
  )
