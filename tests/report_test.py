"""tfda.evaluation.report: what the page says of runs written here."""

import base64
import html
import html.parser
import io
import json
import os
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from tfda import errors
from tfda.evaluation import figures, pages, report
from tools import report as tool

_NAMES = ['cat', 'price $5^$', '<script>alert("dog")</script>']
_TEST_IMAGES = 30
_SHOWN = 6
_ORACLE = 'oracle (best step on target labels)'
_VOID = {'meta', 'link', 'img', 'br', 'hr', 'input', 'wbr'}


def _png(width, height):
  buffer = io.BytesIO()
  PIL.Image.new('RGB', (width, height), (0, 90, 9)).save(buffer, 'PNG')
  return buffer.getvalue()


def _write_run(path, labelled=True, arrays=True, pictures=(), **changed):
  """Writes a run directory; returns (its path, what is in evaluation.npz).

  Args:
    path: of the directory.
    labelled: whether the target is.
    arrays: whether there is an evaluation.npz.
    pictures: (name, width, caption) of what the method shows of itself.
    **changed: entries of results.json.
  """
  os.makedirs(path)
  random = np.random.default_rng(len(changed))
  kept = {}
  for side in ('source', 'target'):
    labels = np.arange(_TEST_IMAGES) % len(_NAMES)
    logits = 2 * np.eye(len(_NAMES))[labels]
    logits += random.normal(size=logits.shape)
    chosen = random.permutation(_TEST_IMAGES)[:20]
    features = random.normal(size=(20, 60)) + 3 * labels[chosen, None]
    kept.update(
      {
        f'{side}_logits': logits.astype(np.float32),
        f'{side}_kept': chosen,
        f'{side}_features': features.astype(np.float32),
        f'{side}_images': random.integers(
          0, 256, (_SHOWN, 8, 8, 3), dtype=np.uint8
        ),
      }
    )
    if labelled or side == 'source':
      kept[f'{side}_labels'] = labels
  if arrays:
    np.savez_compressed(os.path.join(path, 'evaluation.npz'), **kept)
  results = {
    'method': 'dann',
    'source': 'left',
    'target': 'right',
    'backbone': 'small_net',
    'steps': 12000,
    'seed': 3,
    'commit': '0123abcd+changes',
    'versions': {'tensorflow': '2.15.1'},
    'accuracy': {'source': 0.98765, 'target': 0.5432 if labelled else None},
    'validators': {
      'source_accuracy': 0.98765,
      'target_entropy': 0.123449,
      'information_maximisation': 1.98768,
    },
    'images': {'target_test': _TEST_IMAGES},
    'transductive': {'source': False, 'target': False},
    'oracle': {'step': 9000, 'target_accuracy': 0.6789} if labelled else None,
    'seconds': 3725.0,
    'images_per_second': 1234.4,
    **changed,
  }
  if pictures:
    os.makedirs(os.path.join(path, 'pictures'))
    results['pictures'] = {name: caption for name, _, caption in pictures}
  for name, width, _ in pictures:
    with open(os.path.join(path, 'pictures', f'{name}.png'), 'wb') as file:
      file.write(_png(width, 20))
  files = {
    'results.json': json.dumps(results),
    'classes.json': json.dumps(_NAMES),
    'flags.txt': f'--method={results["method"]}\n--steps=12000 # <i>&\n',
    'metrics.csv': (
      'step,seconds,images_per_second,learning_rate,adaptation_factor,'
      'loss/total,loss/label,accuracy/source,accuracy/target\n'
      '6000,9.5,80,0.01,0.5,2.5,2.0,0.8,%s\n'
      '9000,9.9,80,0.008,0.9,2.1,1.8,,\n'
      '12000,10.5,80,0.005,1.0,1.5,1.25,0.98765,%s\n'
      % (('0.6', '0.5432') if labelled else ('', ''))
    ),
  }
  for name, text in files.items():
    with open(os.path.join(path, name), 'w') as file:
      file.write(text)
  return str(path), kept


class _Page(html.parser.HTMLParser):
  """Tags and texts of a page, checked to be closed in order."""

  def __init__(self, path):
    super().__init__()
    with open(path, encoding='ascii') as file:
      self.source = file.read()
    self.tags, self.open, self.texts = [], [], []
    self.feed(self.source)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)
      self.texts.append((tag, dict(attrs), []))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    # To all elements that are open: the last ones begun are the inner ones.
    depth = {}
    for tag in self.open:
      depth[tag] = depth.get(tag, 0) + 1
    for tag, _, parts in reversed(self.texts):
      if depth.get(tag):
        depth[tag] -= 1
        parts.append(data)

  def all(self, tag, **attributes):
    """Texts of the elements of a kind, with single spaces."""
    return [
      ' '.join(''.join(parts).split())
      for name, found, parts in self.texts
      if name == tag
      and all(found.get(key) == value for key, value in attributes.items())
    ]

  def attributes(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def alts(self, start):
    """The alternative texts of pictures that begin so."""
    return [
      image['alt']
      for image in self.attributes('img')
      if image['alt'].startswith(start)
    ]

  def alts_with(self, part):
    """The alternative texts of sample images that have this in them."""
    return [alt for alt in self.alts('') if ' image ' in alt and part in alt]

  def table(self, caption='All runs'):
    """[{column: cell}] of the table whose caption begins so."""
    (start,) = re.findall(
      f'<table[^>]*>\\s*<caption>{caption}.*?</table>', self.source, re.DOTALL
    )
    cells = [
      [
        ' '.join(html.unescape(re.sub('<[^>]*>', '', cell)).split())
        for cell in re.findall('<t[hd].*?</t[hd]>', row, re.DOTALL)
      ]
      for row in re.findall('<tr>.*?</tr>', start, re.DOTALL)
    ]
    assert {len(row) for row in cells} == {len(cells[0])}
    return [dict(zip(cells[0], row)) for row in cells[1:]]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """(page, arrays, path) of a run with labels."""
  path, kept = _write_run(str(tmp_path_factory.mktemp('one') / 'run'))
  return _Page(report.write([path])), kept, path


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """(page, directories) of DANN, without target labels, and source_only."""
  root = tmp_path_factory.mktemp('two')
  dann, _ = _write_run(str(root / 'dann'), labelled=False, seconds=12.34)
  source_only, _ = _write_run(
    str(root / 'source'),
    method='source_only',
    seed=0,
    accuracy={'source': 0.75, 'target': 0.25},
    transductive={'source': False, 'target': True},
  )
  out = str(root / 'new' / 'page.html')
  assert report.write([dann, source_only], out=out) == out
  return _Page(out), (dann, source_only)


def test_table_has_the_numbers_of_results_json(one):
  page, _, _ = one
  assert page.all('h1') == ['left → right']
  assert page.table() == [
    {
      'method': 'dann',
      'seed': '3',
      'backbone': 'small_net',
      'steps': '12,000',
      'source accuracy': '98.77%',
      'target accuracy': '54.32%',
      'target entropy (nats)': '0.1234',
      'information maximisation (nats)': '1.9877',
      'training time': '1 h 02 min',
      'images/s': '1,234',
      _ORACLE: '67.89% step 9,000',
    }
  ]
  # The best step on target labels is nowhere but under that heading.
  assert page.source.count('67.89') == 1
  assert 'No run here is transductive' in page.source


def test_two_runs_are_compared(two):
  page, _ = two
  dann, source_only = page.table()
  assert dann['method'] == 'dann' and source_only['method'] == 'source_only'
  assert dann['target accuracy'] == dann[_ORACLE] == 'no labels'
  assert dann['training time'] == '12.3 s'
  assert source_only['target accuracy'] == '25.00% transductive'
  assert source_only['source accuracy'] == '75.00%'
  assert 'No run here is transductive' not in page.source
  # One chart for both, which says what its curves end with.
  (chart,) = page.alts('Line chart of source accuracy')
  assert 'dann, seed 3 98.77% at step 12,000' in chart
  assert 'source_only, seed 0 98.77% at step 12,000' in chart
  (chart,) = page.alts('Line chart of target accuracy')
  assert 'dann' not in chart and 'source_only, seed 0 54.32%' in chart
  # source_only comes first in the maps, whatever the order was.
  headings = page.all('h3')
  before = headings.index('before adaptation: source_only, seed 0')
  assert headings[before + 1] == 'after adaptation: dann, seed 3'


def test_seeds_are_grouped_and_hurt_is_a_red_line(tmp_path):
  baseline, _ = _write_run(str(tmp_path / 'a'), method='source_only', seed=0)
  runs = [baseline]
  for seed, accuracy in ((1, 0.5), (2, 0.6), (3, 0.7)):
    path, kept = _write_run(
      str(tmp_path / str(seed)),
      seed=seed,
      accuracy={'source': 0.9, 'target': accuracy},
      oracle=None,
    )
    kept['target_logits'] = np.roll(kept['target_logits'], 1, axis=1)
    np.savez(os.path.join(path, 'evaluation.npz'), **kept)
    runs.append(path)
  page = _Page(report.write(runs, str(tmp_path / 'page.html')))
  source_only, dann = page.table('Mean over seeds')
  assert source_only['target accuracy'] == '54.32%'
  assert dann['seeds'] == '1, 2, 3'
  # 0.6 -+ 4.3027 * 0.1 / sqrt(3).
  assert dann['target accuracy'] == '60.00% ± 10.00% 35.16% to 84.84%'
  assert dann['source accuracy'] == '90.00% ± 0.00% 90.00% to 90.00%'
  assert dann[_ORACLE] == '–'
  warnings = [x for x in page.all('strong') if x.startswith('Warning')]
  # At the top, and where the run is compared.
  assert warnings == 2 * [
    f'Warning: dann, seed {i} beside source_only, seed 0' for i in (1, 2, 3)
  ]
  hurt = [x for x in page.all('li') if x.startswith('adaptation hurt')]
  assert len(hurt) == 6
  verdicts = page.table('dann, seed 1 beside source_only, seed 0')
  (accuracy,) = [x for x in verdicts if x['run'] == 'oracle target accuracy']
  assert accuracy['verdict'] == 'worse'


def test_pictures(one, two):
  # Accuracies, losses, learning rate, adaptation factor; images of each domain
  # and least certain ones; matrix, reliability diagram, two maps.
  of_run = 3 * _SHOWN + 1 + 1 + 2
  assert len(one[0].attributes('img')) == 5 + of_run
  changed = 1 + len(two[0].alts_with(' → '))  # Shares of classes; less certain.
  assert len(two[0].attributes('img')) == 6 + 2 * of_run + changed
  for page in (one[0], two[0]):
    for image in page.attributes('img'):
      assert image['alt']
      start, data = image['src'].split(',')
      assert start == 'data:image/png;base64'
      picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
      picture.load()
      if 'width' in image:
        assert picture.size == (int(image['width']), int(image['height']))
    assert len(page.source) < 5 << 20


def test_no_request_leaves_the_page(one, two):
  for page in (one[0], two[0]):
    for tag, attributes in page.tags:
      assert tag not in ('script', 'iframe', 'object', 'base')
      for name in ('src', 'href', 'srcset', 'action', 'poster'):
        assert attributes.get(name, '#').startswith(('data:', '#'))
    assert not re.search(r'url\(|@import', page.source)
    assert 'http://' not in page.source and 'https://' not in page.source


def test_structure(two):
  page, _ = two
  ids = [a['id'] for _, a in page.tags if 'id' in a]
  assert len(set(ids)) == len(ids)
  for link in page.attributes('a'):
    assert link['href'][1:] in ids
  levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r'h\d', t)]
  assert levels[0] == 1 and levels.count(1) == 1
  assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
  assert all('scope' in attributes for attributes in page.attributes('th'))
  assert page.attributes('html') == [{'lang': 'en'}]
  assert 'prefers-color-scheme: dark' in page.source
  assert page.all('h2') == [
    'Runs',
    'What adaptation changed',
    'Without target labels',
    'Learning curves',
    'Sample images',
    'Predictions by class',
    'Calibration',
    'Features of both domains',
    'Settings, environment and commands',
  ]
  tables = len(page.attributes('table'))
  assert tables > 3 and len(page.all('caption')) == tables
  for landmark in ('header', 'nav', 'main'):
    assert len(page.attributes(landmark)) == 1


def test_samples_show_predictions_of_the_kept_images(one):
  page, kept, _ = one
  shown = page.all('li')[-3 * _SHOWN : -_SHOWN]
  images = page.attributes('img')[5 : 5 + 2 * _SHOWN]
  marks = set()
  for i, (text, image) in enumerate(zip(shown, images)):
    side = ('source', 'target')[i // _SHOWN]
    index = kept[f'{side}_kept'][i % _SHOWN]
    label = _NAMES[kept[f'{side}_labels'][index]]
    predicted = _NAMES[kept[f'{side}_logits'][index].argmax()]
    correct = predicted == label
    assert text == (
      f'✓ {predicted}' if correct else f'✗ {predicted}, is {label}'
    )
    assert image[
      'alt'
    ] == f'{side} image of {label}, predicted {predicted}: ' + (
      'correct' if correct else 'wrong'
    )
    data = base64.b64decode(image['src'].split(',')[1])
    np.testing.assert_array_equal(
      np.asarray(PIL.Image.open(io.BytesIO(data))),
      kept[f'{side}_images'][i % _SHOWN],
    )
    marks.add(text[0])
  assert marks == {'✓', '✗'}  # Else the test is of one case only.


def test_target_without_labels(two):
  page, _ = two
  (bars,) = page.alts('Bar chart of the predicted classes')
  assert f'{_TEST_IMAGES} unlabelled target images, dann, seed 3' in bars
  (matrix,) = page.alts('Confusion matrix')
  assert 'source_only' in matrix
  alts = [
    alt
    for alt in page.alts('target image without a label, predicted ')
    if 'entropy' not in alt
  ]
  assert len(alts) == _SHOWN
  unmarked = [text for text in page.all('li') if text in _NAMES]
  assert [alt.split('predicted ')[1] for alt in alts] == unmarked


def test_matrix_agrees_with_the_arrays(one):
  page, kept, _ = one
  correct = kept['target_logits'].argmax(axis=-1) == kept['target_labels']
  (matrix,) = page.alts('Confusion matrix')
  assert f'{100 * np.mean(correct):.2f}% on the diagonal' in matrix


def test_names_are_escaped(one):
  page, _, _ = one
  assert '<script' not in page.source
  assert '&lt;script&gt;' in page.source
  assert any(_NAMES[2] in text for text in page.all('li'))
  assert '# <i>&' in page.all('pre')[0]


def test_settings_and_commands(two):
  page, (dann, source_only) = two
  assert page.all('pre')[0].startswith('--method=dann --steps=12000')
  assert page.all('pre')[1].startswith('--method=source_only')
  commands = page.all('pre')[2]
  assert f'python -m tools.train --flagfile={dann}/flags.txt' in commands
  assert f'python -m tools.report {dann} {source_only} --out=' in commands
  values = page.all('dd')
  assert '0123abcd+changes' in values and '2.15.1' in values
  assert dann in values and f'{_TEST_IMAGES} images' in values


def test_the_same_runs_give_the_same_page(one, tmp_path):
  page, _, path = one
  assert os.listdir(path).count('report.html') == 1
  assert not [name for name in os.listdir(path) if name.endswith('.new')]
  again = _Page(tool_write([path, path], tmp_path / 'again.html'))
  assert again.attributes('img') == page.attributes('img')


def tool_write(runs, out):
  tool.main([*runs, f'--out={out}'])  # Flags may stand behind the runs.
  return str(out)


def test_run_that_is_not_finished(tmp_path, one):
  path, _ = _write_run(str(tmp_path / 'run'))
  os.remove(os.path.join(path, 'results.json'))
  with pytest.raises(errors.UsageError, match='no finished run') as raised:
    report.write([one[2], path])
  assert path in str(raised.value) and '\n' not in str(raised.value)
  assert not os.path.exists(os.path.join(path, 'report.html'))


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('results.json', '{"method": ', 'cannot be read'),
    ('results.json', '{"method": "dann"}', 'results.json has no source, '),
    ('metrics.csv', 'step\nsix\n', 'cannot be read'),
    ('evaluation.npz', 'PK not a zip file', 'cannot be read'),
    ('evaluation.npz', '', 'cannot be read'),
  ],
)
def test_file_that_is_broken(tmp_path, name, content, message):
  path, _ = _write_run(str(tmp_path / 'run'))
  with open(os.path.join(path, name), 'w') as file:
    file.write(content)
  with pytest.raises(errors.UsageError, match=message) as raised:
    report.write([path])
  assert path in str(raised.value) and '\n' not in str(raised.value)


def test_evaluation_of_another_version(tmp_path):
  path, kept = _write_run(str(tmp_path / 'run'))
  del kept['target_kept']
  np.savez(os.path.join(path, 'evaluation.npz'), **kept)
  with pytest.raises(errors.UsageError, match='has no target_kept'):
    report.write([path])


def test_results_alone_make_a_page(tmp_path):
  """As committed figures are: without arrays, metrics, flags and classes."""
  path, _ = _write_run(str(tmp_path / 'run'), arrays=False)
  for name in ('metrics.csv', 'flags.txt', 'classes.json'):
    os.remove(os.path.join(path, name))
  page = _Page(report.write(path))
  assert page.table()[0]['target accuracy'] == '54.32%'
  assert page.attributes('img') == []
  assert page.source.count('has no evaluation.npz') == 3


def test_runs_are_told_apart(tmp_path):
  paths = [
    _write_run(str(tmp_path / name / 'seed3'), arrays=False)[0]
    for name in ('dann', 'dann_tuned')
  ]
  page = _Page(report.write(paths))
  assert page.alts('Line chart of loss terms of dann, seed 3 (dann/seed3)')
  assert page.alts('Line chart of loss terms of dann, seed 3 (dann_tuned/')
  other, _ = _write_run(str(tmp_path / 'x'), arrays=False, target='up')
  page = _Page(report.write([paths[0], other]))
  assert page.all('h1') == ['left → right, left → up']
  assert [row['task'] for row in page.table()] == ['left → right', 'left → up']
  assert page.alts('Line chart of loss terms of dann, seed 3, left → up')


_PICTURES = (
  ('first_one', 1000, 'From 0.1 to <b>0.9</b>.'),
  ('second', 30, 'One half.'),
)


def test_pictures_of_the_method_are_shown_with_their_captions(tmp_path, one):
  path, _ = _write_run(str(tmp_path / 'run'), pictures=_PICTURES, seed=7)
  page = _Page(report.write([one[2], path], str(tmp_path / 'page.html')))
  # Old runs have no such entry, and nothing is said of them there.
  assert page.all('h2')[-2] == 'Inside the method'
  section = page.source.split('<section id="method"')[1].split('</section>')[0]
  assert section.count('<h3>') == 1 and '<h3>dann, seed 7</h3>' in section
  assert page.all('a', href='#method') == ['Inside the method']
  shown = [
    image
    for image in page.attributes('img')
    if 'of dann, seed 7: ' in image['alt']
  ]
  assert [image['alt'] for image in shown] == [
    'first one of dann, seed 7: From 0.1 to <b>0.9</b>.',
    'second of dann, seed 7: One half.',
  ]
  for image, (_, width, caption) in zip(shown, _PICTURES):
    assert base64.b64decode(image['src'].split(',')[1]) == _png(width, 20)
    assert (image['width'], image['height']) == (str(width), '20')
    assert caption in page.all('figcaption')
  # The one that a narrow screen would make too small is scrolled.
  assert section.count('<figure class="wide">') == 1


def test_runs_without_pictures_have_no_section_of_them(one, tmp_path):
  path, _ = _write_run(str(tmp_path / 'run'), pictures=())
  for page in (one[0], _Page(report.write(path))):
    assert 'Inside the method' not in page.source
    assert 'href="#method"' not in page.source


def test_figures_without_the_folder_of_pictures(tmp_path):
  """As committed ones are: results.json has the captions alone."""
  full, _ = _write_run(str(tmp_path / 'full'), pictures=_PICTURES)
  bare, _ = _write_run(str(tmp_path / 'bare'), pictures=_PICTURES, seed=8)
  shutil.rmtree(os.path.join(bare, 'pictures'))
  assert 'Inside the method' not in _Page(report.write(bare)).source
  page = _Page(report.write([bare, full]))
  section = page.source.split('<section id="method"')[1].split('</section>')[0]
  assert section.count('<figure') == 2
  assert f'{bare} has no pictures/.' in section


@pytest.mark.parametrize('damage', ['missing', 'cut short', 'no image'])
def test_picture_that_cannot_be_read(tmp_path, damage):
  path, _ = _write_run(str(tmp_path / 'run'), pictures=_PICTURES)
  picture = os.path.join(path, 'pictures', 'first_one.png')
  with open(picture, 'rb') as file:
    content = file.read()
  os.remove(picture)
  if damage != 'missing':
    with open(picture, 'wb') as file:
      file.write(content[:60] if damage == 'cut short' else b'no image')
  with pytest.raises(errors.UsageError, match='cannot be read: ') as raised:
    report.write([path])
  assert picture in str(raised.value) and '\n' not in str(raised.value)


def test_out_that_cannot_be_written(tmp_path):
  path, _ = _write_run(str(tmp_path / 'run'), arrays=False)
  with pytest.raises(errors.UsageError, match='--out=.*cannot be written'):
    report.write([path], out=os.path.join(path, 'results.json', 'page.html'))


def test_tool_without_a_run():
  with pytest.raises(errors.UsageError, match='name a run directory'):
    tool.main([])
  with pytest.raises(errors.UsageError):
    report.write([])


def test_numbers():
  assert pages.percent(0.1234) == '12.34%'
  assert pages.percent(None) == 'no labels'
  assert pages.number(2.29471) == '2.2947'
  assert pages.duration(12.29) == '12.3 s'
  assert pages.duration(59.96) == '1 min 00 s'
  assert pages.duration(3599.7) == '1 h 00 min'
  assert pages.duration(3725) == '1 h 02 min'
  assert pages.speed(1234.5) == '1,234'
  assert pages.speed(3.25) == '3.2'


def test_rows_of_a_matrix():
  np.testing.assert_array_equal(
    figures.row_normalised([[3, 1], [0, 0]]), [[0.75, 0.25], [np.nan, np.nan]]
  )


def _drawn(monkeypatch, make):
  """The matplotlib figure that a function of `figures` draws."""
  from matplotlib import figure as matplotlib_figure

  made = matplotlib_figure.Figure(layout='constrained')
  monkeypatch.setattr(figures, 'png', lambda draw, *_, **__: draw(made))
  make()
  return made


def test_distributions_have_shares_and_quantiles(monkeypatch):
  values = np.arange(101) * 20.0
  samples = [('near', values), ('far', values + 500.0)]
  made = _drawn(monkeypatch, lambda: figures.distributions(samples, 'square'))
  (axes,) = made.axes
  assert axes.get_xlabel() == 'square'
  (legend,) = made.legends
  assert [text.get_text() for text in legend.get_texts()] == [
    'near: 1,000 (200 to 1,800)',
    'far: 1,500 (700 to 2,300)',
  ]
  near, far = (patch.get_data() for patch in axes.patches)
  np.testing.assert_array_equal(near.edges, far.edges)
  assert near.edges[0] == 0.0
  # The widest half percent is left out; nothing else is.
  assert near.values.sum() == pytest.approx(1.0)
  assert 0.97 < far.values.sum() <= 1.0
  assert [line.get_xdata()[0] for line in axes.lines] == [1000.0, 1500.0]
  small = [('small', np.array([0.0123456, 0.0123456]))]
  made = _drawn(monkeypatch, lambda: figures.distributions(small, 'square'))
  (text,) = made.legends[0].get_texts()
  assert text.get_text() == 'small: 0.0123 (0.0123 to 0.0123)'


def test_histogram_has_lighter_bars_behind(monkeypatch):
  made = _drawn(
    monkeypatch,
    lambda: figures.histogram([0.2, 0.0], ['a', 'b'], 'weight', [0.5, 0.1]),
  )
  (axes,) = made.axes
  assert [bar.get_width() for bar in axes.patches] == [0.5, 0.1, 0.2, 0.0]
  assert axes.get_xlabel() == 'weight'
  assert [t.get_text() for t in axes.get_yticklabels()] == ['a', 'b']


def test_large_images_become_small():
  image = np.full((300, 200, 3), 200, np.uint8)
  data, media_type = figures.thumbnail(image)
  assert media_type == 'image/jpeg'
  assert PIL.Image.open(io.BytesIO(data)).size == (64, 96)
