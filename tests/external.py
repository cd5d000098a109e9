"""Data of others that some tests read where a machine has them; they are no part of the project.

EVAD_JAX_TEST_DATA names their directory; without it `shared` beside the repository is looked at.
Tests whose files are not there are skipped, and say so. The directory holds

- golden/: numbers that the published implementation computed from the weights and clips of
  tests/golden_rule.py; tests/golden/README.md says how they are named.
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
  """Why a test is skipped."""
  return f'{path} is not there; tests/external.py says where its files are from ({VARIABLE}).'
