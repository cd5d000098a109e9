"""Makes names and addresses from outside printable, without their secrets.

A file name may be any bytes; Python keeps those that are not UTF-8 as lone surrogates, which can be
neither printed nor written. An address may contain a password or a key.
"""

import os
import re

# What cannot be written as UTF-8.
_UNWRITABLE = re.compile('[\ud800-\udfff]')
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')
# Up to the closing quote where it is quoted, else to the end of the word; pathlib turns two slashes
# into one. Scheme names are short: without a limit, long texts would take quadratic time.
_ADDRESS = re.compile(
  r"""(?P<quote>['"])(?P<scheme>[a-z][a-z0-9+.-]{1,20}:/{1,2})(?P<quoted>[^/].*?)(?P=quote)"""
  r"""|(?P<bare_scheme>\b[a-z][a-z0-9+.-]{1,20}:/{1,2})(?P<bare>[^/\s]\S*)""",
  re.IGNORECASE | re.DOTALL,
)
_OF_THE_SENTENCE = ').,:;\'"'  # may follow an address, but belongs to the sentence
_KEY_LENGTH = 20  # characters: a part this long with both letters and digits is a key, not a name
HIDDEN = '***'


def name_of(path: str | os.PathLike) -> str:
  r"""A name for csv, JSON and pictures: one line of UTF-8, with other bytes as \xe9."""
  return _CONTROL.sub(_escaped, writable(os.fspath(path)))


def writable(text: str) -> str:
  r"""The text with bytes that are not UTF-8 as \xe9, and other lone surrogates as \ud800."""
  return _UNWRITABLE.sub(_escaped, text)


def _escaped(match: re.Match) -> str:
  code = ord(match[0])
  byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
  return f'\\x{byte:02x}' if byte < 0x100 else f'\\u{code:04x}'


def without_secrets(text: str) -> str:
  """The text without possible secrets of the addresses (rtsp://...) in it.

  Everything after a ?, # or ; is dropped; *** replaces what precedes an @, and parts of the path
  that look like keys.
  """

  def shown(match: re.Match) -> str:
    if match['quote']:
      return f'{match["quote"]}{match["scheme"]}{_shown(match["quoted"])}{match["quote"]}'
    place = match['bare'].rstrip(_OF_THE_SENTENCE)
    return f'{match["bare_scheme"]}{_shown(place)}{match["bare"][len(place) :]}'

  return _ADDRESS.sub(shown, text)


def address(text: str) -> str:
  """A text that is one address, without its secrets, which may contain spaces and quotes."""
  scheme, slashes, rest = text.partition('://')
  return name_of(scheme + slashes + _shown(rest))


def _shown(rest: str) -> str:
  """The part of an address after the slashes, without secrets."""
  # The last @: a password may contain any character, also those that end a host.
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
