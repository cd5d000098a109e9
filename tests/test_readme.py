"""The README's Python runs as printed."""

import re
from pathlib import Path

from tests import micro_checkpoint
from tests.micro_checkpoint import CLASSES
from tests.video.tiny_videos import write_video

README = Path(__file__).resolve().parents[1] / 'README.md'


def snippet(name: str) -> str:
  """The fenced Python that follows a comment."""
  found = re.findall(rf'<!-- {name} -->\n```python\n(.*?)\n```\n', README.read_text(), re.DOTALL)
  assert len(found) == 1, f'README.md has {len(found)} snippets {name!r}'
  return found[0]


def test_the_detector_is_used_as_described(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  micro_checkpoint.write(Path('runs/demo/checkpoints'), sure=True)
  write_video(Path('people.mp4'), 10)
  exec(compile(snippet('detector snippet'), str(README), 'exec'), {})
  lines = capsys.readouterr().out.splitlines()
  assert {int(line.split()[0]) for line in lines} == {0, 4, 8}
  for line in lines:
    assert re.fullmatch(rf'\d+ \d+ \[[ \d.]+\] ({"|".join(map(re.escape, CLASSES))})', line)
