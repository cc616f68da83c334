"""How steps are taken, of all methods: in passes, by XLA, many, in halves."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests import experiment_test, harness
from tfda import (
  callbacks,
  errors,
  experiment,
  methods,
  run_directory,
  translation,
)
from tfda.methods import attention_alignment, cdan, dann, gsda

ALL = methods.names()
_SLOW = pytest.mark.slow
# Settings under which a loss is a mean over images.
DIVISIBLE = {
  'cdan': cdan.Config(conditioning='multilinear'),
  'gsda': gsda.Config(synchronization_weight=0.0, discriminator_units=10),
}
# Its first distances are of equal maps; their gradients are those of rounding.
TOLERANCES = {'attention_alignment': 1e-4}

pytestmark = pytest.mark.usefixtures('graphs_as_traced')


def all_methods(*fast):
  """Those that are not named are slow."""
  return [m if m in fast else pytest.param(m, marks=_SLOW) for m in ALL]


def train(run, jit_compile=False, steps_per_execution=1):
  """Through all phases, in Keras' own loop."""
  start = 0
  for phase in run.phases:
    end = start + phase.steps
    run.model.begin_phase(phase, start)
    run.model.jit_compile = jit_compile
    run.model.steps_per_execution = steps_per_execution
    run.model.fit(
      run.batches(start, end, streams=run.model.streams),
      steps_per_epoch=phase.steps,
      verbose=0,
    )
    start = end


def assert_near(run, other, atol=1e-5):
  for ours, theirs in zip(run.model.variables, other.model.variables):
    if 'averages' not in ours.name:
      ours, theirs, name = ours.numpy(), theirs.numpy(), ours.name
      np.testing.assert_allclose(ours, theirs, atol=atol, err_msg=name)


# Passes whose gradients add up.


@pytest.mark.parametrize('method', all_methods('dann'))
def test_two_passes_are_one_of_twice_the_batch(method):
  """Or it is refused."""
  config = DIVISIBLE.get(method)
  whole = harness.Run(harness.settings(method), config)
  settings = harness.settings(method, batch_size=4, accumulate=2)
  if whole.model.undivided:
    with pytest.raises(errors.UsageError, match=f'not with {method}: '):
      harness.Run(settings, config)
    return
  passes = harness.Run(settings, config)
  terms, of_passes = (run.train(3, traced=False) for run in (whole, passes))
  tolerance = TOLERANCES.get(method, 1e-5)
  assert_near(passes, whole, tolerance)
  for name, value in terms.items():
    if name != 'synchronization' and not name.endswith('_gap'):
      assert of_passes[name] == pytest.approx(value, abs=tolerance), name
  assert int(passes.model.step) == 3
  assert int(passes.optimizers[-1].iterations) == int(
    whole.optimizers[-1].iterations
  )


@pytest.mark.parametrize('replicas', [1, pytest.param(2, marks=_SLOW)])
def test_passes_of_a_graph_draw_the_noise_of_the_whole_batch(replicas):
  """In a loop on one replica, one after another on two."""
  config = dann.Config(discriminator_dropout=0.5)
  whole = harness.Run(harness.settings('dann'), config)
  whole.train(3, traced=False)
  passes = harness.Run(
    harness.settings('dann', batch_size=2, accumulate=4), config, replicas
  )
  passes.train(3)
  assert_near(passes, whole)


def test_gradient_that_a_loss_lacks_stays_none():
  config = dann.Config()
  run = harness.Run(harness.settings('dann', accumulate=2), config)
  run.model.begin_phase(run.phases[0], 0)
  spare = tf.Variable([1.0])
  variables = [*run.model.classifier.trainable_variables, spare]
  batch = next(iter(run.batches(0, 1)))
  gradients, _ = tf.function(run.model._passes, autograph=False)(
    batch, variables
  )
  assert gradients[-1] is None
  assert all(gradient is not None for gradient in gradients[:-1])


def test_passes_of_a_batch_see_its_rows_in_order():
  run = harness.Run(
    harness.settings('attention_alignment', batch_size=4, accumulate=2)
  )
  batch = next(iter(run.batches(0, 1)))
  parts = [run.model._part(batch, number) for number in (0, 1)]
  for stream, content in batch.items():
    both = np.concatenate([part[stream]['index'] for part in parts])
    np.testing.assert_array_equal(both, content['index'])
  # Rows 1, 3, 5, 7 of 8 are translated: 1 and 3 of each pass.
  for number, part in enumerate(parts):
    np.testing.assert_array_equal(part['source_to_target']['row'], [1, 3])
    for stream, original in (('source_to_target', 'source'),):
      np.testing.assert_array_equal(
        part[stream]['index'], part[original]['index'].numpy()[[1, 3]]
      )
    assert part['source']['pass'] == number


@pytest.mark.parametrize(
  'method, config, message',
  [
    ('gsda', None, '--accumulate=2: not with gsda: L.syn is of sums'),
    (
      'local_feature_patterns',
      None,
      '--accumulate=2: not with local_feature_patterns: its players',
    ),
    (
      'attention_alignment',
      attention_alignment.Config(distance='mmd'),
      '--accumulate=2: not with attention_alignment: an MMD',
    ),
  ],
)
def test_losses_that_are_no_means_are_refused_in_passes(
  method, config, message
):
  settings = harness.settings(method, accumulate=2)
  with pytest.raises(errors.UsageError, match=message) as refused:
    harness.Run(settings, config)
  assert '\n' not in str(refused.value)


# Many steps in an execution.


def rows(path):
  clocks = ('seconds', 'images_per_second')
  return [
    {k: v for k, v in row.items() if k not in clocks}
    for row in run_directory.RunDirectory(path).read_metrics()
  ]


@pytest.mark.parametrize(
  'method', ['dann', pytest.param('local_feature_patterns', marks=_SLOW)]
)
def test_executions_of_many_steps_end_in_the_same_bits(
  method, tmp_path, monkeypatch
):
  """Of intervals that are no multiples, a phase after another, and a signal."""
  config = methods.load(method).Config(**harness.narrow(method))

  def asked(name, **changed):
    return experiment_test.settings(
      tmp_path / name,
      method=method,
      steps=10,
      log_every=3,
      evaluate_every=5,
      checkpoint_every=7,
      **changed,
    )

  one = experiment.train(asked('one'), config)
  log = callbacks.Trainer._log

  def interrupted(trainer, evaluates):
    log(trainer, evaluates)
    if trainer._step == 5:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(callbacks.Trainer, '_log', interrupted)
  with pytest.raises(errors.Interrupted, match='stopped at step 5 of 10'):
    experiment.train(asked('many', steps_per_execution=4), config)
  many = experiment.train(asked('many', steps_per_execution=3), config)
  experiment_test.assert_same(*map(experiment_test.checkpoint, (one, many)))
  assert rows(one) == rows(many)
  assert [row['step'] for row in rows(many)] == [3, 5, 6, 9, 10]
  kept = os.listdir(os.path.join(many, 'checkpoints'))
  assert {'ckpt-7.index', 'ckpt-10.index'} <= set(kept)


# XLA.


@pytest.mark.parametrize('method', all_methods('dann'))
def test_compiled_steps_are_the_same(method):
  """Without noise, of which XLA draws other numbers."""
  quiet = {
    'gsda': {'discriminator_dropout': 0.0},
    'local_feature_patterns': {'dropout': 0.0},
    'wdgrl': {'penalty_weight': 0.0},
  }
  config = methods.load(method).Config(
    **{**harness.narrow(method), **quiet.get(method, {})}
  )
  run = harness.Run(harness.settings(method), config)
  train(run, jit_compile=True)
  plain = harness.Run(harness.settings(method), config)
  plain.train(4, traced=False)
  assert_near(run, plain, TOLERANCES.get(method, 1e-5))


@pytest.mark.slow
def test_compiled_loss_that_is_not_finite_stops_at_the_next_entry(
  tmp_path, monkeypatch
):
  objective = dann.Method.objective

  def poisoned(self, batch, progress):
    total, terms = objective(self, batch, progress)
    bad = tf.where(self.step >= 3, float('nan'), 0.0)
    return total + bad, {**terms, 'domain': terms['domain'] + bad}

  monkeypatch.setattr(dann.Method, 'objective', poisoned)
  settings = experiment_test.settings(
    tmp_path / 'run', jit_compile=True, checkpoint_every=1
  )
  with pytest.raises(
    errors.RunError, match='domain is not finite after step 2;'
  ):
    experiment.train(settings)
  kept = tf.train.latest_checkpoint(str(tmp_path / 'run' / 'checkpoints'))
  assert kept.endswith('-3')


def test_operation_that_xla_does_not_have_is_named():
  @tf.function(jit_compile=True, autograph=False)
  def step(x):
    return tf.numpy_function(lambda a: a, [x], tf.float32)

  with pytest.raises(tf.errors.OpError) as raised:
    step(tf.ones([2]))
  assert str(experiment._uncompiled(raised.value)) == (
    '--jit_compile: XLA does not compile a step: PyFunc; train without it'
  )
  # As Keras' loop has it.
  other = tf.errors.UnimplementedError(
    None, None, 'at node a\nNo such pooling.\n\t [[{{node a}}]]\n\ttf2xla '
    'conversion failed while converting f',
  )  # fmt: skip
  assert 'a step: No such pooling.;' in str(experiment._uncompiled(other))
  assert experiment._uncompiled(tf.errors.UnknownError(None, None, 'x')) is None


def test_compiled_run_cannot_be_deterministic():
  with pytest.raises(errors.UsageError, match='takes no --jit_compile: XLA'):
    harness.settings('dann', jit_compile=True, deterministic=True)


def test_replicas_on_cpus_are_not_compiled(tmp_path):
  for module, made in (
    (experiment, experiment_test.settings),
    (translation, translation_settings),
  ):
    settings = made(tmp_path / 'run', strategy='mirrored', jit_compile=True)
    with pytest.raises(errors.UsageError, match='jit_compile') as refused:
      module.train(settings)
    assert '\n' not in str(refused.value)
    assert not (tmp_path / 'run').exists()


def translation_settings(run_dir, **changed):
  return translation.Translation(
    source='optdigits',
    target='optdigits_m',
    image_size=8,
    discriminator_layers=3,
    run_dir=str(run_dir),
    **changed,
  )


# Half precision.


@pytest.mark.parametrize(
  'precision', ['float16', pytest.param('bfloat16', marks=_SLOW)]
)
@pytest.mark.parametrize('method', all_methods('gsda'))
def test_half_precision_moves_all_that_trains(method, precision):
  settings = harness.settings(method, mixed_precision=precision)
  with experiment.precision(settings):
    run = harness.Run(settings)
    before = [v.numpy() for v in run.model.trainable_variables]
    terms = run.train(4, traced=False)
  assert np.isfinite(list(terms.values())).all()
  for old, variable in zip(before, run.model.trainable_variables):
    new = variable.numpy()
    assert new.dtype == np.float32
    assert np.isfinite(new).all(), variable.name
    assert (new != old).any(), variable.name


@pytest.mark.parametrize('accumulate', [pytest.param(1, marks=_SLOW), 2])
def test_step_that_overflows_changes_nothing_and_counts(accumulate):
  settings = harness.settings(
    'dann', mixed_precision='float16', accumulate=accumulate
  )
  with experiment.precision(settings):
    run = harness.Run(settings)
    (optimizer,) = run.optimizers
    optimizer._loss_scale.current_loss_scale.assign(2.0**100)
    before = run.weights()
    run.train(1, traced=False)
    for ours, theirs in zip(run.weights(), before):
      np.testing.assert_array_equal(ours, theirs)
    assert float(optimizer.loss_scale) == 2.0**99
    assert int(run.model.step) == 1
    # 0.01 / (1 + 10 p)^0.75 at p = 1/4.
    assert float(run.model.progress()) == 0.25
    rate = optimizer.inner_optimizer.rate(run.model.progress())
    assert float(rate) == pytest.approx(0.01 / 3.5**0.75)
    optimizer._loss_scale.current_loss_scale.assign(1024.0)
    run.train(1, traced=False)
  assert (run.weights()[1] != before[1]).any()


# The toy problem, of every kind of step: one player, several in one pass,
# alternating ones, phases. Three steps of all other methods are above.
_TAUGHT = (
  'source_only',
  'train_on_target',
  'dann',
  'gsda',
  'tada',
  'attention_alignment',
  'local_feature_patterns',
)


@pytest.mark.slow
@pytest.mark.parametrize(
  'method, changed, how',
  [
    *(
      (method, {'mixed_precision': precision}, {})
      for method in _TAUGHT
      for precision in ('float16', 'bfloat16')
    ),
    *((method, {}, {'jit_compile': True}) for method in _TAUGHT),
    *((method, {}, {'steps_per_execution': 16}) for method in _TAUGHT),
    ('dann', {'batch_size': 8, 'accumulate': 4}, {}),
    ('tada', {'batch_size': 8, 'accumulate': 4}, {}),
    ('attention_alignment', {'batch_size': 4, 'accumulate': 4}, {}),
    (
      'dann',
      {'batch_size': 8, 'accumulate': 4, 'mixed_precision': 'float16'},
      {'jit_compile': True, 'steps_per_execution': 16},
    ),
  ],
)
def test_solves_the_toy_problem(method, changed, how):
  settings = harness.settings(method, **changed)
  with experiment.precision(settings):
    run = harness.toy(method, **changed)
    train(run, **how)
    if method == 'source_only':
      assert run.accuracy('source') > 0.95
    else:
      assert run.accuracy('target') > 0.9
