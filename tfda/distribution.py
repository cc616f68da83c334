"""tf.distribute strategies, and what the workers of one run agree on.

All workers run the same program on the same settings: every one reads its own
part of the same batches and holds the same weights. The chief alone writes.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf

from tfda import checkpoints, errors, run_directory

# Settings that may differ between workers: paths, and which one it is.
_LOCAL = (
  'data_dir',
  'translation',
  'cache_dir',
  'run_dir',
  'workers',
  'worker_index',
)
# What a collective operation ends with where a worker is gone.
_LOST = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.InternalError,
  tf.errors.DeadlineExceededError,
)
_POLL = 0.2  # Seconds between looks for another worker.
_PATIENCE = 2.0  # Seconds for one of them.
_TEXT_BYTES = 1 << 16  # Of what workers compare: flags and data, some 5 KiB.


def make_strategy(settings):
  """The tf.distribute strategy of an Experiment or a Translation.

  Of several workers it must be made before TensorFlow computes anything.

  Raises:
    UsageError: the settings or the machine do not allow it.
  """
  return _STRATEGIES[settings.strategy](settings)


def _one(settings):
  del settings
  return tf.distribute.get_strategy()


def _mirrored(settings):
  del settings
  devices = [d.name for d in tf.config.list_logical_devices('GPU')]
  if devices:
    return tf.distribute.MirroredStrategy(devices)
  # The collectives of CPUs keep shapes from one run of a process to the next.
  return tf.distribute.MirroredStrategy(
    [d.name for d in tf.config.list_logical_devices('CPU')],
    tf.distribute.ReductionToOneDevice(),
  )


def _tpu(settings):
  del settings
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
  except (ValueError, tf.errors.OpError) as error:
    raise errors.UsageError(
      '--strategy=tpu: no TPU was found; TPU_NAME names one'
    ) from error
  return tf.distribute.TPUStrategy(resolver)


def _multi_worker(settings):
  addresses, index = cluster(settings)
  _meet(addresses, index)
  resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({'worker': addresses}),
    task_type='worker',
    task_id=index,
    rpc_layer='grpc',
  )
  handler = signal.getsignal(signal.SIGTERM)
  try:
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
  except tf.errors.OpError as error:
    raise errors.RunError(
      f'the workers {", ".join(addresses)} did not find each other: '
      f'{str(error).splitlines()[0]}'
    ) from error
  # TensorFlow's own, which is there now, lets the process live on.
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, handler)
  return strategy


def _meet(addresses, index):
  """Waits until all workers have begun.

  In TensorFlow, which would wait too, no signal is heard, and a port that is in
  use ends the process.
  """
  port = int(addresses[index].rpartition(':')[2])
  try:
    listener = socket.create_server(('', port))
  except OSError as error:
    raise errors.UsageError(
      f'port {port} of this worker, {addresses[index]}, cannot be had: '
      f'{error.strerror}; another process may have it'
    ) from error
  missing = [a for i, a in enumerate(addresses) if i != index]
  if missing:
    print(
      f'worker {index} at {addresses[index]} waits for {", ".join(missing)}',
      flush=True,
    )
  with listener:
    while missing:
      missing = [address for address in missing if not _answers(address)]
      time.sleep(_POLL if missing else 0.0)


def _answers(address):
  """Whether somebody listens at host:port."""
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host, int(port)), _PATIENCE).close()
  except OSError:  # No such host is one: its name may come with it.
    return False
  return True


_STRATEGIES = {
  'one': _one,
  'mirrored': _mirrored,
  'multi_worker': _multi_worker,
  'tpu': _tpu,
}
NAMES = tuple(_STRATEGIES)


def cluster(settings):
  """Returns (addresses, index) of a run of several workers.

  Of --workers and --worker_index, else of the environment's TF_CONFIG:
  {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker",
  "index": 0}}, in which a "chief" comes before the workers.

  Raises:
    UsageError: they are missing or do not fit.
  """
  if settings.workers:
    addresses, index = settings.workers.split(','), settings.worker_index
    if index is None:
      raise errors.UsageError('--workers needs --worker_index=0, 1, ...')
    place = '--workers'
  else:
    addresses, index = _tf_config()
    place = 'TF_CONFIG'
  for address in addresses:
    host, _, port = address.rpartition(':')
    if not host or not port.isdecimal() or int(port) >= 1 << 16:
      raise errors.UsageError(f'{place}: {address!r} is not host:port')
  if len(set(addresses)) < len(addresses):
    raise errors.UsageError(f'{place}: names an address twice')
  if not 0 <= index < len(addresses):
    raise errors.UsageError(
      f'{place}: there is no worker {index} among {len(addresses)}, counted '
      'from 0'
    )
  return addresses, index


def _tf_config():
  text = os.environ.get('TF_CONFIG')
  if not text:
    raise errors.UsageError(
      '--strategy=multi_worker needs --workers=host:port,host:port and '
      '--worker_index, or TF_CONFIG in the environment'
    )
  try:
    config = json.loads(text)
    jobs = {job: list(config['cluster'][job]) for job in config['cluster']}
    task, index = config['task']['type'], int(config['task']['index'])
    addresses = jobs.pop('chief', []) + jobs.pop('worker', [])
    if task == 'worker':
      index += len(config['cluster'].get('chief', []))
    if jobs or task not in ('chief', 'worker') or not addresses:
      raise ValueError('its jobs are chief and worker')
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UsageError(
      f'TF_CONFIG: not a cluster of workers with a task: {error}'
    ) from error
  return addresses, index


class Workers:
  """The processes that train one run together, often one alone.

  Its methods are collective: every worker calls them, in the same order.

  Attributes:
    count: how many.
    index: of this one; 0 is the chief's.
    is_chief: whether this one writes.
  """

  def __init__(self, strategy):
    self._strategy = strategy
    resolver = strategy.cluster_resolver
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    self.count = resolver.cluster_spec().num_tasks('worker') if several else 1
    self.index = resolver.task_id if several else 0
    self.is_chief = self.index == 0

  def sum(self, values):
    """Sums [n] of integers over the workers."""
    if self.count == 1:
      return values
    sums = self._sum(tf.constant(np.asarray(values, np.int32)))
    return self._strategy.experimental_local_results(sums)[0].numpy()

  @functools.partial(tf.function, autograph=False, reduce_retracing=True)
  def _sum(self, values):
    local = self._strategy.num_replicas_in_sync // self.count

    def of_replica():
      context = tf.distribute.get_replica_context()
      # A worker has several replicas; the first speaks for it.
      speaks = context.replica_id_in_sync_group % local == 0
      share = values * tf.cast(speaks, values.dtype)
      return context.all_reduce(tf.distribute.ReduceOp.SUM, share)

    return self._strategy.run(of_replica)

  def share(self, variables):
    """Gives all workers the chief's values of float variables.

    Of what they compute themselves: other machines round otherwise.
    """
    if self.count == 1:
      return
    for variable in variables:
      value = variable.read_value() * float(self.is_chief)
      sums = self._strategy.experimental_local_results(self._sum(value))
      variable.assign(sums[0])

  def agree(self, find):
    """Raises UsageError unless every worker finds what the chief does.

    Args:
      find: () -> {name: text}, of the settings or of the data.
    """
    if self.count == 1:
      return
    facts = find()
    chief = json.loads(self._from_chief(json.dumps(facts)))
    differing = [
      f'{name} is {facts.get(name)}, {chief.get(name)} on the chief'
      for name in {**chief, **facts}
      if chief.get(name) != facts.get(name)
    ]
    (refusing,) = self.sum([bool(differing)])
    if differing:
      raise errors.UsageError(
        f'worker {self.index} does not fit the chief: {"; ".join(differing)}'
      )
    if refusing:
      raise errors.UsageError(
        'another worker has other settings, code or data; its own output '
        'says which'
      )

  def _from_chief(self, text):
    """The chief's text."""
    data = np.frombuffer(text.encode() if self.is_chief else b'', np.uint8)
    padding = _TEXT_BYTES - len(data)
    sums = self.sum(np.pad(data.astype(np.int32), (0, padding)))
    return bytes(sums[sums > 0].astype(np.uint8)).decode()

  def check_shared(self, run):
    """Raises UsageError unless all workers see what the chief has written."""
    self.sum([0])  # It has.
    blind = not os.path.exists(run.flags)
    (blind_workers,) = self.sum([blind])
    if blind_workers:
      raise errors.UsageError(
        f'--run_dir={run.path} is not the same folder on all workers'
        + (f": worker {self.index} does not see the chief's" if blind else '')
      )

  @contextlib.contextmanager
  def together(self, flags, run):
    """A RunDirectory to write to: the chief's is `run`, others' are dropped.

    Args:
      flags: {name: text} of all settings.
      run: the RunDirectory, which all workers see.

    Raises:
      UsageError: other workers have other settings, code or data.
      RunError: one of them was lost, here or in the body of `with`.
    """

    def facts():
      last = checkpoints.paths(run.checkpoints)[-1:]
      return {
        **{f'--{k}': v for k, v in flags.items() if k not in _LOCAL},
        'the last checkpoint': str([os.path.basename(p) for p in last]),
        'the commit': str(run_directory.commit()),
      }

    with contextlib.ExitStack() as stack:
      try:
        self.agree(facts)
        if self.is_chief:
          yield run
        else:
          folder = stack.enter_context(tempfile.TemporaryDirectory())
          yield run_directory.RunDirectory(folder)
        self.sum([0])  # All is written.
      except _LOST as error:
        if self.count == 1:
          raise
        raise errors.RunError(
          'another worker stopped, and its own output says why; when all are '
          'started again, the same commands go on from the last checkpoint'
        ) from error
