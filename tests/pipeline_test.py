"""The order of the batches: permutations, resuming, replicas, labels."""

import dataclasses
import re
import time

import numpy as np
import pytest
import tensorflow as tf

from tfda import errors, experiment
from tfda.data import domains, pipeline


def _positions(seed, stream, first, count, size):
  return pipeline.shuffled_positions(
    seed, stream, tf.constant(first, tf.int64), count, size
  ).numpy()


def _epoch(seed, stream, epoch, size):
  return _positions(seed, stream, epoch * size, size, size)


def _domain(name='d', count=10, labelled=True):
  """Image i holds i in every pixel, and its label is i mod 3."""
  numbers = np.arange(count)
  images = np.broadcast_to(
    numbers.astype(np.uint8)[:, np.newaxis, np.newaxis, np.newaxis],
    [count, 2, 2, 3],
  )
  labels = (numbers % 3).astype(np.int32) if labelled else None
  return domains.Domain(name, 'train', images, labels, ('a', 'b', 'c'))


def _elements(
  streams=('source', 'target'),
  source=None,
  target=None,
  batch_size=4,
  seed=0,
  first_step=0,
  last_step=6,
  translated=None,
  **more,
):
  source = source or _domain('a', 10)
  target = target or _domain('b', 7)
  return list(
    pipeline.batches(
      streams,
      {'source': source, 'target': target, **(translated or {})},
      batch_size,
      seed,
      first_step,
      last_step,
      **more,
    ).as_numpy_iterator()
  )


def _assert_equal(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right):
    assert a.keys() == b.keys()
    for stream in a:
      assert a[stream].keys() == b[stream].keys()
      for key in a[stream]:
        np.testing.assert_array_equal(a[stream][key], b[stream][key])


# shuffled_positions


@pytest.mark.parametrize('size', [1, 2, 7, 1000, 60000])
def test_every_epoch_is_a_permutation(size):
  for seed in (0, 1, 12345):
    for epoch in (0, 1, 2, 10**6):
      order = _epoch(seed, 'source', epoch, size)
      assert order.dtype == np.int64
      np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_epochs_streams_and_seeds_differ():
  orders = {
    'first': _epoch(0, 'source', 0, 1000),
    'second': _epoch(0, 'source', 1, 1000),
    'third': _epoch(0, 'source', 2, 1000),
    'stream': _epoch(0, 'target', 0, 1000),
    'other stream': _epoch(0, 'labelled_target', 0, 1000),
    'seed': _epoch(1, 'source', 0, 1000),
    'far seed': _epoch(20240131, 'source', 0, 1000),
    'sorted': np.arange(1000),
  }
  names = list(orders)
  for i, a in enumerate(names):
    for b in names[:i]:
      # Two random permutations share one element on average.
      assert (orders[a] == orders[b]).sum() < 15, (a, b)


def test_same_arguments_same_order():
  np.testing.assert_array_equal(
    _epoch(3, 'source', 5, 1000), _epoch(3, 'source', 5, 1000)
  )


def test_any_part_is_a_slice_of_the_whole():
  size = 7
  whole = np.concatenate([_epoch(4, 'target', e, size) for e in range(6)])
  for first, count in ((0, 42), (5, 9), (6, 2), (13, 1), (20, 22)):
    np.testing.assert_array_equal(
      _positions(4, 'target', first, count, size), whole[first : first + count]
    )


def test_small_domains_are_shuffled_too():
  # Any order of 3 images comes up: 6 orders in 300 epochs, each 50 times give
  # or take 6.5; the first epoch of every stream is not the sorted one.
  for seed in (0, 1):
    orders = _positions(seed, 'source', 0, 900, 3).reshape(-1, 3)
    orders = [tuple(order) for order in orders]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert max(counts) < 50 + 5 * 6.5
  firsts = [
    tuple(_epoch(seed, stream, 0, 7))
    for seed in (0, 1, 2)
    for stream in ('source', 'target', 'labelled_target')
  ]
  # By chance once in 5,040.
  assert firsts.count(tuple(range(7))) <= 1
  assert len(set(firsts)) >= 8


@pytest.mark.parametrize('size', [1000, 4000, 8000, 59001, 60000, 65536])
def test_orders_are_not_correlated(size):
  """Not with each other, not from one element to the next, not with sorted.

  A domain in folders is sorted by class, and two digit domains have the labels
  in the same order: what is left of an order is a bias in every batch.
  """
  orders = [
    _epoch(seed, stream, epoch, size).astype(np.float64)
    for seed in (0, 1)
    for stream in ('source', 'target')
    for epoch in (0, 1, 2)
  ]
  table = np.corrcoef(orders + [np.arange(size)])
  between = table[np.triu_indices(len(table), k=1)]
  follows = [np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders]
  # The correlation of two random permutations has deviation 1 / sqrt(size); 90
  # of them stay below 5 of these.
  assert np.abs(between).max() < 5.0 / np.sqrt(size)
  assert np.abs(follows).max() < 5.0 / np.sqrt(size)


# batches


def test_batches_hold_what_their_index_says():
  source, target = _domain('a', 10), _domain('b', 7)
  elements = _elements(source=source, target=target)
  assert len(elements) == 6
  for element in elements:
    assert element.keys() == {'source', 'target'}
    for stream, domain in (('source', source), ('target', target)):
      part = element[stream]
      assert part['image'].dtype == np.uint8
      assert part['image'].shape == (4, 2, 2, 3)
      np.testing.assert_array_equal(part['image'], domain.images[part['index']])
    label = element['source']['label']
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, element['source']['index'] % 3)


def test_batches_run_through_the_domain_in_epochs():
  # 5 steps of 4 images are 2 epochs of 10.
  indices = np.concatenate(
    [e['source']['index'] for e in _elements(last_step=5)]
  )
  for epoch in (indices[:10], indices[10:]):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
  assert (indices[:10] != indices[10:]).any()


@pytest.mark.parametrize('first_step', [1, 3, 5])
def test_resumed_batches_are_those_of_the_whole_run(first_step):
  whole = _elements(last_step=8)
  _assert_equal(
    _elements(first_step=first_step, last_step=8), whole[first_step:]
  )


@pytest.mark.parametrize(
  'more', [{}, {'class_balanced': True}, {'augmentation': 'crop_flip'}]
)
def test_resuming_at_a_huge_step_takes_no_longer_and_is_the_same_order(more):
  step = 10**9
  start = time.monotonic()
  (element,) = _elements(
    batch_size=5, seed=3, first_step=step, last_step=step + 1, **more
  )
  assert time.monotonic() - start < 20.0  # Step by step it would take days.
  # Positions 5e9 to 5e9 + 4: 5e9 = 10 * 5e8 + 0 = 7 * 714285714 + 2.
  expected = {
    'source': _epoch(3, 'source', 5 * 10**8, 10)[:5],
    'target': _epoch(3, 'target', 714285714, 7)[2:],
  }
  if 'class_balanced' in more:
    # 5e9 = 3 * 1666666666 + 2: from the last class of that round on.
    labels = np.arange(10) % 3
    whole = _balanced(3 * 1666666666, 9, labels, seed=3)
    np.testing.assert_array_equal(
      np.sort(labels[whole].reshape(3, 3)), [[0, 1, 2]] * 3
    )
    expected['source'] = whole[2:7]
  for stream, index in expected.items():
    np.testing.assert_array_equal(element[stream]['index'], index)
    np.testing.assert_array_equal(element[stream]['image'][:, 0, 0, 0], index)
  np.testing.assert_array_equal(
    element['source']['label'], expected['source'] % 3
  )


def test_batches_of_another_seed_differ():
  first, other = _elements(seed=0), _elements(seed=1)
  for stream in ('source', 'target'):
    assert any(
      (a[stream]['index'] != b[stream]['index']).any()
      for a, b in zip(first, other)
    )


@pytest.mark.parametrize('replicas', [2, 4])
def test_replicas_share_the_global_batch(replicas):
  whole = _elements(first_step=2)
  parts = _elements(first_step=2, replicas=replicas)
  assert len(parts) == replicas * len(whole)
  joined = [
    {
      stream: {
        key: np.concatenate([part[stream][key] for part in group])
        for key in group[0][stream]
      }
      for stream in group[0]
    }
    for group in zip(*(parts[r::replicas] for r in range(replicas)))
  ]
  _assert_equal(joined, whole)


def test_a_worker_gets_the_parts_of_its_replicas():
  parts = _elements(batch_size=8, first_step=1, replicas=4)
  first = _elements(
    batch_size=8, first_step=1, replicas=4, replica_range=(0, 2)
  )
  second = _elements(
    batch_size=8, first_step=1, replicas=4, replica_range=(2, 4)
  )
  for worker, others in ((first, (0, 1)), (second, (2, 3))):
    _assert_equal(worker, [p for i, p in enumerate(parts) if i % 4 in others])


def test_target_has_no_label_and_labelled_target_has():
  streams = ('source', 'target', 'labelled_target')
  for element in _elements(streams=streams):
    assert element['target'].keys() == {'image', 'index'}
    assert element['source'].keys() == {'image', 'index', 'label'}
    labelled = element['labelled_target']
    np.testing.assert_array_equal(labelled['label'], labelled['index'] % 3)
    np.testing.assert_array_equal(
      labelled['image'][:, 0, 0, 0] % 3, labelled['label']
    )


def test_only_the_streams_that_are_asked_for():
  (element,) = _elements(streams=('labelled_target',), last_step=1)
  assert element.keys() == {'labelled_target'}
  source = _domain('a', 10)
  (element,) = pipeline.batches(
    ('source',), {'source': source, 'target': None}, 4, 0, 0, 1
  ).as_numpy_iterator()
  assert element.keys() == {'source'}


def test_an_unlabelled_target_serves_the_target_stream():
  target = _domain('b', 7, labelled=False)
  assert _elements(target=target)[0]['target'].keys() == {'image', 'index'}


@pytest.mark.parametrize(
  'streams, unlabelled',
  [(('source', 'target'), 'source'), (('labelled_target',), 'target')],
)
def test_a_stream_that_needs_labels_is_refused_without(streams, unlabelled):
  domain = _domain('photos', 7, labelled=False)
  with pytest.raises(errors.UsageError, match='photos has no labels'):
    _elements(streams=streams, **{unlabelled: domain})


@pytest.mark.parametrize('size', [1, 3])
def test_a_domain_smaller_than_a_batch(size):
  elements = _elements(
    target=_domain('b', size), batch_size=8, last_step=size * 3
  )
  indices = np.concatenate([e['target']['index'] for e in elements])
  # Every image comes up as often as every other.
  np.testing.assert_array_equal(np.bincount(indices), [8 * 3] * size)
  for epoch in indices.reshape(-1, size):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_a_batch_that_cannot_be_split_is_refused():
  with pytest.raises(errors.UsageError, match='batch_size=5.*2 replicas'):
    _elements(batch_size=5, replicas=2)


# Class-balanced order.


def _balanced(first, count, labels, seed=0):
  return pipeline.balanced_positions(
    seed, 'source', tf.constant(first, tf.int64), count, labels
  ).numpy()


def test_balanced_order_has_every_class_once_in_a_round():
  labels = np.array([0] * 7 + [2] * 2 + [5])
  index = _balanced(0, 60, labels)
  rounds = np.sort(labels[index].reshape(20, 3), axis=1)
  np.testing.assert_array_equal(rounds, [[0, 2, 5]] * 20)
  # The order within a round changes.
  assert len({tuple(r) for r in labels[index].reshape(20, 3)}) > 2


def test_balanced_order_runs_through_every_class_in_epochs():
  labels = np.array([0] * 7 + [2] * 2 + [5])
  index = _balanced(0, 3 * 21, labels)
  of_first = index[labels[index] == 0].reshape(3, 7)
  np.testing.assert_array_equal(np.sort(of_first, axis=1), [range(7)] * 3)
  assert (of_first[0] != of_first[1]).any()
  of_second = index[labels[index] == 2][:20].reshape(10, 2)
  np.testing.assert_array_equal(np.sort(of_second, axis=1), [[7, 8]] * 10)


def test_balanced_order_is_a_function_of_the_position():
  labels = np.random.default_rng(0).integers(5, size=40)
  whole = _balanced(0, 90, labels)
  np.testing.assert_array_equal(_balanced(37, 20, labels), whole[37:57])
  assert (_balanced(0, 90, labels, seed=1) != whole).any()


def test_only_the_source_is_balanced():
  source = _domain('a', 9)
  source.labels[:] = [0] * 8 + [1]
  elements = _elements(
    source=source, target=_domain('b', 8), class_balanced=True, last_step=8
  )
  labels = np.concatenate([e['source']['label'] for e in elements])
  np.testing.assert_array_equal(np.bincount(labels), [16, 16])
  target = np.concatenate([e['target']['index'] for e in elements])
  np.testing.assert_array_equal(np.bincount(target), [4] * 8)


# Augmented images, images on disk, stored features.


def _pictures(name, count):
  random = np.random.default_rng(len(name))
  images = random.integers(0, 256, [count, 6, 6, 3]).astype(np.uint8)
  labels = (np.arange(count) % 2).astype(np.int32)
  return domains.Domain(name, 'train', images, labels, ('a', 'b'))


@pytest.mark.parametrize('augmentation', ['crop_flip', 'resized_crop'])
def test_augmented_batches_resume_and_split_over_replicas(augmentation):
  more = {
    'source': _pictures('a', 5),
    'target': _pictures('bb', 7),
    'image_size': 4,
    'augmentation': augmentation,
  }
  whole = _elements(**more)
  assert whole[0]['source']['image'].shape == (4, 4, 4, 3)
  _assert_equal(_elements(first_step=3, **more), whole[3:])
  parts = _elements(replicas=2, **more)
  for step, batch in enumerate(whole):
    for stream, content in batch.items():
      halves = [
        part[stream]['image'] for part in parts[2 * step : 2 * step + 2]
      ]
      np.testing.assert_array_equal(np.concatenate(halves), content['image'])
  # The same image is not always cut out alike.
  crops = {}
  for batch in _elements(last_step=12, **more):
    for i, image in zip(batch['source']['index'], batch['source']['image']):
      crops.setdefault(i, set()).add(image.tobytes())
  assert all(len(seen) > 3 for seen in crops.values())


class _OnDisk:
  """An array that is read in parts."""

  def __init__(self, array):
    self._array, self.shape, self.dtype = array, array.shape, array.dtype

  def __len__(self):
    return len(self._array)

  def __getitem__(self, index):
    return self._array[index]


def test_images_on_disk_give_the_batches_of_images_in_memory():
  source, target = _pictures('a', 5), _pictures('bb', 7)
  apart = [
    dataclasses.replace(domain, images=_OnDisk(domain.images))
    for domain in (source, target)
  ]
  _assert_equal(
    _elements(source=apart[0], target=apart[1]),
    _elements(source=source, target=target),
  )
  part = apart[1].take([1, 3, 6])
  assert len(part.images) == 3
  np.testing.assert_array_equal(part.images[[2, 0]], target.images[[6, 1]])
  np.testing.assert_array_equal(part.labels, target.labels[[1, 3, 6]])


def test_stored_features_take_the_place_of_images():
  source = _pictures('a', 5)
  # Copy c of image i holds 10 i + c; copy 0 is of the centre.
  values = (10.0 * np.arange(5)[:, np.newaxis] + np.arange(4)).astype('f4')
  several = dataclasses.replace(source, features=values.reshape(20, 1))
  seen = set()
  for batch in _elements(streams=('source',), source=several, last_step=40):
    content = batch['source']
    image, copy = np.divmod(content['image'][:, 0], 10)
    np.testing.assert_array_equal(image, content['index'])
    np.testing.assert_array_equal(content['label'], content['index'] % 2)
    seen |= set(copy)
  assert seen == {1, 2, 3}
  np.testing.assert_array_equal(several.inputs()[:3], [[0.0], [10.0], [20.0]])
  once = dataclasses.replace(source, features=values[:, :1])
  for batch in _elements(streams=('source',), source=once):
    np.testing.assert_array_equal(
      batch['source']['image'][:, 0], 10 * batch['source']['index']
    )


# Translated images.

_TRANSLATED = {'source_to_target': 'source', 'target_to_source': 'target'}
_WITH_TRANSLATIONS = ('source', 'target', *_TRANSLATED)


def _with_translations(share=0.5, make=_domain, shift=100, **more):
  """Elements of 8 images; translations are the images, brighter by `shift`."""
  originals = {'source': make('a', 10), 'target': make('bb', 7)}
  translated = {
    stream: dataclasses.replace(
      originals[side], images=originals[side].images + np.uint8(shift)
    )
    for stream, side in _TRANSLATED.items()
  }
  settings = {'streams': _WITH_TRANSLATIONS, 'batch_size': 8, **more}
  return _elements(
    **originals, translated=translated, translated_share=share, **settings
  )


@pytest.mark.parametrize(
  'share, rows',
  [
    (0.5, [1, 3, 5, 7]),
    (3 / 7, [2, 5, 7]),  # 3.43 images.
    (1.0, [0, 1, 2, 3, 4, 5, 6, 7]),
  ],
)
def test_translated_streams_have_the_translations_of_rows(share, rows):
  elements = _with_translations(share)
  assert len(elements) == 6
  plain = _elements(
    source=_domain('a', 10), target=_domain('bb', 7), batch_size=8
  )
  for element, without in zip(elements, plain):
    for stream, side in _TRANSLATED.items():
      part, original = element[stream], element[side]
      assert part.keys() == {'image', 'index', 'row'}  # Never a label.
      assert (part['row'].dtype, part['index'].dtype) == (np.int32, np.int64)
      np.testing.assert_array_equal(part['row'], rows)
      np.testing.assert_array_equal(part['index'], original['index'][rows])
      np.testing.assert_array_equal(
        part['image'], original['image'][rows] + np.uint8(100)
      )
    # They change nothing else.
    _assert_equal([{s: element[s] for s in without}], [without])


def test_translations_are_cropped_and_flipped_as_their_images():
  """Of themselves: the same pixels. And on two replicas, resumed, or alone."""
  more = {
    'make': _pictures,
    'shift': 0,
    'image_size': 4,
    'augmentation': 'crop_flip',
    'class_balanced': True,
  }
  whole = _with_translations(last_step=4, **more)
  for element in whole:
    for stream, side in _TRANSLATED.items():
      images = element[side]['image'][element[stream]['row']]
      np.testing.assert_array_equal(element[stream]['image'], images)
  _assert_equal(
    _with_translations(first_step=2, last_step=4, **more), whole[2:]
  )
  halves = _with_translations(last_step=4, replicas=2, **more)
  for step, element in enumerate(whole):
    parts = halves[2 * step : 2 * step + 2]
    for stream, content in element.items():
      for key, values in content.items():
        joined = [
          part[stream][key] + (4 * i if key == 'row' else 0)
          for i, part in enumerate(parts)
        ]
        np.testing.assert_array_equal(np.concatenate(joined), values)
  # Without their images too.
  alone = _with_translations(last_step=4, streams=tuple(_TRANSLATED), **more)
  _assert_equal(alone, [{s: e[s] for s in _TRANSLATED} for e in whole])


def test_stored_features_of_translations_are_of_the_same_crops():
  # Copy c of image i holds 10 i + c, that of its translation 100 more.
  values = (10.0 * np.arange(10)[:, np.newaxis] + np.arange(4)).reshape(40, 1)
  source = dataclasses.replace(_domain('a', 10), features=np.float32(values))
  translated = dataclasses.replace(source, features=np.float32(values + 100))
  seen = set()
  for element in _elements(
    ('source', 'source_to_target'),
    source,
    batch_size=8,
    translated={'source_to_target': translated},
    translated_share=0.5,
  ):
    part = element['source_to_target']
    features = element['source']['image'][part['row']]
    np.testing.assert_array_equal(part['image'], features + 100)
    seen |= set(features[:, 0] % 10)
  assert seen == {1, 2, 3}


@pytest.mark.parametrize(
  'batch_size, share, rows',
  # 12.8, 27.4, 30, and halves to the even number.
  [(64, 0.2, 13), (64, 3 / 7, 27), (70, 3 / 7, 30), (5, 0.5, 2), (7, 0.5, 4)],
)
def test_share_of_translated_images_is_rounded(batch_size, share, rows):
  for stream in _TRANSLATED:
    assert pipeline.stream_rows(stream, batch_size, share) == rows
  for stream in ('source', 'target', 'labelled_target'):
    assert pipeline.stream_rows(stream, batch_size, share) == batch_size


@pytest.mark.parametrize(
  'more, message',
  [
    ({'translated': {}}, '--translation=RUN names its run'),
    ({'translated': {'source_to_target': _domain('a', 10)}}, '--translation='),
    ({'translated_share': 0.05}, 'translated_share=0.05 leave no translated'),
  ],
)
def test_translations_that_are_missing(more, message):
  both = {'source_to_target': _domain('a', 10), 'target_to_source': _domain()}
  settings = {'batch_size': 8, 'translated': both, **more}
  with pytest.raises(errors.UsageError, match=message) as refused:
    _elements(_WITH_TRANSLATIONS, **settings)
  assert '\n' not in str(refused.value)
  # Streams that need none are not refused for it.
  assert len(_elements(**settings)) == 6


@pytest.mark.parametrize(
  'batch_size, share', [(8, 3 / 7), (64, 3 / 7), (9, 0.5), (10, 1.0)]
)
def test_translations_that_cannot_be_split_are_refused_with_a_size_that_can(
  batch_size, share
):
  domains_ = {
    stream: _domain() for stream in ('source', 'target', *_TRANSLATED)
  }
  replicas = 4 if share == 1.0 else 2
  with pytest.raises(errors.UsageError) as refused:
    pipeline.check(_WITH_TRANSLATIONS, domains_, batch_size, replicas, share)
  message = str(refused.value)
  assert message.startswith(f'--batch_size={batch_size}')
  assert f'cannot be split over {replicas} replicas' in message
  (size,) = re.findall(r'--batch_size=(\d+) can$', message)
  assert int(size) > batch_size
  pipeline.check(_WITH_TRANSLATIONS, domains_, int(size), replicas, share)


# Images that cannot be read.


class _Lost(_OnDisk):
  def __getitem__(self, index):
    raise errors.RunError('cache/rows.bin is cut off; run it again')


def test_images_that_cannot_be_read_in_training_are_one_line():
  lost = dataclasses.replace(
    _pictures('a', 5), images=_Lost(_pictures('a', 5).images)
  )
  with pytest.raises(tf.errors.OpError) as raised:
    _elements(source=lost)
  error = experiment._unread(raised.value)
  assert isinstance(error, errors.RunError)
  assert str(error) == 'cache/rows.bin is cut off; run it again'
  assert experiment._unread(tf.errors.UnknownError(None, None, 'else')) is None
