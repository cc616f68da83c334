"""NetVLAD: Eq. 1-2 by loops, what rounds and overflows, and k-means."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import numeric
from tfda import errors
from tfda.layers import netvlad

PUBLISHED = 5000.0  # alpha.


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def assignment_by_loops(features, patterns, decay):
  """Eq. 1 in float64 for features [n, D]."""
  features, patterns = np.float64(features), np.float64(patterns)
  shares = np.empty([len(features), len(patterns)])
  for n, feature in enumerate(features):
    distances = [sum((feature - c) ** 2) for c in patterns]
    powers = [math.exp(-decay * (d - min(distances))) for d in distances]
    shares[n] = np.array(powers) / sum(powers)
  return shares


def encoding_by_loops(features, patterns, decay):
  """Eq. 2 of one image [n, D]: normalised columns, pattern after pattern."""
  shares = assignment_by_loops(features, patterns, decay)
  columns = []
  for k, pattern in enumerate(np.float64(patterns)):
    column = np.zeros(len(pattern))
    for n, feature in enumerate(np.float64(features)):
      for d in range(len(pattern)):
        column[d] += shares[n, k] * (feature[d] - pattern[d])
    length = math.sqrt(sum(column**2))
    columns.append(column / length if length else column)
  whole = np.concatenate(columns)
  return whole / math.sqrt(sum(whole**2))


def made(patterns, shape=(None, 2, 3), **settings):
  patterns = np.asarray(patterns)
  layer = netvlad.NetVLAD(len(patterns), **settings)
  layer.build([*shape, patterns.shape[1]])
  layer.patterns.assign(patterns)
  return layer


# soft_assignment


def test_soft_assignment_example():
  shares = netvlad.soft_assignment([0.5], [[0.0], [2.0]], math.log(3.0) / 2.0)
  np.testing.assert_allclose(shares, [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize('decay', [0.0, 0.005, 1.0, 30.0])
def test_soft_assignment_is_equation_1(decay):
  features, patterns = normal(3, 2, 5), normal(4, 5, seed=1)
  shares = netvlad.soft_assignment(features, patterns, decay).numpy()
  expected = assignment_by_loops(features.reshape(6, 5), patterns, decay)
  assert shares.shape == (3, 2, 4)
  np.testing.assert_allclose(shares.reshape(6, 4), expected, rtol=1e-9)


@pytest.mark.parametrize('decay', [0.3, 2.0])
def test_gradient_of_the_soft_assignment(decay):
  features, patterns = normal(3, 4), normal(5, 4, seed=1)
  weights = normal(3, 5, seed=2)

  def reference(features, patterns):
    return (weights * assignment_by_loops(features, patterns, decay)).sum()

  _, (to_features, to_patterns) = numeric.gradients(
    lambda f, c: tf.reduce_sum(weights * netvlad.soft_assignment(f, c, decay)),
    features,
    patterns,
  )
  np.testing.assert_allclose(
    to_features,
    numeric.finite_differences(lambda f: reference(f, patterns), features),
    atol=1e-8,
  )
  np.testing.assert_allclose(
    to_patterns,
    numeric.finite_differences(lambda c: reference(features, c), patterns),
    atol=1e-8,
  )


def test_one_pattern_gets_all():
  shares, (to_features, _) = numeric.gradients(
    lambda f, c: netvlad.soft_assignment(f, c, PUBLISHED),
    normal(3, 4),
    normal(1, 4, seed=1),
  )
  np.testing.assert_array_equal(shares, np.ones([3, 1]))
  np.testing.assert_array_equal(to_features, np.zeros([3, 4]))


def close_calls(count=200, depth=64, offset=0.0):
  """float32 features half-way between two of eight patterns, give or take."""
  random = np.random.default_rng(0)
  patterns = offset + random.normal(size=[8, depth])
  between = patterns[1] - patterns[0]
  sideways = 0.1 * random.normal(size=[count, depth])
  sideways -= np.outer(sideways @ between, between) / sum(between**2)
  # x of the way from the middle, the squared distances differ by 2 x |c|^2.
  x = random.uniform(-1.0, 1.0, [count, 1]) / (2000.0 * sum(between**2))
  features = patterns[:2].mean(axis=0) + x * between + sideways
  return np.float32(features), np.float32(patterns)


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_close_calls_at_the_published_decay_keep_their_digits(offset):
  features, patterns = close_calls(offset=offset)
  expected = assignment_by_loops(features, patterns, PUBLISHED)
  undecided = (expected.max(axis=1) < 0.99).mean()
  assert undecided > 0.5, 'the features are no close calls'
  shares = netvlad.soft_assignment(features, patterns, PUBLISHED).numpy()
  np.testing.assert_allclose(shares, expected, atol=0.02)


@pytest.mark.parametrize('calls', [4, 0])
def test_only_the_closest_calls_are_decided_anew(calls, monkeypatch):
  """As in training, where they are a part of all."""
  monkeypatch.setattr(netvlad, '_CLOSE_CALLS', calls)
  monkeypatch.setattr(netvlad, '_ONE_IN', 10**9)
  close, patterns = close_calls(calls, offset=100.0)
  random = np.random.default_rng(1)
  clear = patterns[random.integers(8, size=60)] + 0.1 * normal(60, 64)
  features = np.concatenate([clear, close])[random.permutation(60 + calls)]
  shares = netvlad.soft_assignment(np.float32(features), patterns, PUBLISHED)
  expected = assignment_by_loops(features, patterns, PUBLISHED)
  np.testing.assert_allclose(shares, expected, atol=0.02)


def test_closest_call_is_exact_at_the_size_of_real_features():
  # ||F - c||^2 is about 2,000, as on icon_home.
  random = np.random.default_rng(0)
  pattern = np.float32(random.normal(0.0, 1.4, [1, 1024]))
  step = np.zeros([1, 1024], np.float32)
  step[0, 3] = 2.0**-10
  patterns = np.concatenate([pattern, pattern + step])
  features = np.zeros([1, 1024], np.float32)
  # |F - c_1|^2 - |F - c_0|^2 = 2 c_3 s + s^2.
  nearer = 2.0 * float(pattern[0, 3]) * 2.0**-10 + 2.0**-20
  expected = 1.0 / (1.0 + np.exp(-200.0 * nearer))
  shares = netvlad.soft_assignment(features, patterns, 200.0)
  np.testing.assert_allclose(shares[0, 0], expected, rtol=1e-3)


def test_two_neighbours_far_from_the_mean_are_told_apart():
  """There the matrix product alone rounds what decides."""
  patterns = np.float32([[1000.0, 0.0], [1000.0, 0.02], [-1000.0, 0.0]])
  features = np.float32([[1000.0, y] for y in np.linspace(0.005, 0.015, 21)])
  expected = assignment_by_loops(features, patterns, PUBLISHED)
  shares = netvlad.soft_assignment(features, patterns, PUBLISHED)
  np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_half_precision_is_computed_in_float32():
  features = tf.cast(100.0 * normal(4, 300), tf.float16)  # |F|^2 overflows.
  shares = netvlad.soft_assignment(features, normal(3, 300, seed=1), PUBLISHED)
  assert shares.dtype == tf.float32
  np.testing.assert_allclose(tf.reduce_sum(shares, axis=1), np.ones(4))


# NetVLAD


def test_tensor_float_32_is_off_in_a_process_that_has_the_layer():
  experimental = tf.config.experimental
  before = experimental.tensor_float_32_execution_enabled()
  try:
    experimental.enable_tensor_float_32_execution(True)
    netvlad.NetVLAD(2).build([None, 2, 2, 3])
    assert not experimental.tensor_float_32_execution_enabled()
  finally:
    experimental.enable_tensor_float_32_execution(before)


def test_conditioned_residuals_example():
  features, patterns = [[1.0, 3.0]], [[0.0, 2.0], [5.0, 2.0]]
  found = netvlad.conditioned_residuals(
    tf.constant(features), tf.constant(patterns), tf.constant([[0.9, 0.1]])
  )
  np.testing.assert_array_equal(found, [[1.0, 1.0, 1.0, 0.0]])


def test_gradient_of_conditioned_residuals_is_that_of_the_difference_alone():
  features = tf.constant(normal(3, 2))
  patterns = tf.constant(normal(4, 2, seed=1))
  assignments = tf.constant(np.eye(4)[[2, 0, 2]])
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([features, patterns, assignments])
    residuals = netvlad.conditioned_residuals(features, patterns, assignments)
    total = tf.reduce_sum(residuals)
  assert tape.gradient(total, assignments) is None
  np.testing.assert_array_equal(tape.gradient(total, features), np.ones([3, 2]))
  # Of pattern k: less one for every feature assigned to it.
  slopes = tf.convert_to_tensor(tape.gradient(total, patterns))
  np.testing.assert_array_equal(slopes[:, 0], [-1, 0, -2, 0])
  np.testing.assert_array_equal(slopes[:, 1], [-1, 0, -2, 0])


def test_netvlad_example():
  patterns = [[0.0, 2.0], [5.0, 2.0]]
  features = tf.constant([[[[1.0, 2.0], [4.0, 2.0]]]])
  encoding = made(patterns, shape=(None, 1, 2))(features)
  expected = np.array([[1.0, 0.0, -1.0, 0.0]]) / math.sqrt(2.0)
  np.testing.assert_allclose(encoding, expected, atol=1e-6)
  # 3/4 [1, 0] + 1/4 [4, 0]
  shares = tf.constant([[[0.75, 0.25], [0.25, 0.75]]])
  centred = netvlad._centred(features[0], tf.constant(patterns))
  sums = netvlad._aggregate(*centred, shares)
  np.testing.assert_allclose(sums, [[[1.75, 0.0], [-1.75, 0.0]]], rtol=1e-6)


def test_normalisation_example():
  columns = tf.constant([[[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]])
  expected = np.array([[[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]]) / math.sqrt(2.0)
  np.testing.assert_allclose(netvlad.normalised(columns), expected, rtol=1e-6)


@pytest.mark.parametrize('decay', [0.2, PUBLISHED])
def test_encoding_is_equation_2_pattern_by_pattern(decay):
  features, patterns = normal(4, 2, 3, 5), normal(3, 5, seed=1)
  encoding, shares = made(patterns, decay=decay)(
    np.float32(features), with_assignments=True
  )
  for i, image in enumerate(np.float32(features).reshape(4, 6, 5)):
    expected = encoding_by_loops(image, np.float32(patterns), decay)
    np.testing.assert_allclose(encoding[i], expected, atol=1e-5)
    expected = assignment_by_loops(image, np.float32(patterns), decay)
    np.testing.assert_allclose(
      np.reshape(shares[i], [6, 3]), expected, atol=1e-4
    )


def test_gradient_flows_through_the_residuals_where_assignments_are_decided():
  """S is constant there: dV[k]/dF_n = S_n[k], dV[k]/dc_k = -sum_n S_n[k]."""
  patterns = np.float32([[0.0, 0.0], [10.0, 0.0]])
  features = np.float32([[[1.0, 2.0], [-1.0, 0.5], [9.0, 1.0]]])
  weights = np.float32([[[1.0, 2.0], [3.0, 4.0]]])

  def loss(features, patterns):
    shares = netvlad.soft_assignment(features, patterns, PUBLISHED)
    sums = netvlad._aggregate(*netvlad._centred(features, patterns), shares)
    return tf.reduce_sum(weights * sums)

  _, (to_features, to_patterns) = numeric.gradients(loss, features, patterns)
  np.testing.assert_allclose(to_features, [[[1, 2], [1, 2], [3, 4]]], rtol=1e-5)
  np.testing.assert_allclose(to_patterns, [[-2, -4], [-3, -4]], rtol=1e-5)


@pytest.mark.parametrize('decay', [0.5, 2.0])
def test_gradient_of_the_encoding(decay):
  patterns = np.float32(normal(3, 4, seed=1))
  features = np.float32(normal(1, 2, 3, 4))
  weights = normal(12, seed=2)
  layer = made(patterns, decay=decay)

  def reference(image, patterns):
    return (weights * encoding_by_loops(image, patterns, decay)).sum()

  watched = tf.constant(features)
  with tf.GradientTape() as tape:
    tape.watch(watched)
    loss = tf.reduce_sum(tf.constant(weights, tf.float32) * layer(watched)[0])
  to_features, to_patterns = tape.gradient(loss, [watched, layer.patterns])
  image = np.float64(features.reshape(6, 4))
  np.testing.assert_allclose(
    np.reshape(to_features, [6, 4]),
    numeric.finite_differences(lambda x: reference(x, patterns), image),
    atol=1e-4,
  )
  np.testing.assert_allclose(
    to_patterns,
    numeric.finite_differences(
      lambda c: reference(image, c), np.float64(patterns)
    ),
    atol=1e-4,
  )


@pytest.mark.parametrize('policy', ['float32', 'mixed_float16'])
@pytest.mark.parametrize('case', ['empty pattern', 'all equal', 'on a pattern'])
def test_values_and_gradients_are_finite(case, policy):
  patterns = 30.0 * normal(3, 8, seed=1)
  features = 30.0 * normal(2, 2, 3, 8)
  if case == 'empty pattern':
    patterns[1] = 1e4
  elif case == 'all equal':
    features[:], patterns[:] = 5.0, 5.0
  else:
    features[:] = patterns[0]
  before = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy(policy)
  try:
    layer = made(patterns)
    dtype = tf.float16 if policy == 'mixed_float16' else tf.float32
    features = tf.cast(features, dtype)
    with tf.GradientTape() as tape:
      tape.watch(features)
      encoding = layer(features)
      loss = tf.reduce_sum(encoding * np.float32(normal(2, 24, seed=2)))
    to_both = tape.gradient(loss, [features, layer.patterns])
  finally:
    tf.keras.mixed_precision.set_global_policy(before)
  assert encoding.dtype == tf.float32
  for value in (encoding, *to_both):
    assert np.isfinite(value).all()
  if case == 'empty pattern':
    np.testing.assert_array_equal(encoding[:, 8:16], np.zeros([2, 8]))
    np.testing.assert_array_equal(to_both[1][1], np.zeros(8))
    np.testing.assert_allclose(tf.norm(encoding, axis=1), np.ones(2), rtol=1e-5)


def test_no_tensor_has_all_positions_patterns_and_depths():
  layer = made(normal(7, 11), shape=(None, 3, 5))

  @tf.function
  def step(features):
    with tf.GradientTape() as tape:
      tape.watch(features)
      loss = tf.reduce_sum(layer(features) ** 3)
    return tape.gradient(loss, [features, layer.patterns])

  graph = step.get_concrete_function(tf.TensorSpec([13, 3, 5, 11])).graph
  sizes = [
    output.shape.num_elements() or 0
    for operation in graph.get_operations()
    for output in operation.outputs
  ]
  assert max(sizes) == 13 * 3 * 5 * 11  # The features themselves.


def test_config_makes_the_same_layer():
  layer = netvlad.NetVLAD(6, decay=2.0, name='patterns')
  config = layer.get_config()
  assert netvlad.NetVLAD.from_config(config).get_config() == config
  assert (config['num_patterns'], config['decay']) == (6, 2.0)
  assert netvlad.NetVLAD(6).decay == PUBLISHED


# adapt


def blobs(seed=0, count=40):
  """Batches of maps [3, 2, 2, 4] whose positions lie about three centres."""
  random = np.random.default_rng(seed)
  centres = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 0, 9, 9]])
  for _ in range(count):
    chosen = centres[random.integers(3, size=[3, 2, 2])]
    yield np.float32(chosen + random.normal(0.0, 0.1, chosen.shape))


def test_adapt_makes_patterns_of_the_clusters():
  layer = netvlad.NetVLAD(3)
  layer.adapt(blobs())
  positions = np.concatenate(list(blobs())).reshape(-1, 4)
  of_first = positions[:, 0] > 5
  of_second = positions[:, 3] > 5
  means = [
    positions[rows].mean(axis=0)
    for rows in (~of_first & ~of_second, of_second, of_first)
  ]
  found = layer.patterns.numpy()
  np.testing.assert_allclose(
    found[np.lexsort((found[:, 3], found[:, 0] > 5))], means, atol=0.02
  )


def test_adapt_is_the_same_again():
  layers = [netvlad.NetVLAD(5) for _ in range(3)]
  for layer, seed in zip(layers, (1, 1, 2)):
    layer.adapt(blobs(), seed=seed)
  first, again, other = (layer.patterns.numpy() for layer in layers)
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)


def test_adapt_takes_as_many_positions_as_are_asked_for():
  assert netvlad._POSITIONS >= 50_000


def test_adapt_reads_no_more_than_it_needs(monkeypatch):
  monkeypatch.setattr(netvlad, '_POSITIONS', 50)
  read = []

  def batches():
    for batch in blobs(count=1000):
      read.append(batch)
      yield batch

  netvlad.NetVLAD(3).adapt(batches())
  # 12 positions a batch; 17 batches are the first that have 4 * 50.
  assert len(read) == 17


def test_every_position_is_as_likely_to_be_taken(monkeypatch):
  monkeypatch.setattr(netvlad, '_POSITIONS', 20)
  taken = np.zeros(80)
  for seed in range(400):
    batches = np.arange(80.0).reshape(8, 10, 1, 1, 1)
    sample = netvlad._sample(batches, np.random.default_rng(seed))
    assert len(set(sample[:, 0])) == 20
    taken[sample[:, 0].astype(int)] += 1
  # Binomial: 400 times 1/4 is 100, with a standard deviation of 8.7.
  assert abs(taken - 100).max() < 4 * 8.7
  assert abs(taken[:20].mean() - taken[-20:].mean()) < 10


def test_adapt_refuses_what_it_cannot_use():
  with pytest.raises(errors.UsageError, match='12 local features .* too few'):
    netvlad.NetVLAD(13).adapt(blobs(count=1))
  with pytest.raises(errors.UsageError, match='0 local features'):
    netvlad.NetVLAD(2).adapt([])
  with pytest.raises(errors.RunError, match='not finite'):
    netvlad.NetVLAD(2).adapt([np.full([1, 2, 2, 3], np.nan)])
