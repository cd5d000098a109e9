"""Names and addresses from outside, as they may be shown: whatever prints, and no secrets.

The name of a file may be any bytes; Python keeps those that are not UTF-8 as lone surrogates, which
can neither be printed nor written. An address may have a password or a key in it.
"""

import os
import re

# What cannot be written as UTF-8.
_UNWRITABLE = re.compile('[\ud800-\udfff]')
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')
# Up to the end of the quotes where it stands in some, else of the word; pathlib leaves one slash of
# two. Names of protocols are short: without a limit, long texts would take quadratic time.
_ADDRESS = re.compile(
  r"""(?P<quote>['"])(?P<scheme>[a-z][a-z0-9+.-]{1,20}:/{1,2})(?P<quoted>[^/].*?)(?P=quote)"""
  r"""|(?P<bare_scheme>\b[a-z][a-z0-9+.-]{1,20}:/{1,2})(?P<bare>[^/\s]\S*)""",
  re.IGNORECASE | re.DOTALL,
)
_OF_THE_SENTENCE = ').,:;\'"'  # what may follow an address and belongs to the sentence
_KEY_LENGTH = 20  # letters of a part of a path that has digits too: a key, rather than a name
HIDDEN = '***'


def name_of(path: str | os.PathLike) -> str:
  r"""A name for csv, JSON and pictures: one line of UTF-8, with other bytes as \xe9."""
  return _CONTROL.sub(_escaped, writable(os.fspath(path)))


def writable(text: str) -> str:
  r"""The text with what is not UTF-8 as \xe9, or \ud800 where it is no byte of a file's name."""
  return _UNWRITABLE.sub(_escaped, text)


def _escaped(match: re.Match) -> str:
  code = ord(match[0])
  byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
  return f'\\x{byte:02x}' if byte < 0x100 else f'\\u{code:04x}'


def without_secrets(text: str) -> str:
  """The text without what may be secret in the addresses (rtsp://...) that stand in it.

  All that follows a ?, # or ; is left out; for what stands before an @, and for parts of the path
  that look like keys, there is ***.
  """

  def shown(match: re.Match) -> str:
    if match['quote']:
      return f'{match["quote"]}{match["scheme"]}{_shown(match["quoted"])}{match["quote"]}'
    place = match['bare'].rstrip(_OF_THE_SENTENCE)
    return f'{match["bare_scheme"]}{_shown(place)}{match["bare"][len(place) :]}'

  return _ADDRESS.sub(shown, text)


def address(text: str) -> str:
  """A whole address without its secrets, which may have spaces and quotes in them."""
  scheme, slashes, rest = text.partition('://')
  return name_of(scheme + slashes + _shown(rest))


def _shown(rest: str) -> str:
  """What follows the slashes of an address."""
  # The last @: a password may have any letter, also those that end a host.
  user, at, place = rest.rpartition('@')
  parts = re.split('[?#;]', place, maxsplit=1)[0].split('/')
  parts[1:] = [HIDDEN if _is_key(part) else part for part in parts[1:]]
  return f'{HIDDEN}@' * bool(at) + '/'.join(parts)


def _is_key(part: str) -> bool:
  if '=' in part:
    return True
  name, dot, suffix = part.rpartition('.')
  if dot and len(suffix) <= 4 and suffix.isalnum() and not suffix.isdecimal():
    return False  # video.m3u8
  kinds = (str.isdigit, str.isalpha)
  return len(part) >= _KEY_LENGTH and all(any(map(kind, part)) for kind in kinds)
