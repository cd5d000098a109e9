"""The log of a run: what is written, and what a restart drops."""

import json
import time

import pytest
from tensorboardX.proto import event_pb2

from evad_jax.data.tfrecord import read_records
from evad_jax.run_log import RunLog, Stopwatch, duration
