"""What training takes on 1, 8 and 64 GPUs, of every method: to plan with.

  python -m benchmarks.scaling [--measure] [--methods=NAME,...]

counts, in the graph of a step of ResNet-50 at 224 pixels for 31 classes, the
operations and what replicas exchange, predicts from this and from the rates of
a machine how fast steps are, and writes benchmarks/scaling.md. With --measure
it takes steps on this CPU, by one worker and by two that share its cores (two
logical devices), and puts them beside what the same model predicts. The rates
of the GPUs are not measured; other machines have other --gpu_tflops, --gpu_gbs,
--link_gbs and --network_gbs.
"""

import argparse
import dataclasses
import functools
import gc
import os
import platform
import statistics
import time

import numpy as np
import tensorflow as tf

from tfda import experiment, methods, run_directory
from tfda.data import domains, pipeline, translated

_OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'scaling.md')
_SIZE, _CLASSES = 224, 31
_REPLICAS = (1, 8, 64)
_PER_MACHINE = 8  # GPUs that need no network to reach each other.
_ROUNDS = 3  # Steps that are timed; the median counts.
# Passes over a parameter's bytes in an update by SGD: the gradient is written
# and read, momentum and weight are read and written.
_UPDATE_PASSES = 6


@dataclasses.dataclass(frozen=True)
class Work:
  """What a step of one replica takes.

  Attributes:
    images: that it sees, of all streams.
    flops: floating-point operations.
    parameters: that are trained.
    reduced: bytes that are summed over replicas.
    checkpoint: bytes of a checkpoint.
  """

  images: int
  flops: int
  parameters: int
  reduced: int
  checkpoint: int


@dataclasses.dataclass(frozen=True)
class Rates:
  """Of a machine: operations/s and bytes/s of a device, bytes/s between them.

  `link` is one GPU's, to its neighbours in the machine; `network` a machine's.
  """

  flops: float
  memory: float
  link: float
  network: float


def settings(method, batch_size):
  """An Experiment like those of Office-31; published settings of the method."""
  return experiment.Experiment(
    method=method,
    backbone='resnet50',
    image_size=_SIZE,
    bottleneck=0 if method == 'local_feature_patterns' else 256,
    batch_size=batch_size,
    translated_share=0.5,
  )


def model_of(trained):
  """(model in its last phase, all its phases), untrained."""
  config = methods.load(trained.method).Config()
  model = experiment.build(trained, config, _CLASSES)
  phases = model.phases(
    trained.steps,
    functools.partial(experiment.make_optimizer, trained, model),
  )
  model.begin_phase(phases[-1], 0)
  return model, phases


def batches(trained, model, steps, replicas=1):
  """Of images that are noise."""
  random = np.random.default_rng(0)
  shape = [_CLASSES, trained.image_size, trained.image_size, 3]
  images = random.integers(0, 256, shape).astype(np.uint8)
  names = tuple(f'{i}' for i in range(_CLASSES))
  domain = domains.Domain(
    'noise', 'train', images, np.arange(_CLASSES, dtype=np.int32), names
  )
  sides = ('source', 'target', *translated.DIRECTIONS)
  return pipeline.batches(
    model.streams,
    dict.fromkeys(sides, domain),
    trained.batch_size,
    0,
    0,
    steps,
    replicas,
    translated_share=trained.translated_share,
  )


def flops(graph):
  """Operations in a graph whose shapes are known."""
  profiler = tf.compat.v1.profiler
  options = profiler.ProfileOptionBuilder.float_operation()
  options['output'] = 'none'
  return profiler.profile(graph, options=options).total_float_ops


def work(trained, model, phases):
  """The Work of a step in the last phase."""
  spec = batches(trained, model, 1).element_spec
  step = tf.function(model.train_step, autograph=False)
  graph = step.get_concrete_function(spec).graph
  # SGD has a momentum of every variable that it trains.
  trained_by = phases[-1].optimizers
  parameters = sum(_count(v) for o in trained_by for v in o.momentums)
  optimizers = [o for phase in phases for o in phase.optimizers]
  held = [*model.variables, *(v for o in optimizers for v in o.variables)]
  return Work(
    images=sum(stream['image'].shape[0] for stream in spec.values()),
    flops=flops(graph),
    parameters=parameters,
    reduced=4 * (parameters + _normalised(model)),
    checkpoint=sum(_count(v) * v.dtype.size for v in held),
  )


def _count(variable):
  return variable.shape.num_elements()


def _normalised(model):
  """Numbers that synchronised normalisation sums, and sums in its gradient."""
  return sum(
    4 * layer.moving_mean.shape[0]  # Mean and square, forward and back.
    for layer in model.submodules
    if isinstance(layer, tf.keras.layers.BatchNormalization)
    and layer.synchronized
    and layer.trainable
  )


def sent(count, replicas):
  """Bytes that a replica sends in a ring that sums `count` bytes.

  2 (N - 1) / N of them: each replica's share of the sum goes around once to be
  made and once to be known. For example 100 bytes of 8 replicas: 175.
  """
  return 2 * (replicas - 1) / replicas * count


def exchange(count, replicas, rates):
  """Seconds in which GPUs sum `count` bytes: in each machine, then between."""
  machines = -(-replicas // _PER_MACHINE)
  inside = sent(count, min(replicas, _PER_MACHINE)) / rates.link
  return inside + sent(count, machines) / rates.network


def predict(needed, rates):
  """Seconds of a step of one replica: all it computes, then its update."""
  return needed.flops / rates.flops + _update(needed, rates.memory)


def _update(needed, memory):
  """Seconds of an update, at so many bytes/s of memory."""
  return _UPDATE_PASSES * 4 * needed.parameters / memory


def _gpu_rows(name, needed, rates):
  cells = []
  for replicas in _REPLICAS:
    seconds = predict(needed, rates) + exchange(needed.reduced, replicas, rates)
    images = replicas * needed.images / seconds
    cells.append((seconds, images, images * 3 * _SIZE**2))
  return [
    name,
    *(f'{1e3 * seconds:.0f}' for seconds, _, _ in cells),
    *(f'{images:,.0f}' for _, images, _ in cells),
    *(f'{count / 1e9:.2f}' for _, _, count in cells),
  ]


def _count_rows(name, needed):
  mega = 1e-6
  return [
    name,
    f'{needed.images}',
    f'{needed.parameters * mega:.1f}',
    f'{needed.flops / needed.images * 1e-9:.1f}',
    f'{needed.reduced * mega:.0f}',
    *(f'{sent(needed.reduced, n) * mega:.0f}' for n in _REPLICAS),
    f'{needed.checkpoint * mega:.0f}',
  ]


def table(head, rows):
  """Markdown; all columns but the first are figures."""
  lines = [head, ['---', *['--:'] * (len(head) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def measure(trained, workers):
  """Median seconds of a step on this CPU, whose cores all workers share."""
  devices = [d.name for d in tf.config.list_logical_devices('CPU')][:workers]
  strategy = tf.distribute.get_strategy()
  if workers > 1:
    reduce = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(devices, reduce)
  with strategy.scope():
    model, _ = model_of(trained)
    parts = iter(
      strategy.distribute_datasets_from_function(
        lambda _: batches(trained, model, _ROUNDS + 1, workers)
      )
    )
    step, seconds = model.make_train_function(), []
    for _ in range(_ROUNDS + 1):
      start = time.perf_counter()
      {k: float(v) for k, v in step(parts).items()}
      seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[1:])  # The first one traces.


def _copy_rate():
  """Bytes/s of memory, read and written."""
  block, seconds = np.ones(2**27, np.uint8), []
  for _ in range(5):
    start = time.perf_counter()
    block.copy()
    seconds.append(time.perf_counter() - start)
  return 2 * block.nbytes / min(seconds)


def _measured(counts, batch_size):
  """(rows of measured and predicted steps, Rates of this CPU)."""
  rows, rates = [], None
  memory = _copy_rate()
  for name in ['source_only', *(n for n in counts if n != 'source_only')]:
    trained = settings(name, batch_size)
    needed = work(trained, *model_of(trained))
    gc.collect()
    found = [measure(trained, workers) for workers in (1, 2)]
    if rates is None:  # The first calibrates the rest.
      computing = found[0] - _update(needed, memory)
      rates = Rates(needed.flops / computing, memory, memory, memory)
    one = predict(needed, rates)
    # Both update weights of their own; the sum is read twice, written twice.
    two = one + _update(needed, memory) + 4 * needed.reduced / memory
    cells = found[0], one, found[1], two
    rows.append([name, *(f'{1e3 * x:,.0f}' for x in cells)])
    gc.collect()
  return rows, rates


def main():
  parser = argparse.ArgumentParser(
    usage=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--measure', action='store_true')
  parser.add_argument('--methods', default=','.join(methods.names()))
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--measured_batch_size', type=int, default=4)
  # Assumed: a quarter of the 156 TFLOP/s (TF32) that an A100's data sheet gives
  # as its peak, its memory, its NVLink in one direction, 100 Gbit/s Ethernet.
  parser.add_argument('--gpu_tflops', type=float, default=40.0)
  parser.add_argument('--gpu_gbs', type=float, default=1500.0)
  parser.add_argument('--link_gbs', type=float, default=300.0)
  parser.add_argument('--network_gbs', type=float, default=12.5)
  chosen = parser.parse_args()
  cpu = tf.config.list_physical_devices('CPU')[0]
  tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
  )
  counts = {}
  for name in chosen.methods.split(','):
    trained = settings(name, chosen.batch_size)
    counts[name] = work(trained, *model_of(trained))
    tf.keras.backend.clear_session()
    gc.collect()
  measured, rates = [], None
  if chosen.measure:
    measured, rates = _measured(counts, chosen.measured_batch_size)
  text = document(chosen, counts, measured, rates)
  with open(_OUT, 'w') as file:
    file.write(text)


def document(chosen, counts, measured, cpu):
  """The page; `measured` may be empty, `cpu` then None."""
  rates = Rates(
    1e12 * chosen.gpu_tflops,
    1e9 * chosen.gpu_gbs,
    1e9 * chosen.link_gbs,
    1e9 * chosen.network_gbs,
  )
  of_gpus = [f'{n} GPU{"s" if n > 1 else ""}' for n in _REPLICAS]
  counted = table(
    [
      'method',
      'images',
      'parameters, M',
      'GFLOP an image',
      'summed, MB',
      *(f'sent, MB, {n}' for n in of_gpus),
      'checkpoint, MB',
    ],
    [_count_rows(name, needed) for name, needed in counts.items()],
  )
  planned = table(
    [
      'method',
      *(f'step, ms, {n}' for n in of_gpus),
      *(f'images/s, {n}' for n in of_gpus),
      *(f'input, GB/s, {n}' for n in of_gpus),
    ],
    [_gpu_rows(name, needed, rates) for name, needed in counts.items()],
  )
  on_cpu = 'Not measured yet: `python -m benchmarks.scaling --measure`.'
  if measured:
    on_cpu = table(
      [
        'method',
        '1 worker, ms',
        'predicted',
        '2 workers, ms',
        'predicted',
      ],
      measured,
    )
    on_cpu += (
      f'\n\n{os.cpu_count()} cores, {platform.machine()}, '
      f'{cpu.flops / 1e9:.0f} GFLOP/s by the step of source_only (whose '
      f'prediction for one worker is its measurement), {cpu.memory / 1e9:.1f} '
      f'GB/s of memory; commit {run_directory.commit()}.'
    )
  return _PAGE.format(
    size=_SIZE,
    classes=_CLASSES,
    batch=chosen.batch_size,
    measured_batch=chosen.measured_batch_size,
    counted=counted,
    planned=planned,
    on_cpu=on_cpu,
    tflops=chosen.gpu_tflops,
    memory=chosen.gpu_gbs,
    link=chosen.link_gbs,
    network=chosen.network_gbs,
    machine=_PER_MACHINE,
    bytes=3 * _SIZE**2,
  )


_PAGE = """# Scaling

Written by `python -m benchmarks.scaling`: ResNet-50 at {size} pixels,
{classes} classes, {batch} images of each domain to a GPU (for
`attention_alignment` half as many translations of each beside them), published
settings of every method, in its last phase, float32.

## What a step takes

Counted: operations in the graph of a step by TensorFlow's profiler, forward and
back, divided by its images; parameters that are trained; bytes that replicas
sum, which are the gradients and what synchronised batch normalisation shares;
of these what each GPU sends in a ring, 2 (N - 1) / N; and the variables in a
checkpoint, of which a run keeps two.

{counted}

## What to plan with

Predicted: a step computes, updates its weights and sums its gradients, one
after the other. Assumed, not measured: {tflops:g} TFLOP/s and {memory:g} GB/s
of memory to a GPU, {link:g} GB/s between the {machine} GPUs of a machine,
{network:g} GB/s between machines; the script takes other figures. The input is
that of all GPUs together, images of {bytes:,} bytes, decoded; a worker reads
its part.

{planned}

## On a CPU

Milliseconds of a step of {measured_batch} images of each domain: by one worker,
and by two that share the cores and the images, beside what the same model says.

{on_cpu}
"""


if __name__ == '__main__':
  main()
