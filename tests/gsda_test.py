"""GSDA: Eq. 3-17 by loops and by hand, and the toy problem."""

import glob
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import errors, flag_config, losses
from tfda.evaluation import figures, gradients
from tfda.layers import discriminators
from tfda.methods import gsda

FLAGS = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'flags')
CLASS_TO_GROUP = [0, 1, 1, 0]
HEADS = 1 + 2 + 4


def heads_and_data(seed=0, rows=6, width=5):
  """Heads in float64 without dropout, features [rows, width], p [7, rows]."""
  random = np.random.default_rng(seed)
  heads = discriminators.MultiHeadDiscriminator(
    HEADS, (4, 3), 0.0, dtype='float64'
  )
  heads.build([None, width])
  for weight in heads.weights:
    weight.assign(random.normal(size=weight.shape))
  features = random.normal(size=[rows, width])
  of_class = random.dirichlet(np.ones(4), size=rows).T
  of_group = np.stack([of_class[[0, 3]].sum(0), of_class[[1, 2]].sum(0)])
  weights = np.concatenate([np.ones([1, rows]), of_group, of_class])
  return heads, tf.constant(features), weights


def gradients_one_by_one(heads, features, weights):
  """Losses [K, n], and gradients [K, n, D] each from a tape of its own."""
  kernels, biases = heads.weights[::2], heads.weights[1::2]
  rows = len(features)
  values = np.zeros([HEADS, rows])
  gradients = np.zeros([HEADS, *features.shape])
  for k in range(HEADS):
    for i in range(rows):
      f = features[i : i + 1]
      with tf.GradientTape() as tape:
        tape.watch(f)
        x = f
        for layer in range(3):
          x = x @ kernels[layer][k] + biases[layer][k]
          x = tf.nn.relu(x) if layer < 2 else x
        probability = tf.sigmoid(x[0, 0])
        is_source = i < rows // 2
        cross_entropy = -tf.math.log(
          probability if is_source else 1.0 - probability
        )
        loss = weights[k, i] * cross_entropy
      values[k, i] = loss
      gradients[k, i] = tape.gradient(loss, f)[0]
  return values, gradients


def synchronization(heads, features, weights, norm='l2', **variant):
  _, norms, _ = heads.compare_domains(features, weights, norm=norm)
  domain, group, class_ = tf.split(norms, [1, 2, 4])
  return losses.gradient_synchronization(
    domain, group[:, None], class_[:, None], CLASS_TO_GROUP, **variant
  )


# The alignment, head by head and image by image.


def test_losses_and_gradients_equal_those_taken_one_by_one():
  heads, features, weights = heads_and_data()
  values, gradients = gradients_one_by_one(heads, features, weights)
  ours = heads.compare_domains(features, weights)
  np.testing.assert_allclose(ours[0], values.mean(axis=1), rtol=1e-9)
  lengths = np.sqrt((gradients**2).sum(axis=2))
  # The root has an epsilon: 1e-6 for a head that a feature does not reach.
  np.testing.assert_allclose(
    ours[1], lengths.mean(axis=1), rtol=1e-9, atol=1e-6
  )
  np.testing.assert_allclose(
    ours[2], gradients.sum(axis=0) / 6, rtol=1e-9, atol=1e-12
  )
  _, norms, _ = heads.compare_domains(features, weights, norm='l1')
  lengths = np.abs(gradients).sum(axis=2)
  np.testing.assert_allclose(norms, lengths.mean(axis=1), rtol=1e-9)


def test_synchronization_equals_equations_10_to_12_in_loops():
  heads, features, weights = heads_and_data(seed=1)
  _, gradients = gradients_one_by_one(heads, features, weights)
  norm = np.sqrt((gradients**2).sum(axis=2)).sum(axis=1)  # sum_i g_i
  between_groups_and_classes = 0.0
  for q in range(2):
    of_classes = sum(norm[3 + k] for k in range(4) if CLASS_TO_GROUP[k] == q)
    between_groups_and_classes += abs(norm[1 + q] - of_classes)  # Eq. 10
  of_groups = norm[1] + norm[2]
  expected = between_groups_and_classes / 2 + abs(norm[0] - of_groups)
  assert expected > 0.1
  np.testing.assert_allclose(
    synchronization(heads, features, weights), expected / 6, rtol=1e-6
  )


def test_synchronization_vanishes_where_all_heads_agree():
  heads, features, weights = heads_and_data(seed=2)
  for weight in heads.weights:
    weight.assign(tf.repeat(weight[:1], HEADS, axis=0))
  loss = synchronization(heads, features, weights)
  np.testing.assert_allclose(loss, 0.0, atol=1e-12)
  _, norms, _ = heads.compare_domains(features, weights)
  assert norms[0] > 0.01


@pytest.mark.parametrize(
  'variant', [{}, {'norm': 'l1', 'squared': True, 'mean_over_groups': False}]
)
def test_gradient_of_synchronization_is_that_of_finite_differences(variant):
  heads, images, weights = heads_and_data(seed=3)
  extractor = tf.Variable(np.random.default_rng(4).normal(size=[5, 5]))
  variables = [extractor, *heads.trainable_variables]

  @tf.function
  def loss():
    features = tf.tanh(images @ extractor)
    return synchronization(heads, features, weights, **variant)

  with tf.GradientTape() as tape:
    value = loss()
  random = np.random.default_rng(5)
  for variable, gradient in zip(variables, tape.gradient(value, variables)):
    for _ in range(5):
      direction, start = random.normal(size=variable.shape), variable.numpy()
      values = []
      for step in (1e-6, -1e-6):
        variable.assign(start + step * direction)
        values.append(loss())
      variable.assign(start)
      slope = (values[0] - values[1]) / 2e-6
      np.testing.assert_allclose(
        np.sum(gradient * direction), slope, rtol=1e-5, atol=1e-8
      )
      assert abs(slope) > 1e-4


def test_weights_are_weights_alone():
  heads, features, weights = heads_and_data()
  weights = tf.constant(weights)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    alignment, norms, _ = heads.compare_domains(features, weights)
    loss = tf.reduce_sum(alignment) + tf.reduce_sum(norms)
  assert tape.gradient(loss, weights) is None


def test_graph_does_not_grow_with_the_heads():
  sizes = []
  for count in (2000, 4000):
    heads = discriminators.MultiHeadDiscriminator(count, (4, 3))
    heads.build([None, 5])

    @tf.function
    def step(features, weights, heads=heads):
      with tf.GradientTape() as tape:
        alignment, norms, _ = heads.compare_domains(features, weights)
        loss = tf.reduce_sum(alignment) + tf.reduce_sum(norms)
      return tape.gradient(loss, heads.trainable_variables)

    graph = step.get_concrete_function(
      tf.TensorSpec([None, 5]), tf.TensorSpec([count, None])
    ).graph
    sizes.append(len(graph.get_operations()))
  assert sizes[0] == sizes[1]


# The groups.


def test_groups_are_a_partition_as_even_as_can_be():
  # The paper's numbers: 6 groups for Office-31, 13 for Office-Home.
  for num_classes, groups in [(31, 6), (65, 13), (10, 2), (3, 1)]:
    class_to_group = gsda.partition(num_classes)
    assert class_to_group.shape == (num_classes,)
    sizes = np.bincount(class_to_group)
    assert len(sizes) == groups
    assert sizes.sum() == num_classes
    assert sizes.max() - sizes.min() <= 1
  assert np.bincount(gsda.partition(12, 4)).tolist() == [3, 3, 3, 3]
  assert sorted(gsda.partition(4, 4)) == [0, 1, 2, 3]


def test_groups_are_a_function_of_the_seed():
  groups = [gsda.partition(31, 6, seed).tolist() for seed in (0, 0, 1)]
  assert groups[0] == groups[1] != groups[2]
  # At random: not the classes in their order.
  assert groups[0] != [k % 6 for k in range(31)]


# The method.


def confident_run(**changed):
  """A run on batches of 8 + 8, some of whose target images take part."""
  config = {
    'groups': 2,
    'discriminator_dropout': 0.0,
    'synchronization_weight': 3.0,
    'entropy_weight': 0.5,
    'confidence_threshold': 0.505,
    **changed,
  }
  return harness.Run(harness.settings('gsda'), gsda.Config(**config))


def test_terms_and_gradients_are_those_of_equations_14_to_17():
  """The updates, from nested tapes and without a reversal."""
  run = confident_run(alignment_weight=0.7)
  model, progress = run.model, 0.3
  batch = next(iter(run.batches(0, 1)))
  factor = np.tanh(5 * progress)
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  probabilities = tf.nn.softmax(model(images[8:])).numpy()
  confident = (probabilities.max(axis=1) >= 0.505).astype(np.float32)
  assert 0 < confident.sum() < 8
  of_class = np.concatenate(
    [
      np.eye(2)[batch['source']['label'].numpy()],
      probabilities * confident[:, np.newaxis],
    ]
  ).T
  # Two groups of two classes: a class each.
  first = gsda.partition(2, 2, run.settings.seed)
  of_group = np.stack([of_class[first == q].sum(axis=0) for q in range(2)])
  weights = np.concatenate(
    [of_class.sum(axis=0)[np.newaxis], of_group, of_class]
  )
  weights = weights.astype(np.float32)
  is_source = np.repeat([1.0, 0.0], 8).astype(np.float32)
  with tf.GradientTape(persistent=True) as outer:
    features = model.features(images)
    logits = model.classifier(features)
    label = -tf.reduce_mean(
      tf.gather(
        tf.math.log_softmax(logits[:8]), batch['source']['label'], batch_dims=1
      )
    )
    entropy = -tf.reduce_mean(
      confident
      * tf.reduce_sum(
        tf.nn.softmax(logits[8:]) * tf.math.log_softmax(logits[8:]), axis=1
      )
    )
    tiled = tf.tile(features[tf.newaxis], [5, 1, 1])
    with tf.GradientTape() as inner:
      inner.watch(tiled)
      probability = tf.sigmoid(model.discriminators(tiled))
      cross_entropy = -(
        is_source * tf.math.log(probability)
        + (1.0 - is_source) * tf.math.log(1.0 - probability)
      )
      by_row = weights * cross_entropy
    gradients = inner.gradient(by_row, tiled)
    norms = tf.reduce_sum(
      tf.sqrt(tf.reduce_sum(gradients**2, axis=2) + 1e-18), axis=1
    )
    alignment = tf.reduce_sum(by_row) / 16
    of_classes = [norms[3 + int(np.argmax(first == q))] for q in range(2)]
    gaps = [tf.abs(norms[1 + q] - of_classes[q]) for q in range(2)]
    synchronization = (
      (gaps[0] + gaps[1]) / 2 + tf.abs(norms[0] - norms[1] - norms[2])
    ) / 16
    feature_loss = (
      label + 0.5 * entropy - factor * 0.7 * alignment + 3.0 * synchronization
    )  # Eq. 17
    discriminator_loss = 0.7 * alignment + 3.0 * synchronization  # Eq. 15
    classifier_loss = label + 0.5 * entropy
  expected = outer.gradient(feature_loss, model.backbone.trainable_variables)
  expected += outer.gradient(
    classifier_loss, model.classifier.trainable_variables
  )
  expected += outer.gradient(
    discriminator_loss, model.discriminators.trainable_variables
  )
  with tf.GradientTape() as tape:
    total, terms = model.objective(batch, tf.constant(progress))
  ours = tape.gradient(total, model.trainable_variables)
  assert len(ours) == len(expected)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
  by_head = tf.reduce_sum(by_row, axis=1) / 16
  expected_terms = {
    'label': label,
    'entropy': entropy,
    'domain': by_head[0],
    'group': by_head[1] + by_head[2],
    'class': by_head[3] + by_head[4],
    'synchronization': synchronization,
    'group_class_gap': (gaps[0] + gaps[1]) / 2 / 16,
    'domain_group_gap': abs(norms[0] - norms[1] - norms[2]) / 16,
    'domain_gradient': norms[0] / 16,
    'group_gradient': (norms[1] + norms[2]) / 16,
    'class_gradient': (norms[3] + norms[4]) / 16,
    'confident_targets': confident.mean(),
  }
  assert set(terms) == set(expected_terms)
  for name, value in expected_terms.items():
    np.testing.assert_allclose(
      terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name
    )
  np.testing.assert_allclose(
    total,
    label + 0.5 * entropy + 0.7 * alignment + 3.0 * synchronization,
    rtol=1e-5,
  )


def test_target_images_of_no_confidence_have_no_part():
  run = confident_run(confidence_threshold=1.0)
  batch = next(iter(run.batches(0, 1)))
  results = []
  for shift in (0, 40):
    images = batch['target']['image'] + tf.cast(shift, tf.uint8)
    changed = {**batch, 'target': {**batch['target'], 'image': images}}
    with tf.GradientTape() as tape:
      total, terms = run.model.objective(changed, tf.constant(0.5))
    results.append(tape.gradient(total, run.model.trainable_variables))
    assert terms['confident_targets'] == 0
    assert terms['entropy'] == 0
  for a, b in zip(*results):
    np.testing.assert_allclose(a, b, atol=1e-7)
  everyone = confident_run(confidence_threshold=0.0)
  _, terms = everyone.model.objective(batch, tf.constant(0.5))
  assert terms['confident_targets'] == 1


def test_one_replica_equals_two_with_all_images_and_squares():
  config = gsda.Config(
    groups=2, confidence_threshold=0.0, squared=True, entropy_weight=0.5
  )
  results = []
  for replicas in (1, 2):
    run = harness.Run(harness.settings('gsda'), config, replicas)
    terms = run.train(3)
    results.append((run.weights(), terms))
  (one, one_terms), (two, two_terms) = results
  for a, b in zip(one, two):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert one_terms['synchronization'] > 1e-3
  assert two_terms == pytest.approx(one_terms, abs=1e-5)


@pytest.mark.parametrize(
  'levels, heads, silent',
  [
    ('global', 1, ('group', 'class')),
    ('global,class', 1 + 2, ('group',)),
    ('class', 2, ('domain', 'group')),
  ],
)
def test_levels_that_are_off_have_no_heads_and_terms_of_zero(
  levels, heads, silent
):
  run = confident_run(levels=levels, synchronization_weight=0.0)
  assert run.model.discriminators.num_heads == heads
  batch = next(iter(run.batches(0, 1)))
  _, terms = run.model.objective(batch, tf.constant(0.5))
  for level in ('domain', 'group', 'class'):
    assert (terms[level] == 0) == (level in silent)
    assert (terms[f'{level}_gradient'] == 0) == (level in silent)
  for name in ('synchronization', 'group_class_gap', 'domain_group_gap'):
    assert terms[name] == 0


def test_gaps_are_squared_where_the_loss_is():
  run = confident_run(squared=True, confidence_threshold=0.0)
  batch = next(iter(run.batches(0, 1)))
  _, terms = run.model.objective(batch, tf.constant(0.5))
  gap = (terms['domain_gradient'] - terms['group_gradient']) ** 2
  assert gap > 1e-4
  np.testing.assert_allclose(terms['domain_group_gap'], gap, rtol=1e-5)
  np.testing.assert_allclose(
    terms['group_class_gap'], terms['synchronization'] - gap, rtol=1e-4
  )


def test_global_level_alone_is_dann_s_domain_loss():
  run = confident_run(
    levels='global', synchronization_weight=0.0, confidence_threshold=0.0
  )
  batch = next(iter(run.batches(0, 1)))
  _, terms = run.model.objective(batch, tf.constant(0.5))
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  logits = run.model.discriminators(run.model.features(images))[0]
  np.testing.assert_allclose(
    terms['domain'], losses.domain_loss(logits[:8], logits[8:]), rtol=1e-5
  )


def test_discriminators_have_the_width_that_is_set():
  run = confident_run(discriminator_units=7)
  shapes = [w.shape.as_list() for w in run.model.discriminators.weights[::2]]
  assert shapes == [[5, 192, 7], [5, 7, 7], [5, 7, 1]]


@pytest.mark.parametrize(
  'changed, message',
  [
    (
      {'levels': 'global,clas'},
      '--gsda.levels=global,clas: did you mean class',
    ),
    ({'levels': 'global,class'}, '--gsda.synchronization_weight=0'),
  ],
)
def test_levels_that_make_no_sense_are_refused(changed, message):
  with pytest.raises(errors.UsageError, match=message):
    gsda.Config(**changed)


def test_more_groups_than_classes_are_refused():
  with pytest.raises(errors.UsageError, match='--gsda.groups=3: there are 2'):
    confident_run(groups=3)


# Pictures.


def test_pictures_are_of_the_gradients_of_every_level(monkeypatch):
  # With dropout, which they leave out.
  run = confident_run(discriminator_dropout=0.5)
  model = run.model
  drawn = {}
  monkeypatch.setattr(
    gradients, 'draw', lambda *x: drawn.setdefault('gradients', x)
  )
  monkeypatch.setattr(
    figures, 'histogram', lambda *x, **y: drawn.setdefault('weights', (x, y))
  )
  made = model.pictures(run.data)
  made['gradients'].draw()
  made['weights'].draw()

  rows = np.random.default_rng(0).permutation(512)[:256]
  source, target = (run.data[side, 'train'] for side in ('source', 'target'))
  features = model.features(
    tf.constant(np.concatenate([source.images[rows], target.images[rows]]))
  )
  probabilities = tf.nn.softmax(model.classifier(features[256:])).numpy()
  confident = probabilities.max(axis=1) >= 0.505
  assert 0 < confident.sum() < 256
  of_class = np.concatenate(
    [np.eye(2)[source.labels[rows]], probabilities * confident[:, None]]
  ).T
  of_group = of_class[np.argsort(model.class_to_group)]
  p = np.concatenate([of_class.sum(axis=0)[None], of_group, of_class])
  tiled = tf.tile(features[tf.newaxis], [5, 1, 1])
  with tf.GradientTape() as tape:
    tape.watch(tiled)
    logits = model.discriminators(tiled)
    signs = np.repeat([-1.0, 1.0], 256)
    loss = np.float32(p) * tf.nn.softplus(np.float32(signs) * logits)
  lengths = tf.norm(tape.gradient(loss, tiled), axis=2).numpy()
  norms = lengths.mean(axis=1)
  of_domain, of_groups = drawn['gradients']
  np.testing.assert_allclose(of_domain[0], norms[0], rtol=1e-4)
  np.testing.assert_allclose(of_domain[1], norms[1:3], rtol=1e-4)
  for q, (norm, parts) in enumerate(of_groups):
    np.testing.assert_allclose(norm, norms[1 + q], rtol=1e-4)
    (k,) = np.flatnonzero(model.class_to_group == q)
    np.testing.assert_allclose(parts, norms[3 + k : 4 + k], rtol=1e-4)
  told = made['gradients'].caption()
  assert 'features of 256 training images of each domain' in told
  assert f'domain {norms[0]:.3g}, all groups {norms[1:3].sum():.3g} ' in told
  # The weights: all of them behind, of the confident in front.
  (weights, names, _), behind = drawn['weights']
  assert names == ('level', 'upright')
  np.testing.assert_allclose(weights, of_class[:, 256:].mean(axis=1), rtol=1e-5)
  np.testing.assert_allclose(
    behind['behind'], probabilities.mean(axis=0), rtol=1e-5
  )
  told = made['weights'].caption()
  assert f'dark of the {confident.mean():.0%} whose' in told


def test_caption_names_the_group_that_is_farthest_from_its_classes():
  pull = gradients._Pull(
    domain=np.array([4.0]),
    groups=np.array([2.0, 1.0]),
    classes=np.array([0.5, 1.0, 1.0, 0.4]),
    probabilities=np.array([[0.97, 0.01, 0.01, 0.01], [0.5, 0.5, 0.0, 0.0]]),
    confident=np.array([1.0, 0.0]),
  )
  names = ('cup', 'pen', 'bag', 'bike')
  told = gradients._gaps(pull, np.array(CLASS_TO_GROUP), names)
  # 4 and 3: a quarter. 2 and 0.9: 55%; 1 and 2: 50%.
  assert 'domain 4, all groups 3 (25% apart)' in told
  assert '52% apart on average, most of all group 1 (cup, bike): 2 and' in told
  assert told.endswith(': 2 and 0.9.')
  told = gradients._believed(pull, names, 0.9)
  # Of 0.485, 0.005, 0.005 and 0.005 three are below a tenth of a quarter.
  assert 'dark of the 50% whose' in told
  assert '3 of 4 classes (pen, bag, bike) have less' in told
  assert gradients.apart(0.0, 0.0) == 0.0 and gradients.apart(1.0, 4.0) == 0.75


def test_bars_are_levels_beside_the_stacks_of_their_parts(monkeypatch):
  from matplotlib import figure as matplotlib_figure

  made = matplotlib_figure.Figure(layout='constrained')
  monkeypatch.setattr(figures, 'png', lambda draw, size: draw(made))
  gradients.draw(
    (4.0, np.array([2.0, 1.0])),
    [(2.0, np.array([0.5, 0.25])), (1.0, np.array([1.5]))],
  )
  domain, groups = (
    [
      (b.get_x() < round(b.get_x() + 0.2), b.get_y(), b.get_height())
      for b in axes.patches
    ]
    for axes in made.axes
  )
  # (left of the middle, bottom, height).
  assert domain == [(True, 0, 4.0), (False, 0.0, 2.0), (False, 2.0, 1.0)]
  assert groups == [
    *((True, 0, 2.0), (True, 0, 1.0)),
    *((False, 0.0, 0.5), (False, 0.5, 0.25), (False, 0.0, 1.5)),
  ]


@pytest.mark.parametrize(
  'levels, names, bars',
  [
    ('global', set(), None),
    ('class', {'weights'}, None),
    ('global,class', {'gradients', 'weights'}, (2, 0)),
    ('global,group', {'gradients', 'weights'}, (2, 0)),
    ('group,class', {'gradients', 'weights'}, (None, 2)),
  ],
)
def test_levels_that_are_off_are_not_shown(levels, names, bars, monkeypatch):
  run = confident_run(levels=levels, synchronization_weight=0.0)
  made = run.model.pictures(run.data)
  assert set(made) == names
  if bars:
    draw, drawn = gradients.draw, []
    monkeypatch.setattr(
      gradients, 'draw', lambda *x: drawn.extend(x) or draw(*x)
    )
    made['gradients'].draw()
    of_domain, of_groups = drawn
    assert (of_domain and len(of_domain[1]), len(of_groups)) == bars
    told = made['gradients'].caption()
    assert (': domain ' in told) == (bars[0] is not None)
    assert ('a group and its classes' in told) == (bars[1] > 0)


def test_solves_the_toy_problem():
  run = harness.toy('gsda')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


# Flag files.


@pytest.mark.parametrize(
  'files, count, average',
  [
    # The last columns of Tables 1 and 3.
    ('office31_*/gsda_global', 6, 83.7),
    ('office31_*/gsda_class', 6, 85.6),
    ('office31_*/gsda_group', 6, 87.0),
    ('office31_*/gsda', 6, 89.7),
    ('office_home_*/gsda', 12, 70.3),
  ],
)
def test_flag_files_are_the_rows_of_the_paper_s_tables(files, count, average):
  figures = []
  for path in glob.glob(os.path.join(FLAGS, f'{files}.flags')):
    with open(path, encoding='utf-8') as file:
      figures.append(float(file.readline().rstrip('.\n').split(': ')[1]))
  assert len(figures) == count
  np.testing.assert_allclose(np.mean(figures), average, atol=0.051)


@pytest.mark.parametrize(
  'path, groups, entropy_weight, synchronization_weight',
  [
    ('office31_amazon2webcam/gsda', 6, 0.02, 1.0),
    ('office31_amazon2webcam/gsda_partial', 6, 0.2, 10.0),
    ('office_home_art2clipart/gsda', 13, 0.02, 1.0),
    ('visda2017_train2validation/gsda', 4, 0.2, 10.0),
  ],
)
def test_recipes_are_those_of_section_3_1(
  monkeypatch, path, groups, entropy_weight, synchronization_weight
):
  monkeypatch.chdir(os.path.dirname(FLAGS))
  settings, config, _, _ = flag_config.parse_experiment(
    [f'--flagfile=flags/{path}.flags']
  )
  assert (settings.backbone, settings.class_balanced) == ('resnet50', True)
  assert config == gsda.Config(
    groups=groups,
    entropy_weight=entropy_weight,
    synchronization_weight=synchronization_weight,
  )
  partial = (settings.target_classes or '').split(',')
  assert len(partial) == (10 if 'partial' in path else 1)
