"""The settings of the model in a checkpoint, and those of the configuration that meets it."""

from typing import Any

from ml_collections import ConfigDict

from evad_jax.distributed.processes import tell
from evad_jax.errors import InputError
from evad_jax.model.evad import EVAD

# Of training or of the computation: a checkpoint can be used with any.
FREE = ('drop_path', 'decoder_drop_path', 'proposal_init', 'remat', 'attention', 'dtype')
# What the same parameters can be run with; their figures are those of what they learned with.
BEHAVIOUR = (
  'keep_rate',
  'prune_blocks',
  'enhanced_weight',
  'roi_extension',
  'token_restoring',
  'padding',
)


def plain(value: Any) -> Any:
  """Settings as JSON gives them back: lists for tuples, and floats for their equal integers."""
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def saved_settings(settings: dict[str, Any], where: Any) -> dict[str, Any]:
  """The model's settings of a checkpoint, complete: what it did not know yet has its default.

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
  """The keys whose values are not equal, in order."""
  return [key for key in keys if plain(ours[key]) != plain(theirs[key])]


def for_evaluation(config: ConfigDict, settings: dict[str, Any], where: Any) -> ConfigDict:
  """A configuration to evaluate a checkpoint with, after both have been compared.

  Where they agree on the architecture, the checkpoint decides on keep rates and the like, unless
  config.eval.settings is 'config'. Prints what differs.

  Raises InputError naming the keys where they are different models.
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
  """Raises InputError for a converted encoder, which cannot detect anything yet."""
  kind = settings.get('source', {}).get('kind', 'detector')
  if kind != 'detector':
    raise InputError(
      f'{where}: holds an encoder without a detector ({settings["source"]["title"]}); train from '
      f'it with --config.init_from={where}, and evaluate what comes out.'
    )


def tell_other_classes(settings: dict[str, Any], classes: list[str]) -> None:
  """Prints where the data have as many classes as the checkpoint, but others or in another order.

  Renaming is harmless, so this is no error; the figures tell.
  """
  known = settings.get('classes') or classes
  other = [i for i, (a, b) in enumerate(zip(known, classes, strict=True)) if a != b]
  if other:
    i = other[0]
    tell(
      f'Attention: {len(other)} of {len(classes)} classes have other names in the data than when '
      f'the checkpoint was trained; the first is number {i}, {classes[i]!r} instead of '
      f'{known[i]!r}. If that is another order, the figures mean nothing.',
    )


def _pairs(keys: list[str], ours: dict[str, Any], theirs: dict[str, Any]) -> str:
  return ', '.join(
    f'{k} is {theirs[k]} in the checkpoint and {ours[k]} in config.model' for k in keys
  )
