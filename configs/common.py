"""Every configuration key once, with a comment; the other files change what differs.

Defaults are the published AVA recipe of ViT-B at keep rate 0.7. A key that is not here is an error.
Sections become keyword arguments: `model` of EVAD, `clip` of ClipSettings.
"""

import math

from ml_collections import ConfigDict, config_dict

from evad_jax.errors import InputError
from evad_jax.model import sizes


def get_config() -> ConfigDict:
  """The complete set of keys; `data.directory` and `model.num_actions` have to be set."""
  config = ConfigDict()
  config.name = ''  # of the run; the default working directory is runs/NAME
  config.seed = 0  # of start values, order of clips, mirroring and drop path
  config.matmul_precision = 'highest'  # of float32 products; 'default' is faster and coarser
  # Checkpoints: of a run or converted; a directory of them, one step in it, or a run's directory.
  config.init_from = ''  # whose parameters training starts with; empty: random ones
  config.checkpoint = ''  # that --mode=eval evaluates; empty: the working directory's own

  config.data = ConfigDict()
  config.data.directory = ''  # of prepared records
  config.data.prepare_command = ''  # shown where nothing is prepared
  config.data.synthetic = ''  # 'easy' or 'hard': made on the spot where the directory is missing
  config.data.train_split = 'train'
  config.data.eval_split = 'test'
  # A run whose classes, examples, splits or sizes of clips are not those of its checkpoints is
  # refused; 'accept' goes on with what is there.
  config.data.if_changed = 'refuse'
  config.data.workers = 0  # processes that decode; 0: threads of this process alone
  config.data.threads = 4  # that decode, in each process
  # Batches made ahead by each worker, or by the threads; with fewer than twice the threads, a
  # thread that is ready waits for the batch before its own.
  config.data.prefetch = 8
  # Clips that cannot be read, the bytes on the disk being damaged: 'stop', or 'skip' them, which
  # names and counts them; their places in batches stay empty.
  config.data.unreadable = 'stop'

  config.clip = ConfigDict()
  config.clip.clip_frames = 16  # T
  config.clip.frame_stride = 4  # frames of the video between two of the clip
  # Heights and widths; every clip goes to the one it wastes least of. Multiples of 2 * patch, and
  # one compiled program each: 4:3, 16:9, 1.85:1, 2.35:1, and wider.
  config.clip.canvases = ((288, 384), (288, 512), (288, 544), (288, 704), (288, 768))
  config.clip.short_side = 288  # pixels; 0: as large as a canvas allows
  config.clip.max_long = 1333  # pixels, bound of the long side
  config.clip.flip_probability = 0.5  # of mirroring a training clip
  config.clip.max_boxes = 64  # people in a clip at most; at most model.num_proposals
  config.clip.reduced_decoding = False  # of large frames: faster, but other pixels

  config.model = vit_b()
  config.model.num_actions = 80

  config.loss = ConfigDict()
  config.loss.action_weight = 12.0  # 12 for ViT-B, 6 for ViT-L

  config.optimizer = ConfigDict()
  config.optimizer.rate = 2.5e-5  # for a batch of ...
  config.optimizer.rate_batch_size = 16  # ... this size; rates grow linearly with the batch
  config.optimizer.head_multiplier = 8.0  # person stages and decoder over encoder
  config.optimizer.schedule = 'step'  # or 'cosine'
  config.optimizer.warmup_epochs = 2.0
  config.optimizer.warmup_start = 2.5e-6  # rate at the first step
  config.optimizer.milestones = (5.0, 8.0)  # epochs at which ...
  config.optimizer.factors = (0.1, 0.01)  # ... the rate becomes this part of `rate`
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.eps = 1e-8
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.0  # of the global gradient; 0: off, as published
  config.optimizer.layer_decay = 1.0  # of the rate per encoder block from the top; 1: off

  config.train = ConfigDict()
  config.train.batch_size = 16  # clips, over all devices and processes
  config.train.epochs = 12.0
  config.train.accumulation = 1  # parts that a batch is computed in, to save memory
  config.train.ema_decay = 0.0  # of a moving average of the parameters; 0: off
  # Keep rates that take turns, each a compiled program, so that one model serves every budget;
  # empty: config.model.keep_rate alone. It stays the rate of evaluations.
  config.train.keep_rates = ()
  # Weight, against the action loss, of the distance to the actions that the same parameters give
  # without pruning; 0: off. It costs one more forward pass of everything.
  config.train.consistency = 0.0
  config.train.non_finite = 'stop'  # at such a loss or gradient, or 'skip' the update and count
  config.train.log_every = 50  # steps
  config.train.eval_every = 0  # steps; 0: after the last only
  config.train.checkpoint_every = 1000  # steps
  config.train.keep_checkpoints = 2  # the newest; the best stays beside them

  config.eval = ConfigDict()
  config.eval.batch_size = 16
  config.eval.step = 0  # of the checkpoint; 0: the newest, -1: the best
  config.eval.settings = 'checkpoint'  # whose keep rate and the like count: or 'config'
  config.eval.scoring = 'action'  # or 'person_times_action' over all proposals
  config.eval.person_threshold = 0.7  # boxes below count only where a frame has none above
  config.eval.max_per_frame = 0  # highest scores of a frame that count; 0: all, 50: AVA's server
  config.eval.linking = 'greedy'  # of boxes to tubes, or 'viterbi', 'multisports'; see tubes/rules
  config.eval.keyframe_only = False  # replace every frame by the keyframe: what a still tells
  config.eval.sheet_clips = 12  # on the contact sheet; 0: no sheet

  config.profile = ConfigDict()
  config.profile.start = 0  # first step, or batch with --mode=eval, of a trace; 0: none
  config.profile.steps = 5  # in it; it goes to WORKDIR/profile

  config.hosts = ConfigDict()
  config.hosts.launch = 'alone'  # 'auto': as a TPU pod, Slurm or MPI says; 'explicit': as below
  config.hosts.coordinator = ''  # HOST:PORT of process 0
  config.hosts.processes = 1
  config.hosts.process = 0  # which of them this is
  config.hosts.agree_every = 10  # steps, after which processes ask each other for a SIGTERM

  config.mesh = ConfigDict()
  config.mesh.model = 1  # devices that share a clip, each with a part of the heads; all others ...
  config.mesh.fsdp = False  # ... split the batch; True: parameters and optimizer state as well
  # Type in which devices add up gradients of kernels; 'compute': that of the model, which halves
  # the exchange where it has 16 bits.
  config.mesh.gradient_dtype = 'float32'
  return config


def vit_b() -> ConfigDict:
  """Keyword arguments of EVAD; see evad_jax/model/evad.py for what each is."""
  model = ConfigDict(sizes.VIT_B)
  model.patch = 16
  model.tubelet = 2
  model.pretrain_size = 224
  model.keep_rate = 0.7
  model.enhanced_weight = 1.0
  model.detector_width = 256
  model.num_proposals = 100
  model.num_stages = 6
  model.dynamic_width = 64
  model.feed_forward = 2048
  model.proposal_init = 'image'
  model.roi_extension = (0.4, 0.2)
  model.token_restoring = 'scatter'
  model.action_hidden = 2048
  model.padding = 'masked'
  # Compute activations again in the backward pass (True) or keep them (False); 'auto': keep them
  # where an accelerator has the memory. Of any type, so that the command line may give all three.
  model.remat = config_dict.FieldReference('auto', field_type=object)
  model.attention = 'auto'  # form of its computation: or 'plain', 'blocked', 'fused'
  # Of the computation: 'float32', 'bfloat16', or 'auto', which is the latter where a device has it
  # fast: TPUs, and CUDA from compute capability 8.0 on. Parameters are always float32.
  model.dtype = 'auto'
  return model


def set_vit_l(config: ConfigDict) -> None:
  """Changes a configuration to ViT-L and its published recipe (batch 8)."""
  config.model.update(sizes.VIT_L)
  config.loss.action_weight = 6.0
  config.optimizer.rate = 1e-5
  config.optimizer.rate_batch_size = 8
  config.train.batch_size = 8


def set_size(config: ConfigDict, size: str) -> None:
  """Changes a configuration of videos to 'B' (as it is), 'L' or 'small'."""
  if size == 'L':
    set_vit_l(config)
  elif size == 'small':
    set_small_video(config)
  elif size != 'B':
    raise InputError(f"{config.name}: the size {size!r} is none of 'B', 'L' and 'small'.")
  config.name = f'{config.name}_{size.lower()}'


def set_small_video(config: ConfigDict) -> None:
  """Half the frames over the same time, a short side of 120 pixels, 4 encoder blocks."""
  set_small(config)
  config.clip.update(clip_frames=8, frame_stride=8, short_side=120)
  # The same shapes as at 288 pixels, in multiples of 32.
  widths = [math.ceil(width / height * 120 / 32) * 32 for height, width in config.clip.canvases]
  config.clip.canvases = tuple((128, width) for width in sorted(set(widths)))
  config.model.update(patch=16, pretrain_size=128, width=96, num_heads=3)
  config.model.num_proposals = max(16, config.clip.max_boxes)
  config.optimizer.clip_norm = 1.0
  config.train.update(batch_size=16, epochs=40.0, log_every=25, checkpoint_every=250)
  config.eval.batch_size = 32


def set_small(config: ConfigDict) -> None:
  """Changes a configuration to a size that two CPU cores can train; same modules throughout."""
  config.model.update(
    width=64,
    depth=4,
    num_heads=4,
    patch=8,
    prune_blocks=(1, 2),
    feature_blocks=(0, 1, 2, 3),
    drop_path=0.0,
    detector_width=64,
    detector_heads=4,
    num_proposals=12,
    num_stages=3,
    dynamic_width=16,
    feed_forward=256,
    proposal_init='grid',
    decoder_width=64,
    decoder_depth=2,
    decoder_heads=4,
    decoder_drop_path=0.0,
    action_hidden=256,
    remat=False,
    dtype='float32',
  )
  config.optimizer.update(
    rate=1e-3, head_multiplier=1.0, schedule='cosine', warmup_epochs=0.5, warmup_start=1e-5, b2=0.95
  )
