"""Checks values from outside: settings of a configuration, a checkpoint, a manifest.

A rule takes a value and returns what it must be, or '' for a valid value. `check` applies one rule
to each named value of a section.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from evad_jax.errors import InputError

Rule = Callable[[Any], str]
_SHOWN = 60  # characters of a value in a message


def whole(least: int, most: int) -> Rule:
  """An integer in [least, most], not a bool."""

  def rule(value: Any) -> str:
    if type(value) is not int:
      return 'a whole number'
    if value < least:
      return f'at least {least}'
    return f'at most {most}' * (value > most)

  return rule


def number(
  least: float = -math.inf, most: float = math.inf, *, above: bool = False, below: bool = False
) -> Rule:
  """A finite number in [least, most]; above, below: without the lower or upper end."""

  def rule(value: Any) -> str:
    # Beyond 1e300 an integer may not fit a float.
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
      return 'a finite number'
    if math.isfinite(least) and math.isfinite(most):
      ends = f'{"(" if above else "["}{least:g}, {most:g}{")" if below else "]"}'
      words = f'in {ends}' if above or below else f'from {least:g} to {most:g}'
    else:
      words = f'above {least:g}' if above else f'at least {least:g}'
    good = least < value if above else least <= value
    return words * (not (good and (value < most if below else value <= most)))

  return rule


def one_of(*choices: Any) -> Rule:
  """One of these values, with its type."""

  def rule(value: Any) -> str:
    fits = any(type(value) is type(choice) and value == choice for choice in choices)
    return '' if fits else f'one of {", ".join(map(str, choices))}'

  return rule


truth = one_of(True, False)


def text(value: Any) -> str:
  """Any string."""
  return '' if isinstance(value, str) else 'a string'


def rows(of: Rule, least: int = 0, most: int = 10**6) -> Rule:
  """A list of values that another rule allows, with a length in [least, most]."""
  length = f'{least}' if least == most else f'{least} to {most}'

  def rule(value: Any) -> str:
    if not isinstance(value, tuple | list):
      return 'a list'
    if not least <= len(value) <= most:
      return f'a list of {length}'
    faults = ((item, of(item)) for item in value)
    return next(
      (f'a list in which {shown(item)} is {fault}' for item, fault in faults if fault), ''
    )

  return rule


def mapping(of: Rule) -> Rule:
  """A mapping of names to values that another rule allows."""

  def rule(value: Any) -> str:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
      return 'an object'
    faults = ((name, of(item)) for name, item in value.items())
    return next(
      (f'an object in which {shown(name)} is {fault}' for name, fault in faults if fault), ''
    )

  return rule


def either(*rules: Rule) -> Rule:
  """A value that one of several rules allows; errors quote the first rule."""
  return lambda value: '' if any(not rule(value) for rule in rules) else rules[0](value)


def check(section: Any, rules: Mapping[str, Rule], where: str) -> None:
  """Checks the values that a section has against the rules of their names.

  where: prefix of the names, such as 'config.train.'. Raises InputError for a section that is not a
  mapping, and for the first value that breaks its rule. Names without a rule pass.
  """
  if not isinstance(section, Mapping):
    raise InputError(f'{where.rstrip(".: ")} is {shown(section)}, but must be an object.')
  for name, rule in rules.items():
    fault = rule(section[name]) if name in section else ''
    if fault.startswith('one of'):
      raise InputError(f'{where}{name}={shown(section[name])} is not {fault}.')
    if fault:
      raise InputError(f'{where}{name}={shown(section[name])} must be {fault}.')


def shown(value: Any) -> str:
  """The repr of a value, truncated where it is long."""
  written = repr(value)
  return written if len(written) <= _SHOWN else f'{written[:_SHOWN]}...'
