"""Predicting and evaluating with a run or an export, and the two tools."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import tiny_run
from tfda import errors, experiment
from tfda.data import images as image_files
from tfda.serving import classifier, restore
from tools import evaluate as evaluate_tool
from tools import predict as predict_tool

DIGITS = tuple('0123456789')


@pytest.fixture(scope='session')
def run_dir(tmp_path_factory):
  return tiny_run.path(tmp_path_factory)


@pytest.fixture(scope='module')
def of_run(run_dir):
  return classifier.load(run_dir)


@pytest.fixture(scope='module')
def exported(run_dir, tmp_path_factory):
  """The folder of versions."""
  del run_dir  # It is of that.
  return tiny_run.exported(tmp_path_factory)


@pytest.fixture
def photos(tmp_path):
  """A folder of three images of different sizes, one in a sub-folder."""
  random = np.random.default_rng(2)
  folder = tmp_path / 'photos'
  sizes = {'b.png': (16, 16), 'a.png': (21, 34), 'c/d.png': (9, 40)}
  for name, (height, width) in sizes.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 256, [height, width, 3], np.uint8)
    Image.fromarray(pixels).save(path)
  return folder


def expected(run_dir, paths):
  """Probabilities from the model itself and the files read by hand."""
  model = restore.restore(run_dir)[2]
  pixels = [np.asarray(Image.open(path))[np.newaxis] for path in paths]
  pixels = [image_files.resize(image, tiny_run.SIZE) for image in pixels]
  return tf.nn.softmax(model.infer(tf.concat(pixels, axis=0))['logits']).numpy()


def test_array_gives_the_same_from_run_and_export(of_run, exported):
  of_export = classifier.load(exported)
  assert of_run.class_names == of_export.class_names == DIGITS
  assert (of_run.image_size, of_export.image_size) == (tiny_run.SIZE, None)
  random = np.random.default_rng(3)
  for shape in ([5, 16, 16, 3], [5, 20, 30, 3]):
    pixels = random.integers(0, 256, shape, np.uint8)
    ours = of_run.predict(pixels, batch_size=2)
    theirs = of_export.predict(pixels.astype(np.float64))
    assert ours.probabilities.dtype == np.float32
    np.testing.assert_allclose(ours.probabilities.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(
      ours.probabilities, theirs.probabilities, atol=1e-6
    )
    assert ours.labels == theirs.labels
    best = ours.probabilities.argmax(axis=1)
    assert ours.labels == [DIGITS[i] for i in best]
    assert ours.paths is theirs.paths is None


def test_files_and_folders(of_run, exported, run_dir, photos):
  paths = [str(photos / name) for name in ('a.png', 'b.png', 'c/d.png')]
  probabilities = expected(run_dir, paths)
  for loaded in (of_run, classifier.load(os.path.join(exported, '1'))):
    for images, order in [
      (photos, [0, 1, 2]),
      (paths[::-1], [2, 1, 0]),
      ([paths[1], photos / 'c'], [1, 2]),
    ]:
      found = loaded.predict(images, batch_size=2)
      assert found.paths == [paths[i] for i in order]
      np.testing.assert_allclose(
        found.probabilities, probabilities[order], atol=1e-6
      )


def test_no_images_give_no_predictions(of_run):
  for images in ([], np.zeros([0, 4, 4, 3])):
    found = of_run.predict(images)
    assert found.labels == []
    assert found.probabilities.shape == (0, 10)


def test_the_highest_version_counts(exported, tmp_path):
  for version in ('9', '10'):
    shutil.copytree(os.path.join(exported, '1'), tmp_path / version)
  labels = tmp_path / '10' / 'assets' / 'labels.txt'
  labels.write_text(''.join(f'class {i}\n' for i in range(10)))
  names = classifier.load(tmp_path).class_names
  assert names == tuple(f'class {i}' for i in range(10))


def test_unfinished_run_without_its_pretrained_weights(run_dir, tmp_path):
  copy = tmp_path / 'moved'
  shutil.copytree(run_dir, copy)
  (copy / 'results.json').unlink()
  with open(copy / 'flags.txt', 'a') as file:
    file.write('--backbone_weights=gone.h5\n')
  checkpoints = copy / 'checkpoints'
  for path in checkpoints.glob('ckpt-3.*'):
    path.unlink()
  run, settings, model = restore.restore(copy)
  assert (int(model.step), settings.steps) == (2, tiny_run.STEPS)
  assert tuple(run.class_names()) == DIGITS
  reader = tf.train.load_checkpoint(f'{checkpoints}/ckpt-2')
  kernel = reader.get_tensor(
    'model/classifier/_output/kernel/.ATTRIBUTES/VARIABLE_VALUE'
  )
  np.testing.assert_array_equal(model.classifier.weights[-2], kernel)


def test_checkpoint_that_does_not_fit_or_is_broken(run_dir, tmp_path):
  other, broken = tmp_path / 'other', tmp_path / 'broken'
  shutil.copytree(run_dir, other)
  with open(other / 'flags.txt', 'a') as file:
    file.write('--dann.discriminator_batch_norm\n')
  with pytest.raises(
    errors.UsageError, match='ckpt-3: .*: Found 4 .* not bound'
  ):
    classifier.load(other)
  shutil.copytree(run_dir, broken)
  for path in (broken / 'checkpoints').glob('ckpt-3.data*'):
    path.write_bytes(b'')
  with pytest.raises(errors.UsageError, match='ckpt-3: .* cannot be read'):
    classifier.load(broken)


def test_load_refuses_what_is_no_model(run_dir, exported, tmp_path):
  empty, broken = tmp_path / 'empty', tmp_path / 'broken'
  empty.mkdir()
  with pytest.raises(errors.UsageError, match='none: no such folder'):
    classifier.load(tmp_path / 'none')
  with pytest.raises(errors.UsageError, match='neither a run .* nor an export'):
    classifier.load(empty)
  shutil.copy(os.path.join(run_dir, 'flags.txt'), empty)
  with pytest.raises(errors.UsageError, match='no checkpoint in .*empty'):
    classifier.load(empty)
  shutil.copytree(os.path.join(exported, '1'), broken)
  (broken / 'saved_model.pb').write_bytes(b'x')
  with pytest.raises(errors.UsageError, match='not a whole export'):
    classifier.load(broken)


@pytest.mark.parametrize(
  'images, found',
  [
    (np.zeros([16, 16, 3], np.uint8), r'not uint8 \[16, 16, 3\]'),
    (np.zeros([2, 16, 16, 1]), r'not float64 \[2, 16, 16, 1\]'),
    (np.zeros([2, 0, 16, 3]), r'not float64 \[2, 0, 16, 3\]'),
    (np.array(['a.png']), r'not <U5 \[1\]'),
    ([np.zeros([4, 4, 3]), np.zeros([5, 5, 3])], r'not object \[\]'),
  ],
)
def test_arrays_of_another_shape_are_refused(of_run, images, found):
  with pytest.raises(errors.UsageError, match=found):
    of_run.predict(images)


def test_pixels_that_are_no_numbers_are_refused_by_an_export(exported):
  pixels = np.zeros([3, 16, 16, 3])
  pixels[1, 2, 3] = np.nan
  loaded = classifier.load(exported)
  with pytest.raises(
    errors.UsageError, match=r'image \[1\] of the request has pixels that are'
  ):
    loaded.predict(pixels)


def test_predict_tool_writes_csv(
  exported, run_dir, photos, tmp_path, monkeypatch, capsys
):
  words = photos, f'--model={exported}'  # Flags may come last.
  assert tiny_run.call(predict_tool, monkeypatch, *words) == 0
  printed = capsys.readouterr().out
  paths = [str(photos / name) for name in ('a.png', 'b.png', 'c/d.png')]
  probabilities = expected(run_dir, paths)
  header, *rows = csv.reader(printed.splitlines())
  assert header == ['path', 'label', 'probability']
  assert [row[0] for row in rows] == paths
  assert [int(row[1]) for row in rows] == probabilities.argmax(axis=1).tolist()
  np.testing.assert_allclose(
    [float(row[2]) for row in rows], probabilities.max(axis=1), atol=2e-6
  )
  words = f'--model={run_dir}', f'--out={tmp_path}/out.csv', photos
  assert tiny_run.call(predict_tool, monkeypatch, *words) == 0
  assert capsys.readouterr().out == ''
  assert len((tmp_path / 'out.csv').read_text().splitlines()) == 4


def test_predict_tool_writes_json(run_dir, photos, monkeypatch, capsys):
  path = str(photos / 'a.png')
  words = f'--model={run_dir}', '--format=json', path
  assert tiny_run.call(predict_tool, monkeypatch, *words) == 0
  (found,) = json.loads(capsys.readouterr().out)
  probabilities = expected(run_dir, [path])[0]
  assert set(found) == {'path', 'label', 'probability', 'probabilities'}
  assert found['path'] == path
  assert found['label'] == DIGITS[probabilities.argmax()]
  assert found['probability'] == max(found['probabilities'].values())
  assert tuple(found['probabilities']) == DIGITS
  np.testing.assert_allclose(
    list(found['probabilities'].values()), probabilities, atol=2e-6
  )


@pytest.mark.parametrize(
  'words, message',
  [
    (['{photos}'], '--model=RUN_OR_EXPORT is needed'),
    (['--model={run}'], 'no images; name files or folders'),
    (['--model={tmp}/no', '{photos}'], '{tmp}/no: no such folder'),
    (['--model={run}', '{tmp}/no'], '{tmp}/no: no such file or folder'),
    (['--model={run}', '{tmp}/empty'], '{tmp}/empty: no images; they end in'),
    (
      ['--model={run}', '{photos}', '{tmp}/broken.png'],
      '{tmp}/broken.png: cannot be read: no image',
    ),
    (
      ['--model={run}', '--format=xml', '{photos}'],
      '--format=xml: there are: csv, json',
    ),
    (
      ['--model={run}', '--out={tmp}/no/out.csv', '{photos}'],
      '--out={tmp}/no/out.csv: cannot be written',
    ),
  ],
)
def test_predict_tool_refuses_in_one_line(
  words, message, run_dir, photos, tmp_path, monkeypatch, capsys
):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'broken.png').write_bytes(b'no image')
  names = {'run': run_dir, 'photos': photos, 'tmp': tmp_path}
  words = [word.format(**names) for word in words]
  assert tiny_run.call(predict_tool, monkeypatch, *words) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith(f'error: {message.format(**names)}')
  assert printed.err.count('\n') == 1
  assert printed.out == ''


def evaluated(monkeypatch, capsys, *words):
  """The tool's rows as {first column: other columns}, and its first line."""
  assert tiny_run.call(evaluate_tool, monkeypatch, *words) == 0
  first, header, *rows = capsys.readouterr().out.splitlines()
  assert header.split() == [
    'name',
    'images',
    'accuracy',
    'mean',
    'entropy',
    '(nats)',
  ]
  return first, {row.split()[0]: row.split()[1:] for row in rows}


def test_evaluate_tool_repeats_the_results(run_dir, monkeypatch, capsys):
  first, rows = evaluated(monkeypatch, capsys, f'--run_dir={run_dir}')
  assert first == f'{run_dir} at step 3 of 3'
  with open(os.path.join(run_dir, 'results.json')) as file:
    results = json.load(file)
  source, target = results['accuracy']['source'], results['accuracy']['target']
  assert rows['source'][:3] == ['optdigits', '500', f'{source:.2%}']
  assert rows['target'] == [
    'optdigits_m',
    '500',
    f'{target:.2%}',
    f'{results["validators"]["target_entropy"]:.4f}',
  ]


def test_evaluate_tool_tests_as_the_run_did(tmp_path, monkeypatch, capsys):
  trained = experiment.Experiment(
    method='source_only',
    source='optdigits',
    target='optdigits_m',
    target_classes='first3',
    image_size=8,
    steps=1,
    batch_size=8,
    run_dir=str(tmp_path / 'run'),
  )
  path = experiment.train(trained)
  capsys.readouterr()
  with open(os.path.join(path, 'results.json')) as file:
    results = json.load(file)
  _, rows = evaluated(monkeypatch, capsys, f'--run_dir={path}')
  count, accuracy = results['images']['target_test'], results['accuracy']
  assert 100 < count < 200  # Of 500, three classes of ten.
  assert rows['target'][1:3] == [str(count), f'{accuracy["target"]:.2%}']


def test_evaluate_tool_on_other_domains(run_dir, photos, monkeypatch, capsys):
  found = f'--run_dir={run_dir}', f'--domain=folder:{photos / "c"}'
  _, rows = evaluated(monkeypatch, capsys, *found)
  entropy = rows['domain'].pop()
  assert rows == {
    'domain': [f'folder:{photos / "c"}', '1', 'no', 'labels'],
  }
  p = expected(run_dir, [photos / 'c' / 'd.png'])
  assert float(entropy) == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)


def test_evaluate_tool_refuses_in_one_line(
  run_dir, photos, monkeypatch, capsys
):
  for words, message in [
    ([], '--run_dir=RUN is needed'),
    ([f'--run_dir={photos}'], f'{photos}: no run directory (no flags.txt)'),
    (
      [f'--run_dir={run_dir}', '--domain=nist'],
      'nist: no such domain; did you mean mnist',
    ),
    (
      [f'--run_dir={run_dir}', f'--domain=folder:{photos}'],
      f'the class lists differ: only in {run_dir}: {", ".join(DIGITS)}; '
      f'only in folder:{photos}: c\n',
    ),
  ]:
    assert tiny_run.call(evaluate_tool, monkeypatch, *words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {message}')
    assert printed.count('\n') == 1
