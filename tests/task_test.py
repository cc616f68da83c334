"""The domains of an experiment: partial and semi-supervised adaptation."""

import csv
import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from tests import harness
from tfda import errors, experiment, semi_supervised
from tfda.data import domains, frozen, task, translated
from tfda.methods import attention_alignment, dann


def _domain(name='t', class_names=('ant', 'bee', 'cat', 'dog'), labelled=True):
  """Four images of every class; all pixels of image i are i."""
  count = 4 * len(class_names)
  numbers = np.arange(count, dtype=np.uint8)
  images = np.broadcast_to(numbers[:, None, None, None], [count, 2, 2, 3])
  labels = (np.arange(count) % len(class_names)).astype(np.int32)
  names = tuple(class_names)
  return domains.Domain(
    name,
    'train',
    images,
    labels if labelled else None,
    names if labelled else (),
    transductive=True,
  )


NAMES = ('ant', 'bee', 'cat', 'dog')


@pytest.mark.parametrize('classes', ['first2', 'ant,bee', 'ant, bee'])
def test_restricted_target_keeps_the_images_of_its_classes(classes):
  found = task.restricted(_domain(), classes, NAMES)
  np.testing.assert_array_equal(found.labels, [0, 1] * 4)
  np.testing.assert_array_equal(
    found.images[:, 0, 0, 0], [0, 1, 4, 5, 8, 9, 12, 13]
  )
  assert found.class_names == NAMES


def test_restricted_target_by_a_file_and_with_fewer_classes(tmp_path):
  path = tmp_path / 'classes.txt'
  path.write_text('dog\nbee\n\n')
  target = _domain(class_names=('bee', 'dog', 'emu'))
  found = task.restricted(target, str(path), NAMES)
  # bee is 1 and dog 3 in the source.
  np.testing.assert_array_equal(found.labels, [1, 3] * 4)
  assert found.class_names == NAMES


@pytest.mark.parametrize(
  'classes, target, message',
  [
    ('ant,bea', _domain(), 'bea is no class of the source; did you mean bee'),
    ('ant', _domain(class_names=('bee',)), 'ant is no class of t'),
    ('ant', _domain(labelled=False), 't has no labels'),
    ('first0', _domain(), 'first0: names no class'),
    (',', _domain(), 'names no class'),
    ('first99', _domain(), f'first99: there are {len(NAMES)} classes'),
  ],
)
def test_restriction_that_does_not_fit(classes, target, message):
  with pytest.raises(errors.UsageError, match=message):
    task.restricted(target, classes, NAMES)


def test_file_of_classes_that_is_no_text(tmp_path):
  path = tmp_path / 'classes.txt'
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(errors.UsageError, match='classes.txt: cannot be read'):
    task.restricted(_domain(), str(path), NAMES)


def test_revealed_part_and_the_rest_are_the_target():
  train, test = task.revealed(_domain(), 5, seed=3)
  shown = train.images[:, 0, 0, 0].tolist(), test.images[:, 0, 0, 0].tolist()
  assert len(shown[0]) == 5 and sorted(shown[0] + shown[1]) == [*range(16)]
  np.testing.assert_array_equal(train.labels, np.array(shown[0]) % 4)
  assert (train.split, test.split) == ('train', 'test')
  assert not train.transductive and not test.transductive
  again, _ = task.revealed(_domain(), 5, seed=3)
  np.testing.assert_array_equal(again.images, train.images)
  other, _ = task.revealed(_domain(), 5, seed=4)
  assert (other.images != train.images).any()


def test_revealing_all_or_what_has_no_labels():
  with pytest.raises(errors.UsageError, match='16 images'):
    task.revealed(_domain(), 16, seed=0)
  with pytest.raises(errors.UsageError, match='no labels'):
    task.revealed(_domain(labelled=False), 1, seed=0)


def test_class_counts_name_the_rarest_and_commonest():
  domain = domains.Domain(
    's', 'train', None, np.repeat(range(8), range(1, 9)), tuple('abcdefgh')
  )
  assert task.class_counts(domain) == (
    's: 36 images; a 1, b 2, c 3, ..., f 6, g 7, h 8'
  )


def test_semi_supervised_objective_adds_the_target_label_loss():
  run = harness.Run(harness.settings('dann', target_labelled=32))
  assert run.model.LOSS_TERMS == ('label', 'domain', 'target_label')
  plain = harness.Run(harness.settings('dann'))  # With the same weights.
  batch = next(iter(run.batches(0, 1)))
  assert set(batch) == {'source', 'target', 'labelled_target'}
  total, terms = run.model.objective(batch, 0.5)
  without, _ = plain.model.objective(batch, 0.5)
  logits = plain.model(batch['labelled_target']['image']).numpy()
  labels = batch['labelled_target']['label'].numpy()
  by_hand = np.mean(
    np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(8), labels]
  )
  np.testing.assert_allclose(terms['target_label'], by_hand, rtol=1e-5)
  np.testing.assert_allclose(total, without + by_hand, rtol=1e-5)


def test_semi_supervised_class_names_itself_as_its_method():
  method = semi_supervised.extended(dann.Method)
  assert issubclass(method, dann.Method) and method.__name__ == 'Method'


def test_semi_supervised_run_learns_from_the_revealed_labels(tmp_path):
  path = experiment.train(
    experiment.Experiment(
      method='source_only',
      source='optdigits',
      target='optdigits_m',
      image_size=8,
      target_labelled=200,
      steps=4,
      batch_size=8,
      run_dir=str(tmp_path / 'run'),
    )
  )
  header, *_ = (tmp_path / 'run' / 'metrics.csv').read_text().splitlines()
  assert 'loss/target_label' in header.split(',')
  results = (tmp_path / 'run' / 'results.json').read_text()
  # 1,297 training images, of which 200 are revealed.
  assert '"target_test": 1097' in results and path


def test_labelled_target_images_are_refused_where_a_method_has_phases(tmp_path):
  settings = experiment.Experiment(
    method='local_feature_patterns',
    source='optdigits',
    target='optdigits_m',
    image_size=8,
    target_labelled=200,
    steps=2,
    batch_size=2,
    run_dir=str(tmp_path / 'run'),
  )
  with pytest.raises(errors.UsageError) as refused:
    experiment.train(settings)
  assert str(refused.value) == (
    '--target_labelled: local_feature_patterns trains in phases of its own, '
    'none of which has a loss of labelled target images; take another --method'
  )
  assert not os.path.exists(tmp_path / 'run')


def test_skipped_images_are_listed(tmp_path, capsys):
  for name in ('ant', 'bee'):
    (tmp_path / 'images' / name).mkdir(parents=True)
    for i in range(4):
      image = Image.fromarray(np.full([8, 8, 3], 40 * i, np.uint8))
      image.save(tmp_path / 'images' / name / f'{i}.png')
  (tmp_path / 'images' / 'bee' / 'a, "b".png').write_text('no image')
  settings = experiment.Experiment(
    method='source_only',
    source=f'folder:{tmp_path}/images',
    target='folder:' + str(tmp_path / 'images'),
    image_size=8,
    steps=1,
    batch_size=2,
    cache_dir=str(tmp_path / 'cache'),
    run_dir=str(tmp_path / 'run'),
  )
  with pytest.raises(errors.UsageError, match='1 of 9 images cannot be read'):
    experiment.train(settings)
  assert not (tmp_path / 'run').exists()
  experiment.train(dataclasses.replace(settings, on_bad_image='skip'))
  with open(tmp_path / 'run' / 'skipped.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  # The source and the target, training and test.
  assert len(rows) == 4
  assert {row['path'] for row in rows} == {
    str(tmp_path / 'images' / 'bee' / 'a, "b".png')
  }
  assert 'skipped.csv' in capsys.readouterr().out


def test_run_goes_on_where_features_cannot_be_stored(
  tmp_path, monkeypatch, capsys
):
  def full(*arguments, **named):
    raise errors.RunError('the cache is full')

  monkeypatch.setattr(frozen.storage, 'write', full)
  run = experiment.train(
    experiment.Experiment(
      method='source_only',
      source='optdigits',
      target='optdigits_m',
      freeze_until='pool1',
      cache_features=1,
      steps=1,
      batch_size=2,
      cache_dir=str(tmp_path / 'cache'),
      run_dir=str(tmp_path / 'run'),
    )
  )
  assert 'the cache is full; the frozen part' in capsys.readouterr().err
  assert os.path.exists(f'{run}/results.json')


def test_method_that_reads_labelled_target_images_reads_them_once():
  run = harness.Run(harness.settings('train_on_target', target_labelled=32))
  assert run.model.STREAMS == ('labelled_target',)
  assert run.model.LOSS_TERMS == ('label',)


# Translated images.


@pytest.fixture(scope='module')
def digits():
  """{side: training Domain} of two domains of digits."""
  sides = {'source': 'optdigits', 'target': 'optdigits_m'}
  return {side: domains.load(name, 'train', 8) for side, name in sides.items()}


def _translated(path, began):
  """Settings with a translation of {side: Domain}, of inverted images."""
  settings = experiment.Experiment(
    method='attention_alignment',
    source='optdigits',
    target='optdigits_m',
    translation=str(path / 'run'),
    cache_dir=str(path / 'cache'),
    image_size=8,
    steps=2,
    batch_size=4,
    run_dir=str(path / 'trained'),
  )
  for direction, side in translated.DIRECTIONS.items():
    translated.write(
      str(path / 'run' / direction),
      began[side],
      8,
      lambda images=began[side].images: [255 - images],
      labelled=side == 'source',
      made_of=translated.selection(settings, side),
    )
  return settings


def test_translations_are_loaded_in_both_directions(digits, tmp_path):
  data = task.load(_translated(tmp_path, digits), 8)
  training = task.training_domains(data)
  assert set(training) == {*digits, *translated.DIRECTIONS}
  for direction, side in translated.DIRECTIONS.items():
    found = training[direction]
    assert found.name == f'translated:{tmp_path}/run/{direction}'
    np.testing.assert_array_equal(found.images[:], 255 - digits[side].images)
  np.testing.assert_array_equal(
    training['source_to_target'].labels, digits['source'].labels
  )
  assert training['target_to_source'].labels is None
  without = experiment.Experiment(
    source='optdigits', target='optdigits_m', image_size=8
  )
  assert set(task.training_domains(task.load(without, 8))) == set(digits)


@pytest.mark.parametrize(
  'case, message',
  [
    ('count', 'target_to_source: 9 images .* those of optdigits_m, 1297, in'),
    ('order', 'source_to_target: 1297 images .* those of optdigits, 1297, in'),
    ('classes', 'made with --target_classes=None, not --target_classes=first5'),
    ('labelled', 'made with --target_labelled=0, not --target_labelled=200'),
    ('missing', 'translated:.*/nowhere/source_to_target: no translated images'),
    ('none', 'python -m tools.translate makes them, and --translation=RUN'),
  ],
)
def test_translations_of_other_images_are_refused(
  case, message, digits, tmp_path
):
  began = dict(digits)
  if case == 'count':
    began['target'] = digits['target'].take(range(9))
  if case == 'order':
    began['source'] = digits['source'].take(range(1296, -1, -1))
  changed = {
    'classes': {'target_classes': 'first5'},
    'labelled': {'target_labelled': 200, 'method': 'dann'},
    'missing': {'translation': str(tmp_path / 'nowhere')},
    'none': {'translation': None},
  }.get(case, {})
  settings = dataclasses.replace(_translated(tmp_path, began), **changed)
  with pytest.raises(errors.UsageError, match=message) as refused:
    experiment.train(settings)
  assert '\n' not in str(refused.value)
  assert not (tmp_path / 'trained').exists()


@pytest.mark.slow
def test_run_with_translations_trains_behind_stored_features_too(
  digits, tmp_path
):
  settings = _translated(tmp_path, digits)
  # Of 2 steps, the source network has the first; of 4 images, 2 are translated.
  config = attention_alignment.Config(source_share=0.5)
  rows = []
  for name, more in {'whole': {}, 'behind': {'cache_features': 1}}.items():
    changed = dataclasses.replace(
      settings,
      log_every=1,
      freeze_until='pool1',
      run_dir=str(tmp_path / name),
      **more,
    )
    with open(f'{experiment.train(changed, config)}/metrics.csv') as file:
      rows.append(list(csv.DictReader(file)))
  for whole, behind in zip(*rows):
    terms = [name for name in whole if name.startswith('loss/')]
    assert {f'loss/{x}' for x in ('label', 'posterior', 'attention')} < {*terms}
    for term in terms:
      assert float(behind[term]) == pytest.approx(float(whole[term]), abs=1e-5)
  assert float(rows[0][1]['loss/attention']) > 1e-3 and len(rows[1]) == 2
