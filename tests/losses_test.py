"""The losses: worked examples, plain numpy, gradients, extremes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.numeric import finite_differences as _finite_differences
from tests.numeric import gradients as _gradients
from tests.numeric import softmax as _softmax
from tfda import losses
from tfda.layers import netvlad

LN2 = math.log(2.0)
LN3 = math.log(3.0)


def _logits(*shape, seed=0):
  return np.random.default_rng(seed).normal(0.0, 3.0, shape)


def _sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


# label_loss


def test_label_loss_examples():
  # softmax([ln 3, 0]) = [3/4, 1/4]
  loss = losses.label_loss([0], [[LN3, 0.0]])
  np.testing.assert_allclose(loss, 0.2877, atol=5e-5)
  loss = losses.label_loss([1], [[LN3, 0.0]])
  np.testing.assert_allclose(loss, math.log(4.0), rtol=1e-6)
  for classes in (2, 10):
    loss = losses.label_loss([0, 1], tf.zeros([2, classes]))
    np.testing.assert_allclose(loss, math.log(classes), rtol=1e-6)


def test_label_loss_is_the_mean_over_the_batch():
  labels = np.array([2, 0, 1, 1, 2])
  logits = _logits(5, 3)
  expected = np.mean([-np.log(_softmax(r)[y]) for r, y in zip(logits, labels)])
  value, (gradient,) = _gradients(
    lambda x: losses.label_loss(labels, x), logits
  )
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  # d/dlogits of the cross-entropy of one row is softmax - one-hot.
  closed_form = (_softmax(logits) - np.eye(3)[labels]) / 5.0
  np.testing.assert_allclose(gradient, closed_form, rtol=1e-9, atol=1e-15)


def test_label_loss_at_extreme_logits():
  logits = np.array([[1e4, -1e4], [1e4, -1e4]])
  value, (gradient,) = _gradients(
    lambda x: losses.label_loss([0, 1], x), logits
  )
  np.testing.assert_allclose(value, (0.0 + 2e4) / 2.0)
  np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.5, -0.5]], atol=1e-12)


def test_label_loss_checks_ranks():
  for logits in (tf.zeros([3]), tf.zeros([3, 2, 2])):
    with pytest.raises(ValueError, match='rank'):
      losses.label_loss([0, 1, 0], logits)
  with pytest.raises(ValueError):
    losses.label_loss([[0], [1], [0]], tf.zeros([3, 2]))


# domain_loss


def test_domain_loss_examples():
  # Source 1/2 and target 3/4 for "source": (ln 2 + ln 4) / 2
  loss = losses.domain_loss([0.0], [LN3])
  np.testing.assert_allclose(loss, 1.0397, atol=5e-5)
  loss = losses.domain_loss(tf.zeros([3]), tf.zeros([5]))
  np.testing.assert_allclose(loss, LN2, rtol=1e-6)
  # The source is 1: a positive logit is right there and wrong on the target.
  # -ln(3/4) and -ln(1/4)
  right = losses.domain_loss([LN3], [-LN3])
  wrong = losses.domain_loss([-LN3], [LN3])
  np.testing.assert_allclose(right, math.log(4.0 / 3.0), rtol=1e-6)
  np.testing.assert_allclose(wrong, math.log(4.0), rtol=1e-6)


def test_domain_loss_weighs_the_domains_alike():
  source, target = _logits(3, seed=1), _logits(7, seed=2)
  expected = 0.5 * (
    np.mean(-np.log(_sigmoid(source)))
    + np.mean(-np.log(1.0 - _sigmoid(target)))
  )
  value, gradients = _gradients(losses.domain_loss, source, target)
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  # d/dx of the binary cross-entropy is sigmoid(x) - label.
  np.testing.assert_allclose(
    gradients[0], 0.5 * (_sigmoid(source) - 1.0) / 3.0, rtol=1e-9
  )
  np.testing.assert_allclose(
    gradients[1], 0.5 * _sigmoid(target) / 7.0, rtol=1e-9
  )


def test_domain_loss_at_extreme_logits():
  extremes = np.array([1e4, -1e4])
  value, (source, target) = _gradients(losses.domain_loss, extremes, extremes)
  # One of two is wrong by 1e4 in each domain.
  np.testing.assert_allclose(value, 0.5 * (5e3 + 5e3))
  np.testing.assert_allclose(source, [0.0, -0.25], atol=1e-12)
  np.testing.assert_allclose(target, [0.25, 0.0], atol=1e-12)


def test_domain_loss_checks_ranks():
  good = tf.zeros([4])
  for bad in (tf.zeros([4, 1]), tf.zeros([])):
    with pytest.raises(ValueError, match='rank'):
      losses.domain_loss(bad, good)
    with pytest.raises(ValueError, match='rank'):
      losses.domain_loss(good, bad)


# entropy


def test_entropy_examples():
  # -(1/2 ln 1/2 + 2 * 1/4 ln 1/4) = 1/2 ln 2 + ln 2
  entropy = losses.entropy([[LN2, 0.0, 0.0]])
  np.testing.assert_allclose(entropy, [1.5 * LN2], rtol=1e-6)
  np.testing.assert_allclose(entropy, [1.0397], atol=5e-5)
  for classes in (2, 31):
    entropy = losses.entropy(tf.fill([classes], 3.0))
    np.testing.assert_allclose(entropy, math.log(classes), rtol=1e-6)


def test_entropy_against_numpy():
  logits = _logits(2, 4, 5)
  p = _softmax(logits)
  value = losses.entropy(logits).numpy()
  np.testing.assert_allclose(value, -(p * np.log(p)).sum(-1), rtol=1e-10)
  assert (value > 0.0).all() and (value < math.log(5.0)).all()
  # A constant on all logits changes nothing.
  np.testing.assert_allclose(losses.entropy(logits + 50.0), value, rtol=1e-10)


def test_entropy_gradient():
  logits = _logits(3, 4, seed=5)

  def reference(x):
    p = _softmax(x)
    return -(p * np.log(p)).sum()

  _, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.entropy(x)), logits
  )
  np.testing.assert_allclose(
    gradient, _finite_differences(reference, logits), atol=1e-7
  )


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_entropy_at_extreme_logits(dtype):
  logits = np.array(
    [[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype
  )
  value, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.entropy(x)), logits
  )
  tolerance = 2e-3 if dtype == 'float16' else 1e-6
  np.testing.assert_allclose(
    losses.entropy(logits), [0.0, LN2, LN3], atol=tolerance
  )
  np.testing.assert_allclose(value, LN2 + LN3, atol=2 * tolerance)
  np.testing.assert_allclose(gradient, np.zeros([3, 3]), atol=tolerance)


def test_entropy_of_a_scalar_is_refused():
  with pytest.raises(ValueError, match='rank'):
    losses.entropy(1.0)


# binary_entropy


def test_binary_entropy_examples():
  # 3/4 ln 4/3 + 1/4 ln 4 = 2 ln 2 - 3/4 ln 3
  entropy = losses.binary_entropy([[0.0, LN3], [-LN3, 0.0]])
  certain = 2 * LN2 - 0.75 * LN3
  expected = [[LN2, certain], [certain, LN2]]
  np.testing.assert_allclose(entropy, expected, rtol=1e-6)
  np.testing.assert_allclose(entropy[0, 1], 0.5623, atol=5e-5)


def test_binary_entropy_is_the_entropy_of_two_classes():
  logits = _logits(3, 5)
  value, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.binary_entropy(x)), logits
  )
  pairs = tf.stack([logits, np.zeros_like(logits)], axis=-1)
  np.testing.assert_allclose(
    losses.binary_entropy(logits), losses.entropy(pairs), rtol=1e-10
  )
  # With s = sigmoid(x), dH/dx = -x s (1 - s).
  s = _sigmoid(logits)
  np.testing.assert_allclose(gradient, -logits * s * (1 - s), rtol=1e-9)


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_binary_entropy_at_extreme_logits(dtype):
  logits = np.array([1e4, -1e4, 0.0], dtype)
  value, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.binary_entropy(x)), logits
  )
  tolerance = 1e-3 if dtype == 'float16' else 1e-6
  np.testing.assert_allclose(value, LN2, atol=tolerance)
  np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-12)
  assert losses.binary_entropy(logits).dtype == dtype


def test_binary_entropy_keeps_its_digits_where_it_is_small():
  # H = (x + 1) e^-x (1 + O(e^-x)), which a difference would lose in float32.
  entropy = losses.binary_entropy(tf.constant([20.0, -20.0]))
  np.testing.assert_allclose(entropy, [21.0 * math.exp(-20.0)] * 2, rtol=1e-5)


# attentive_entropy


def test_attentive_entropy_example():
  # ln 2 ((1 + ln 2) + (1 + 2 ln 2 - 3/4 ln 3)) / 2
  loss = losses.attentive_entropy(tf.zeros([2, 2]), [0.0, LN3])
  expected = LN2 * (2 + 3 * LN2 - 0.75 * LN3) / 2
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  np.testing.assert_allclose(loss, 1.1283, atol=5e-5)


def test_attentive_entropy_against_numpy():
  class_logits, domain_logits = _logits(6, 4), _logits(6, seed=1)

  def reference(class_logits, domain_logits):
    p, d = _softmax(class_logits), _sigmoid(domain_logits)
    m = 1 - d * np.log(d) - (1 - d) * np.log(1 - d)  # Eq. 6
    return -(m * (p * np.log(p)).sum(axis=1)).mean()  # Eq. 7

  value, (to_classes, to_domains) = _gradients(
    losses.attentive_entropy, class_logits, domain_logits
  )
  np.testing.assert_allclose(
    value, reference(class_logits, domain_logits), rtol=1e-10
  )
  np.testing.assert_allclose(
    to_classes,
    _finite_differences(lambda x: reference(x, domain_logits), class_logits),
    atol=1e-8,
  )
  np.testing.assert_allclose(
    to_domains,
    _finite_differences(lambda x: reference(class_logits, x), domain_logits),
    atol=1e-8,
  )


def test_attentive_entropy_of_domains_told_apart_is_the_entropy():
  class_logits = _logits(4, 3)
  certain = np.array([1e4, -1e4, 1e4, -1e4])
  loss = losses.attentive_entropy(class_logits, certain)
  np.testing.assert_allclose(
    loss, np.mean(losses.entropy(class_logits)), rtol=1e-6
  )
  # Told apart not at all: 1 + ln 2 times as much.
  loss = losses.attentive_entropy(class_logits, np.zeros(4))
  np.testing.assert_allclose(
    loss, (1 + LN2) * np.mean(losses.entropy(class_logits)), rtol=1e-6
  )


def test_attentive_entropy_checks_shapes():
  with pytest.raises(ValueError, match='rank'):
    losses.attentive_entropy(tf.zeros([4]), tf.zeros([4]))
  for domain_logits in (tf.zeros([4, 1]), tf.zeros([]), tf.zeros([3])):
    with pytest.raises(ValueError):
      losses.attentive_entropy(tf.zeros([4, 2]), domain_logits)


# assignment_sparsity


def test_assignment_sparsity_example():
  loss = losses.assignment_sparsity([[0.5, 0.5], [1.0, 0.0]])
  np.testing.assert_allclose(loss, 0.5 * (LN2 + 0.02), rtol=1e-6)
  np.testing.assert_allclose(loss, 0.3566, atol=5e-5)


def test_assignment_sparsity_against_numpy():
  shares = _softmax(_logits(2, 3, 5))

  def reference(shares, threshold):
    entropies = -(shares * np.log(shares)).sum(axis=-1)
    return np.mean([max(h, threshold) for h in entropies.ravel()])

  entropies = -(shares * np.log(shares)).sum(axis=-1)
  # A threshold that three of the six positions are below.
  threshold = float(np.median(entropies))
  for m in (0.02, threshold):
    value, (gradient,) = _gradients(
      lambda s, m=m: losses.assignment_sparsity(s, m), shares
    )
    np.testing.assert_allclose(value, reference(shares, m), rtol=1e-10)
    expected = _finite_differences(lambda s, m=m: reference(s, m), shares)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
  below = entropies < threshold
  assert below.sum() == 3
  np.testing.assert_array_equal(gradient[below], np.zeros([3, 5]))


def test_assignment_sparsity_of_certain_and_of_equal_shares():
  for shares, expected in [
    (np.eye(4), 0.02),
    (np.full([3, 32], 1 / 32), math.log(32.0)),
    (np.float32([[1.0, 1e-38, 0.0]]), 0.02),
  ]:
    value, (gradient,) = _gradients(losses.assignment_sparsity, shares)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_assignment_sparsity_moves_features_to_a_pattern():
  """With Eq. 1 at the small decay: its gradient draws F to the nearer one."""
  patterns = np.array([[0.0, 0.0], [20.0, 0.0]])
  features = np.array([[8.0, 1.0], [13.0, -2.0], [10.0, 0.0]])
  _, (to_features, to_patterns) = _gradients(
    lambda f, c: losses.assignment_sparsity(
      netvlad.soft_assignment(f, c, 0.005)
    ),
    features,
    patterns,
  )
  assert to_features[0, 0] > 0 > to_features[1, 0]
  np.testing.assert_allclose(to_features[2], [0.0, 0.0], atol=1e-12)
  assert np.abs(to_patterns).max() > 0
  # A shift of both changes nothing.
  np.testing.assert_allclose(
    to_features.sum(axis=0) + to_patterns.sum(axis=0), [0.0, 0.0], atol=1e-12
  )


# gradient_synchronization

_NORMS = ([3.0, 1.0], [[1.0, 1.0], [0.0, 1.0]], [[1, 0.0], [0, 0.5], [0, 2.0]])


def test_gradient_synchronization_example():
  # Sums: 4; 2 and 1; 1, 0.5 and 2.
  loss = losses.gradient_synchronization(*_NORMS, [0, 0, 1])
  np.testing.assert_allclose(loss, (0.5 + 1.0) / 2 + 1.0)
  assert float(loss) == 1.75
  for options, expected in [
    ({'squared': True}, (0.25 + 1.0) / 2 + 1.0),
    ({'mean_over_groups': False}, 0.5 + 1.0 + 1.0),
    ({'squared': True, 'mean_over_groups': False}, 0.25 + 1.0 + 1.0),
  ]:
    loss = losses.gradient_synchronization(*_NORMS, [0, 0, 1], **options)
    np.testing.assert_allclose(loss, expected)


def test_gradient_synchronization_against_loops():
  random = np.random.default_rng(0)
  domain, groups, classes = (random.random(s) for s in (9, (3, 9), (7, 9)))
  class_to_group = [2, 0, 1, 1, 0, 2, 2]

  def reference(domain, groups, classes):
    between = 0.0
    for q in range(3):
      of_classes = sum(
        classes[k].sum() for k in range(7) if class_to_group[k] == q
      )
      between += abs(groups[q].sum() - of_classes)  # Eq. 10
    return between / 3 + abs(domain.sum() - groups.sum())  # Eq. 11-12

  norms = domain, groups, classes
  value, gradients = _gradients(
    lambda *n: losses.gradient_synchronization(*n, class_to_group), *norms
  )
  np.testing.assert_allclose(value, reference(*norms), rtol=1e-12)
  for i, gradient in enumerate(gradients):
    expected = _finite_differences(
      lambda x, i=i: reference(*norms[:i], x, *norms[i + 1 :]), norms[i]
    )
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
  # It depends on sums over samples alone, as several replicas need.
  sums = [n.sum(axis=-1, keepdims=True) for n in norms]
  np.testing.assert_allclose(
    losses.gradient_synchronization(*sums, class_to_group), value, rtol=1e-12
  )


def test_gradient_synchronization_vanishes_where_the_levels_agree():
  random = np.random.default_rng(1)
  classes = random.random((4, 5))
  groups = np.stack([classes[[0, 3]].sum(axis=0), classes[[1, 2]].sum(axis=0)])
  value, gradients = _gradients(
    lambda *n: losses.gradient_synchronization(*n, [0, 1, 1, 0]),
    groups.sum(axis=0),
    groups,
    classes,
  )
  np.testing.assert_allclose(value, 0.0, atol=1e-14)
  assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_gradient_synchronization_checks_ranks():
  domain, groups, classes = map(np.array, _NORMS)
  for bad in (
    (groups, groups, classes),
    (domain, domain, classes),
    (domain, groups, domain),
  ):
    with pytest.raises(ValueError, match='rank'):
      losses.gradient_synchronization(*bad, [0, 0, 1])


# attention_map

# Two positions, of energies 3 and 4: the map is [0.6, 0.8].
_SEEN = np.array([[[[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]]])
_ELSEWHERE = np.array([[[[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])


def _maps(*shape, seed=0):
  return np.random.default_rng(seed).normal(0.0, 2.0, shape)


def _attention(features):
  """Eq. 4 and the quotients of Eq. 5, position by position."""
  batch, height, width, channels = features.shape
  maps = np.zeros([batch, height * width])
  for i, row, column, c in np.ndindex(batch, height, width, channels):
    maps[i, row * width + column] += abs(features[i, row, column, c]) ** 2
  return maps / np.sqrt((maps**2).sum(axis=1, keepdims=True))


def test_attention_map_example():
  attention = losses.attention_map(_SEEN)
  np.testing.assert_allclose(attention, [[0.6, 0.8]], rtol=1e-12)
  np.testing.assert_allclose(
    losses.attention_map(_ELSEWHERE), [[1.0, 0.0]], rtol=1e-12
  )


def test_attention_map_against_loops():
  features, weights = _maps(3, 4, 2, 5), _logits(3, 8, seed=1)
  value = losses.attention_map(features).numpy()
  np.testing.assert_allclose(value, _attention(features), rtol=1e-12)
  np.testing.assert_allclose((value**2).sum(axis=1), np.ones(3), rtol=1e-12)
  # The sign and the scale of an image's features change nothing.
  scales = np.array([-1.0, 1e-9, 1e3]).reshape(3, 1, 1, 1)
  np.testing.assert_allclose(
    losses.attention_map(scales * features), value, rtol=1e-12
  )
  _, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(weights * losses.attention_map(x)), features
  )
  expected = _finite_differences(
    lambda x: (weights * _attention(x)).sum(), features
  )
  np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_attention_map_of_features_that_are_all_zero():
  features = np.concatenate([np.zeros([1, 1, 2, 3]), _SEEN])
  value, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.attention_map(x)[:, 0]), features
  )
  np.testing.assert_allclose(value, 0.6)
  np.testing.assert_array_equal(gradient[0], np.zeros([1, 2, 3]))
  assert np.isfinite(gradient).all() and np.abs(gradient[1]).max() > 0


def test_attention_of_a_trace_with_unknown_shapes():
  spec = tf.TensorSpec([None, None, None, 3], tf.float64)
  traced = tf.function(losses.attention_map, input_signature=[spec])
  for features in (_SEEN, _maps(2, 3, 4, 3)):
    np.testing.assert_allclose(
      traced(features), _attention(features), rtol=1e-12
    )


@pytest.mark.parametrize('dtype', [tf.float16, tf.bfloat16])
def test_attention_of_half_precision_is_summed_in_float32(dtype):
  # 300^2 is above the largest float16, 65504.
  features = tf.cast(300.0 * _SEEN, dtype)
  attention = losses.attention_map(features)
  assert attention.dtype == tf.float32
  np.testing.assert_allclose(attention, [[0.6, 0.8]], rtol=1e-6)
  distance = losses.attention_distance(features, tf.cast(_ELSEWHERE, dtype))
  assert distance.dtype == tf.float32
  np.testing.assert_allclose(distance, math.sqrt(0.8), rtol=1e-6)


def test_attention_map_checks_ranks():
  for features in (tf.zeros([2, 3, 4]), tf.zeros([2, 3, 4, 5, 6])):
    with pytest.raises(ValueError, match='rank'):
      losses.attention_map(features)


# attention_distance


def test_attention_distance_example():
  # (0.6 - 1)^2 + 0.8^2 = 0.8
  distance = losses.attention_distance(_SEEN, _ELSEWHERE)
  np.testing.assert_allclose(distance, math.sqrt(0.8), rtol=1e-9)
  np.testing.assert_allclose(distance, 0.8944, atol=5e-5)
  distance = losses.attention_distance(
    np.concatenate([_SEEN, _SEEN]), np.concatenate([_ELSEWHERE, _SEEN])
  )
  np.testing.assert_allclose(distance, 0.4472, atol=5e-5)


def test_attention_distance_against_loops():
  # Networks of other widths look at places too.
  reference, features = _maps(4, 3, 2, 5), _maps(4, 3, 2, 6, seed=1)

  def by_hand(features):
    pairs = zip(_attention(reference), _attention(features))
    return np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in pairs])

  value, (gradient,) = _gradients(
    lambda x: losses.attention_distance(reference, x), features
  )
  np.testing.assert_allclose(value, by_hand(features), rtol=1e-10)
  np.testing.assert_allclose(
    gradient, _finite_differences(by_hand, features), atol=1e-8
  )


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_attention_distance_of_equal_networks_has_a_finite_gradient(dtype):
  zero = np.zeros([1, 4, 4, 8])
  features = np.concatenate([_maps(3, 4, 4, 8), zero]).astype(dtype)
  value, (gradient,) = _gradients(
    lambda x: losses.attention_distance(features, x), features
  )
  np.testing.assert_allclose(value, 1e-6, rtol=1e-5)  # sqrt(0 + 1e-12)
  np.testing.assert_array_equal(gradient, np.zeros_like(features))


def test_attention_distance_from_a_network_that_sees_nothing():
  dark, seen = np.zeros_like(_SEEN), _SEEN
  for reference, features in ((dark, seen), (seen, dark)):
    value, (gradient,) = _gradients(
      lambda x, r=reference: losses.attention_distance(r, x), features
    )
    np.testing.assert_allclose(value, 1.0, rtol=1e-9)
    assert np.isfinite(gradient).all()


def test_attention_distance_trains_one_network_alone():
  reference, features = (tf.constant(_maps(2, 3, 3, 4, seed=i)) for i in (0, 1))
  with tf.GradientTape() as tape:
    tape.watch([reference, features])
    distance = losses.attention_distance(reference, features)
  to_reference, to_features = tape.gradient(distance, [reference, features])
  assert to_reference is None and np.abs(to_features).max() > 0


def test_attention_distance_checks_shapes():
  features = tf.zeros([2, 3, 4, 5])
  for bad in (
    tf.zeros([2, 3, 4]),
    tf.zeros([1, 3, 4, 5]),
    tf.zeros([2, 4, 3, 5]),
  ):
    with pytest.raises(ValueError):
      losses.attention_distance(bad, features)
    with pytest.raises(ValueError):
      losses.attention_distance(features, bad)


# The other attention maps and distances.


def _aggregated(features, aggregation):
  """Table A1, image by image and position by position."""
  rows = []
  for image in features:
    row = []
    for position in image.reshape(-1, image.shape[-1]):
      sizes = [abs(value) for value in position]
      row += {
        'squares': lambda s=sizes: [sum(value**2 for value in s)],
        'absolute': lambda s=sizes: [sum(s)],
        'maximum': lambda s=sizes: [max(s)],
        'raw': lambda p=position: list(p),
      }[aggregation]()
    rows.append(np.array(row) / math.sqrt(sum(value**2 for value in row)))
  return np.stack(rows)


_AGGREGATIONS = ['squares', 'absolute', 'maximum', 'raw']


@pytest.mark.parametrize('aggregation', _AGGREGATIONS)
def test_attention_maps_of_table_a1_against_loops(aggregation):
  features = _maps(3, 4, 2, 5)
  expected = _aggregated(features, aggregation)
  value = losses.attention_map(features, aggregation)
  assert expected.shape == (3, 40 if aggregation == 'raw' else 8)
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  spec = tf.TensorSpec([None, None, None, 5], tf.float64)
  traced = tf.function(
    lambda x: losses.attention_map(x, aggregation), input_signature=[spec]
  )
  np.testing.assert_allclose(traced(features), expected, rtol=1e-12)
  # The scale of an image's features changes nothing.
  scales = np.array([1e9, 1e-9, 3.0]).reshape(3, 1, 1, 1)
  np.testing.assert_allclose(
    losses.attention_map(scales * features, aggregation), expected, rtol=1e-12
  )
  weights = _logits(*expected.shape, seed=1)
  _, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(weights * losses.attention_map(x, aggregation)),
    features,
  )
  expected = _finite_differences(
    lambda x: (weights * _aggregated(x, aggregation)).sum(), features
  )
  np.testing.assert_allclose(gradient, expected, atol=1e-8)


@pytest.mark.parametrize('norm', ['l2', 'l1'])
@pytest.mark.parametrize('aggregation', _AGGREGATIONS)
def test_gradients_are_finite_where_maps_are_zero_or_equal(aggregation, norm):
  zero = np.zeros([1, 2, 2, 3])
  features = np.concatenate([zero, zero, _maps(2, 2, 2, 3)])
  others = np.concatenate([zero, _maps(1, 2, 2, 3, seed=1), features[2:]])
  for ours, theirs in ((features, others), (others, features)):
    value, (gradient,) = _gradients(
      lambda x, t=theirs: losses.map_distance(
        losses.attention_map(t, aggregation),
        losses.attention_map(x, aggregation),
        norm,
      ),
      ours,
    )
    # The second pair alone differs.
    seen = losses.attention_map(others, aggregation)[1]
    by_hand = np.linalg.norm(seen, 1 if norm == 'l1' else 2) / 4
    np.testing.assert_allclose(value, by_hand, rtol=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0], zero[0])


def test_map_distance_examples():
  pair = np.array([[0.6, 0.8]]), np.array([[1.0, 0.0]])
  np.testing.assert_allclose(losses.map_distance(*pair), 0.8944, atol=5e-5)
  # |0.6 - 1| + |0.8 - 0|
  np.testing.assert_allclose(losses.map_distance(*pair, 'l1'), 1.2, rtol=1e-12)


@pytest.mark.parametrize('norm', ['l2', 'l1'])
def test_map_distance_against_loops(norm):
  reference, maps = _logits(4, 6), _logits(4, 6, seed=1)

  def by_hand(reference, maps):
    distances = []
    for a, b in zip(reference, maps):
      sizes = [abs(x - y) for x, y in zip(a, b)]
      distances.append(
        sum(sizes) if norm == 'l1' else math.sqrt(sum(s**2 for s in sizes))
      )
    return sum(distances) / len(distances)

  value, gradients = _gradients(
    lambda a, b: losses.map_distance(a, b, norm), reference, maps
  )
  np.testing.assert_allclose(value, by_hand(reference, maps), rtol=1e-10)
  # A gradient reaches both.
  np.testing.assert_allclose(
    gradients[0],
    _finite_differences(lambda x: by_hand(x, maps), reference),
    atol=1e-8,
  )
  np.testing.assert_allclose(gradients[1], -gradients[0], rtol=1e-12)


# multi_kernel_mmd, joint_mmd


def _mean_distance(source, target):
  """Of two different rows of both together: b, the mean of ||x - y||^2."""
  rows, distances = [*source, *target], []
  for i, x in enumerate(rows):
    distances += [((x - y) ** 2).sum() for j, y in enumerate(rows) if j != i]
  return sum(distances) / len(distances)


def _mmd(sources, targets, bandwidths=None):
  """Pair by pair; of each layer [B, D], [B', D] and, if given, its b."""
  pairs = list(zip(sources, targets))
  bandwidths = bandwidths or [_mean_distance(*pair) for pair in pairs]

  def mean(left, right):
    kernels = []
    for i in range(len(left[0])):
      for j in range(len(right[0])):
        kernel = 5.0
        for x, y, b in zip(left, right, bandwidths):
          squares = ((x[i] - y[j]) ** 2).sum()
          scales = [2.0**e * b for e in (-2, -1, 0, 1, 2)]
          kernel *= sum(math.exp(-squares / scale) for scale in scales) / 5
        kernels.append(kernel)
    return sum(kernels) / len(kernels)

  return (
    mean(sources, sources) + mean(targets, targets) - 2 * mean(sources, targets)
  )


def test_mmd_examples():
  cross = sum(math.exp(-x) for x in (4, 2, 1, 0.5, 0.25))
  np.testing.assert_allclose(cross, 1.9069, atol=5e-5)
  once = losses.multi_kernel_mmd([[0.0]], [[1.0]])
  np.testing.assert_allclose(once, 10 - 2 * cross, rtol=1e-6)
  np.testing.assert_allclose(once, 6.1863, atol=5e-5)
  twice = losses.joint_mmd([[[0.0]], [[0.0]]], [[[1.0]], [[1.0]]])
  np.testing.assert_allclose(twice, 10 - 2 * cross**2 / 5, rtol=1e-6)
  np.testing.assert_allclose(twice, 8.5456, atol=5e-5)


@pytest.mark.parametrize('widths', [(4,), (4, 3), (2, 2, 5)])
def test_mmd_against_loops(widths):
  """Of unequal numbers of rows; b is a constant for the gradient."""
  sources = [_logits(3, width, seed=i) for i, width in enumerate(widths)]
  targets = [
    1.0 + _logits(5, width, seed=10 + i) for i, width in enumerate(widths)
  ]

  def joint(*layers):
    # DAN's is that of one layer.
    if len(widths) == 1:
      return losses.multi_kernel_mmd(*layers)
    return losses.joint_mmd(layers[: len(widths)], layers[len(widths) :])

  value, gradients = _gradients(joint, *sources, *targets)
  np.testing.assert_allclose(value, _mmd(sources, targets), rtol=1e-10)
  fixed = [_mean_distance(*pair) for pair in zip(sources, targets)]
  layers = [*sources, *targets]
  for place, gradient in enumerate(gradients):

    def moved(x, place=place, b=fixed):
      changed = [*layers[:place], x, *layers[place + 1 :]]
      return _mmd(changed[: len(widths)], changed[len(widths) :], b)

    expected = _finite_differences(moved, layers[place])
    np.testing.assert_allclose(gradient, expected, atol=1e-8)
    # With the gradient of b it would be another one.
    if place == 0:
      through = _finite_differences(
        lambda x, moved=moved: moved(x, b=None), layers[place]
      )
      assert np.abs(through - expected).max() > 1e-4


def test_mmd_of_the_same_rows_is_zero_in_any_order():
  rows = _logits(6, 4)
  for other in (rows, rows[::-1]):
    np.testing.assert_allclose(
      losses.multi_kernel_mmd(rows, other), 0.0, atol=1e-12
    )
    np.testing.assert_allclose(
      losses.joint_mmd([rows, rows**2], [other, other**2]), 0.0, atol=1e-12
    )
  # Of layers in another order alone it is not: the pairs are broken.
  apart = losses.joint_mmd([rows, rows**2], [rows, (rows**2)[::-1]])
  assert apart > 0.1


@pytest.mark.parametrize('level', [0.0, 1e4])
def test_mmd_of_rows_that_are_all_equal_is_a_number(level):
  rows = np.full([3, 4], level, np.float32)
  value, gradients = _gradients(losses.multi_kernel_mmd, rows, rows[:2])
  assert value == 0.0
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))
  # Where one layer tells nothing, the other one decides.
  others = _logits(3, 2).astype(np.float32), _logits(2, 2, seed=1).astype('f4')
  joint = losses.joint_mmd([rows, others[0]], [rows[:2], others[1]])
  alone = losses.multi_kernel_mmd(*others)
  np.testing.assert_allclose(joint, alone, rtol=1e-5)


def test_mmd_keeps_its_digits_far_from_zero_and_in_half_precision():
  source, target = _logits(4, 3), _logits(5, 3, seed=1)
  expected = _mmd([source], [target])
  far = [np.float32(1000 + x) for x in (source, target)]
  np.testing.assert_allclose(losses.multi_kernel_mmd(*far), expected, rtol=1e-3)
  half = [tf.constant(x, tf.float16) for x in (source, target)]
  value = losses.multi_kernel_mmd(*half)
  assert value.dtype == tf.float32
  np.testing.assert_allclose(value, expected, rtol=1e-2)
  with pytest.raises(ValueError, match='rank'):
    losses.multi_kernel_mmd(tf.zeros([2, 3, 4]), tf.zeros([2, 3, 4]))


@pytest.mark.parametrize('kind', ['l2', 'l1', 'mmd', 'jmmd'])
def test_map_distances_are_those_of_all_layers_and_train_one_network(kind):
  references = [_logits(4, 6), _logits(4, 3, seed=1)]
  maps = [_logits(4, 6, seed=2), _logits(4, 3, seed=3)]
  layers = list(zip(references, maps))
  if kind == 'jmmd':
    expected = _mmd(references, maps)
  elif kind == 'mmd':
    expected = sum(_mmd([a], [b]) for a, b in layers)
  else:
    norm = {'l2': 2, 'l1': 1}[kind]
    expected = sum(
      np.linalg.norm(x - y, norm) / 4 for a, b in layers for x, y in zip(a, b)
    )
  inputs = [[tf.constant(x) for x in side] for side in (references, maps)]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    value = losses.map_distances(*inputs, kind)
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  to_references, to_maps = tape.gradient(value, inputs)
  assert to_references == [None, None]
  assert all(np.abs(gradient).max() > 0.0 for gradient in to_maps)


def test_kinds_of_maps_and_distances_that_there_are_not():
  maps = tf.ones([1, 2])
  for function in (
    lambda: losses.attention_map(tf.ones([1, 2, 2, 3]), 'cubes'),
    lambda: losses.map_distance(maps, maps, 'l3'),
    lambda: losses.map_distances([maps], [maps], 'cosine'),
  ):
    with pytest.raises(ValueError, match='cubes|l3|cosine'):
      function()


# correlation_alignment


def _correlation_alignment(source, target):
  """Eq. 1-3 of Deep CORAL as they are printed."""
  covariances = []
  for rows in (source, target):
    count = len(rows)
    sums = np.ones([1, count]) @ rows
    covariances.append((rows.T @ rows - sums.T @ sums / count) / (count - 1))
  difference = covariances[0] - covariances[1]
  return (difference**2).sum() / (4 * source.shape[1] ** 2)


def test_correlation_alignment_example():
  rows = [[0.0, 0.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 2.0]]
  value = losses.correlation_alignment(*rows)
  np.testing.assert_allclose(value, 0.75, rtol=1e-6)
  np.testing.assert_allclose(
    _correlation_alignment(*map(np.array, rows)), 0.75, rtol=1e-12
  )


def test_correlation_alignment_against_numpy():
  """Of unequal numbers of rows; 1/B in place of 1/(B - 1) would show."""
  source, target = _logits(4, 3), 2.0 * _logits(6, 3, seed=1)
  value, gradients = _gradients(losses.correlation_alignment, source, target)
  expected = _correlation_alignment(source, target)
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  np.testing.assert_allclose(
    gradients[0],
    _finite_differences(lambda x: _correlation_alignment(x, target), source),
    rtol=1e-6,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    gradients[1],
    _finite_differences(lambda x: _correlation_alignment(source, x), target),
    rtol=1e-6,
    atol=1e-6,
  )


def test_correlation_alignment_does_not_see_means():
  rows = _logits(5, 3)
  moved = losses.correlation_alignment(rows, rows[::-1] + [7.0, -3.0, 0.5])
  np.testing.assert_allclose(moved, 0.0, atol=1e-20)


def test_correlation_alignment_at_extremes_and_in_half_precision():
  far = np.float32(1e4 + _logits(8, 3)), np.float32(1e4 + _logits(8, 3, seed=1))
  expected = _correlation_alignment(*map(np.float64, far))
  value = losses.correlation_alignment(*far)
  np.testing.assert_allclose(value, expected, rtol=1e-3)
  # Of squares beyond float16's 65504.
  half = [tf.constant(300.0 * x, tf.float16) for x in np.eye(3)[:2]]
  value = losses.correlation_alignment(*[tf.stack([x, -x]) for x in half])
  assert value.dtype == tf.float32
  np.testing.assert_allclose(value, 2 * (2 * 300.0**2) ** 2 / 36, rtol=1e-6)
  same = tf.ones([2, 3])
  value, gradients = _gradients(losses.correlation_alignment, same, same)
  assert value == 0.0 and all(np.all(g == 0.0) for g in gradients)
  with pytest.raises(ValueError, match='rank'):
    losses.correlation_alignment(tf.zeros([2, 3, 4]), tf.zeros([2, 3, 4]))
  with pytest.raises(ValueError):
    losses.correlation_alignment(tf.zeros([2, 3]), tf.zeros([2, 4]))


# expectation_maximization


def test_expectation_maximization_example():
  loss = losses.expectation_maximization(
    [[0.95, 0.05], [0.6, 0.4]], [[LN3, 0.0], [LN3, 0.0]]
  )
  kept = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
  np.testing.assert_allclose(loss, kept / 2, rtol=1e-6)
  np.testing.assert_allclose(kept, 0.3426, atol=5e-5)
  np.testing.assert_allclose(loss, 0.1713, atol=5e-5)


def test_expectation_maximization_against_loops():
  posterior, logits = _softmax(_logits(8, 4)), _logits(8, 4, seed=1)
  threshold = float(np.sort(posterior.max(axis=1))[3])

  def by_hand(logits):
    total, kept = 0.0, 0
    for p_post, p in zip(posterior, _softmax(logits)):
      if p_post.max() >= threshold:
        total, kept = total - (p_post * np.log(p)).sum(), kept + 1  # Eq. 11
    assert kept == 5  # The likeliest class of the fourth is the threshold.
    return total / len(logits)

  value, (gradient,) = _gradients(
    lambda x: losses.expectation_maximization(posterior, x, threshold), logits
  )
  np.testing.assert_allclose(value, by_hand(logits), rtol=1e-10)
  np.testing.assert_allclose(
    gradient, _finite_differences(by_hand, logits), atol=1e-8
  )
  dropped = posterior.max(axis=1) < threshold
  np.testing.assert_array_equal(gradient[dropped], np.zeros([3, 4]))


def test_expectation_maximization_with_certain_posteriors_is_the_label_loss():
  labels, logits = np.array([2, 0, 1]), _logits(3, 3)
  for threshold in (0.95, 1.0):
    loss = losses.expectation_maximization(np.eye(3)[labels], logits, threshold)
    np.testing.assert_allclose(
      loss, losses.label_loss(labels, logits), rtol=1e-12
    )


@pytest.mark.parametrize(
  'likeliest, threshold, kept',
  [
    (0.95, 0.95, True),
    (np.nextafter(np.float32(0.95), np.float32(0)), 0.95, False),
    (1.0, 1.0, True),
    (1.0, 1.01, False),
    (0.5, 0.0, True),
  ],
)
def test_expectation_maximization_at_the_threshold(likeliest, threshold, kept):
  posterior = np.float32([[likeliest, 1 - likeliest]])
  value, (gradient,) = _gradients(
    lambda x: losses.expectation_maximization(posterior, x, threshold),
    np.zeros([1, 2], np.float32),
  )
  # Of equal logits the cross-entropy is ln 2 with any posterior.
  np.testing.assert_allclose(value, LN2 if kept else 0.0, rtol=1e-6)
  expected = 0.5 - posterior if kept else np.zeros([1, 2])
  np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_expectation_maximization_trains_one_network_alone():
  posterior, logits = tf.constant([[0.96, 0.04]]), tf.constant([[0.3, 0.1]])
  with tf.GradientTape() as tape:
    tape.watch([posterior, logits])
    loss = losses.expectation_maximization(posterior, logits)
  to_posterior, to_logits = tape.gradient(loss, [posterior, logits])
  assert to_posterior is None and np.abs(to_logits).min() > 0


def test_expectation_maximization_at_extreme_logits():
  posterior = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
  logits = np.array([[1e4, -1e4], [-1e4, 1e4], [-1e4, 1e4]])
  value, (gradient,) = _gradients(
    lambda x: losses.expectation_maximization(posterior, x), logits
  )
  np.testing.assert_allclose(value, 2e4 / 3)
  expected = [[0.0, 0.0], [-1.0 / 3, 1.0 / 3], [0.0, 0.0]]
  np.testing.assert_allclose(gradient, expected, atol=1e-12)


@pytest.mark.parametrize('dtype', [tf.float16, tf.bfloat16])
def test_expectation_maximization_of_half_precision_is_in_float32(dtype):
  posterior = tf.constant([[1.0, 0.0], [0.5, 0.5]], dtype)
  loss = losses.expectation_maximization(posterior, tf.zeros([2, 2], dtype))
  assert loss.dtype == tf.float32
  np.testing.assert_allclose(loss, LN2 / 2, rtol=1e-6)


def test_expectation_maximization_checks_shapes():
  logits = tf.zeros([4, 3])
  with pytest.raises(ValueError, match='rank'):
    losses.expectation_maximization(tf.zeros([4]), tf.zeros([4]))
  for posterior in (tf.zeros([4]), tf.zeros([1, 3]), tf.zeros([4, 1])):
    with pytest.raises(ValueError):
      losses.expectation_maximization(posterior, logits)
