"""What every method must pass, found by its file; design in WORKSPACE.md."""

import functools
import glob
import os
import re

import numpy as np
import pytest
import sklearn.cluster  # noqa: F401  A second that is no method's.
import tensorflow as tf

from tests import harness
from tfda import backbones, experiment, methods
from tfda.serving import export

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALL = methods.names()


pytestmark = pytest.mark.usefixtures('graphs_as_traced', 'reference')


@pytest.fixture(scope='module')
def reference():
  """The run that others are compared with, and the first graph of a process."""
  return four_steps('source_only')


@functools.cache
def four_steps(method):
  """A run of four steps, with its state after two and after three.

  Steps 3 and 4 are the one trace that is made of a method: it costs more than
  all eager steps together. The third of two replicas, below, must equal it.
  """
  run = harness.Run(harness.settings(method))
  run.train(2, traced=False)
  run.halfway = [value.numpy() for value in state(run)]
  folder = os.environ['XDG_CACHE_HOME']  # That of the tests.
  run.path = run.checkpoint.save(os.path.join(folder, 'conformance', method))
  run.third = run.train(1), [value.numpy() for value in state(run)]
  run.terms = run.train(1)
  return run


def state(run):
  """All variables of a run, those of the model first."""
  optimizers = [v for o in run.optimizers for v in o.variables]
  return run.model.variables + optimizers


@pytest.mark.parametrize('method', ALL)
def test_steps_are_finite_and_report_the_declared_terms(method):
  run = four_steps(method)
  assert set(run.terms) == {'total', *run.model.LOSS_TERMS}
  assert np.isfinite(list(run.terms.values())).all()
  assert int(run.model.step) == 4
  trained = {variable.ref() for variable in run.model.trainable_variables}
  changed = [
    not np.array_equal(before, after.numpy())
    for before, after in zip(run.halfway, run.model.variables)
    if after.ref() in trained
  ]
  assert all(changed), 'a trainable variable did not move'


@pytest.mark.parametrize('method', ALL)
def test_every_trainable_variable_gets_a_gradient(method):
  run = four_steps(method)
  batch = next(iter(run.batches(3, 4)))
  with tf.GradientTape() as tape:
    total, _ = run.model.objective(batch, tf.constant(0.5))
  variables = run.model.trainable_variables
  for variable, gradient in zip(variables, tape.gradient(total, variables)):
    assert gradient is not None, variable.name
    assert np.abs(gradient.numpy()).max() > 0, variable.name


@pytest.mark.parametrize('method', ALL)
def test_without_adaptation_it_is_source_only(method):
  """Or, where it says why (OWN_BASELINE), at least blind to the target."""
  module = methods.load(method)
  config = module.WITHOUT_ADAPTATION
  if config is None:
    assert method == 'train_on_target'
    pytest.skip('its bound is another')
  settings = harness.settings(method)
  if hasattr(module, 'OWN_BASELINE'):
    assert module.OWN_BASELINE
    model = experiment.build(settings, config, num_classes=2)
    assert model.STREAMS == ('source',)
    return
  run = harness.Run(settings, config)
  run.train(4, traced=False)
  reference = four_steps('source_only')
  for ours, theirs in zip(
    run.model.inference_weights(), reference.model.inference_weights()
  ):
    np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=ours.name)


@pytest.mark.parametrize('method', ALL)
def test_one_replica_s_checkpoint_goes_on_on_two(method):
  one = four_steps(method)
  two = harness.Run(harness.settings(method), replicas=2, path=one.path)
  assert two.model.step.numpy() == 2
  for ours, theirs in zip(state(two), one.halfway):
    np.testing.assert_array_equal(ours.numpy(), theirs, err_msg=ours.name)
  terms, third = one.third
  two_terms = two.train(1, traced=False)
  for ours, theirs in zip(state(two), third):
    np.testing.assert_allclose(
      ours.numpy(), theirs, atol=1e-5, err_msg=ours.name
    )
  for name, value in terms.items():
    assert two_terms[name] == pytest.approx(value, abs=1e-5), name


class OffKinks(harness.Run):
  """Begins where no rounding error decides on which side of a kink a step is.

  Of biases of zero, a ReLU of a region without features is at its kink; a
  network that is still equal to another is at that of their distance.
  """

  def _begin(self, phase, start):
    super()._begin(phase, start)
    random = np.random.default_rng(start)
    for variable in self.model.trainable_variables:
      if 'bias' in variable.name:
        moved = random.normal(0.0, 0.05, variable.shape)
        variable.assign_add(moved.astype(np.float32))


_AT_KINKS = 'attention_alignment', 'tada'
# At the published decay, 5000, assignments are so hard that rounding errors
# double with every step; in float64 those of twenty steps are 3e-10.
_SMOOTH = {'local_feature_patterns': {'decay': 5.0}}


@pytest.mark.slow
@pytest.mark.parametrize('method', ALL)
def test_twenty_steps_of_two_replicas_are_those_of_one(method):
  settings = harness.settings(method, steps=20)
  config = methods.load(method).Config(
    **{**harness.narrow(method), **_SMOOTH.get(method, {})}
  )
  make = OffKinks if method in _AT_KINKS else harness.Run
  one, two = make(settings, config), make(settings, config, replicas=2)
  one.train(20)
  two.train(20)
  for theirs, ours in zip(state(one), state(two)):
    # The averages are sums, of symnets 105: float32 has steps of 8e-6 there.
    np.testing.assert_allclose(
      ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-5, err_msg=ours.name
    )


@pytest.mark.slow
@pytest.mark.parametrize('method', ALL)
def test_synchronised_statistics_are_those_of_the_whole_batch(
  method, monkeypatch
):
  """Of a library's network, whose kernel for one replica is another."""
  monkeypatch.setitem(backbones._BACKBONES, 'normalised', harness.normalised)
  settings = harness.settings(method, backbone='normalised', steps=20)
  make = OffKinks if method in _AT_KINKS else harness.Run
  config = methods.load(method).Config(
    **{**harness.narrow(method), **_SMOOTH.get(method, {})}
  )
  one, two = make(settings, config), make(settings, config, replicas=2)
  (norm,) = backbones._batch_norms(two.model.backbone.network)
  assert norm.synchronized
  one.train(20)
  two.train(20)
  for theirs, ours in zip(one.weights(), two.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize('method', ALL)
def test_restored_run_goes_on_bit_for_bit(method):
  """What a checkpoint missed would be as after four steps."""
  run = four_steps(method)
  final = [value.numpy() for value in state(run)]
  run.checkpoint.restore(run.path).assert_consumed()
  assert float(run.model.progress()) < 1.0
  assert run.train(2) == run.terms
  for ours, theirs in zip(state(run), final):
    np.testing.assert_array_equal(ours, theirs, err_msg=ours.name)
  assert float(run.model.progress()) == 1.0


@pytest.mark.parametrize('method', ALL)
def test_export_round_trip_holds_only_what_inference_needs(method, tmp_path):
  run = four_steps(method)
  path = export.save(run.model, ['level', 'upright'], str(tmp_path))
  # As many as the export itself compares: a trace less.
  images = run.data['target', 'test'].images[: export._CHECKED]
  served = tf.saved_model.load(path).signatures['serving_default'](
    images=tf.constant(images, tf.float32)
  )
  ours = run.model.infer(tf.constant(images, tf.float32))['logits']
  np.testing.assert_allclose(served['logits'], ours, atol=1e-5)
  saved = [
    shape
    for name, shape in tf.train.list_variables(f'{path}/variables/variables')
    if 'CHECKPOINTABLE_OBJECT_GRAPH' not in name
  ]
  needed = [list(w.shape) for w in run.model.inference_weights()]
  assert sorted(saved) == sorted(needed)


@pytest.mark.parametrize('method', ALL)
def test_no_target_label_in_a_training_batch(method):
  run = four_steps(method)
  batch = next(iter(run.batches(0, 1)))
  assert set(batch) == set(run.model.STREAMS)
  for stream, content in batch.items():
    if 'label' in content:
      assert stream == 'source' or (
        stream == 'labelled_target' and method == 'train_on_target'
      )


@pytest.mark.parametrize('method', ALL)
def test_has_a_flag_file_a_test_file_and_its_provenance(method):
  flag_files = glob.glob(os.path.join(ROOT, 'flags', '**', '*.flags'))
  named = []
  for path in flag_files:
    with open(path) as file:
      named += re.findall(r'^--method=(\w+)$', file.read(), re.MULTILINE)
  assert method in named
  assert os.path.exists(os.path.join(ROOT, 'tests', f'{method}_test.py'))
  text = methods.load(method).__doc__
  assert re.search(r'\b(19|20)\d\d\b', text), 'no citation'
  assert 'Eq. ' in text and 'Deviations' in text
