"""External data that some tests read where they are available; they are not part of the project.

EVAD_JAX_TEST_DATA names their directory; the default is `shared` beside the repository. Tests whose
files are missing are skipped, with a reason. The directory holds

- golden/: numbers that the published implementation computed from the weights and clips of
  tests/golden_rule.py; tests/golden/README.md describes their names.
- data/ava_eval/: AVA's annotations, v2.2, of https://research.google.com/ava/download.html.
- data/ucf24_mini/, data/jhmdb_mini/: some videos of UCF101 (https://www.crcv.ucf.edu/data/UCF101.php)
  with the corrected annotations, and of JHMDB (http://jhmdb.is.tue.mpg.de).
- data/clips/: videos of any kind, which are compared with FFmpeg's pictures.
"""

import os
from pathlib import Path

VARIABLE = 'EVAD_JAX_TEST_DATA'
DIRECTORY = Path(
  os.environ.get(VARIABLE) or Path(__file__).resolve().parents[1].with_name('shared')
)
DATA, GOLDEN = DIRECTORY / 'data', DIRECTORY / 'golden'


def missing(path: Path) -> str:
  """The reason why a test is skipped."""
  return f'{path} is not there; tests/external.py says where its files are from ({VARIABLE}).'
