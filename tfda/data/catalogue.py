"""What is published about the data sets: where they are, how many, checksums.

Nothing is downloaded: a user accepts the terms and unpacks the files below
--data_dir.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set as its authors publish it.

  Attributes:
    what: a line.
    home: the page where a user gets it.
    terms: a summary; the page itself counts.
    layout: where its files are expected below --data_dir.
    counts: {domain: ((training images, test images), ...)}: one pair for every
      form that it is published in. The two are the same images, and the same
      number, where there is no split.
    checksums: {file below --data_dir: (hashlib's name, hexadecimal digest)}.
  """

  what: str
  home: str
  terms: str
  layout: str
  counts: dict
  checksums: dict = dataclasses.field(default_factory=dict)


def _whole(**counts):
  """Domains without a split."""
  return {name: ((count, count),) for name, count in counts.items()}


def _below(folder, files):
  return {
    place + name: checksum
    for name, checksum in files.items()
    for place in ('', f'{folder}/')
  }


DATA_SETS = {
  'mnist': DataSet(
    what='handwritten digits (LeCun et al. 1998)',
    home='http://yann.lecun.com/exdb/mnist; the file is that of '
    'tf.keras.datasets.mnist.load_data()',
    terms='usually given as CC BY-SA 3.0',
    layout='mnist.npz',
    counts={'mnist': ((60_000, 10_000),)},
    checksums={
      # Of keras/datasets/mnist.py.
      'mnist.npz': (
        'sha256',
        '731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1',
      )
    },
  ),
  'mnist_m': DataSet(
    what="MNIST's digits over photographs (Ganin & Lempitsky 2015)",
    home='http://yaroslav.ganin.net; or --make=mnist_m from mnist.npz and the '
    'photographs of BSDS500 (Arbelaez et al. 2011), https://www2.eecs.'
    'berkeley.edu/Research/Projects/CS/vision/grouping/resources.html',
    terms='none given; BSDS500 is for research',
    layout='mnist_m/mnist_m_{train,test}/*.png and '
    'mnist_m/mnist_m_{train,test}_labels.txt; or mnist.npz and '
    'bsds500_photos.zip',
    # As released; as blended from all of MNIST.
    counts={'mnist_m': ((59_001, 9_001), (60_000, 10_000))},
  ),
  'svhn': DataSet(
    what='Street View House Numbers, cropped (Netzer et al. 2011)',
    home='http://ufldl.stanford.edu/housenumbers',
    terms='non-commercial use',
    layout='svhn/{train,test}_32x32.mat',
    counts={'svhn': ((73_257, 26_032),)},
    # Of torchvision/datasets/svhn.py.
    checksums=_below(
      'svhn',
      {
        'train_32x32.mat': ('md5', 'e26dedcc434d2e4c54c9b2d4a06d8373'),
        'test_32x32.mat': ('md5', 'eb5a983be6a315427106f1b164d9cef3'),
      },
    ),
  ),
  'usps': DataSet(
    what='digits of envelopes, 16x16 (LeCun et al. 1990)',
    home='https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets (.bz2); '
    'https://hastie.su.domains/ElemStatLearn/data.html (.gz)',
    terms='none given',
    layout='usps/usps.bz2 and usps/usps.t.bz2; or usps/zip.{train,test}.gz',
    counts={'usps': ((7_291, 2_007),)},
    # Of torchvision/datasets/usps.py.
    checksums=_below(
      'usps',
      {
        'usps.bz2': ('md5', 'ec16c51db3855ca6c91edd34d0e9b197'),
        'usps.t.bz2': ('md5', '8ea070ee2aca1ac39742fdd1ef5ed118'),
      },
    ),
  ),
  'syn_numbers': DataSet(
    what='digits of fonts (Ganin & Lempitsky 2015)',
    home='http://yaroslav.ganin.net (SynthDigits.zip); or --make=syn_numbers',
    terms='none given',
    layout='syn_numbers/synth_{train,test}_32x32.mat; or what --make writes',
    counts={'syn_numbers': ((479_400, 9_553),)},
  ),
  'gtsrb': DataSet(
    what='German Traffic Sign Recognition Benchmark (Stallkamp et al. 2011)',
    home='https://benchmark.ini.rub.de',
    terms='research',
    layout='GTSRB/Final_Training/Images, GTSRB/Final_Test/Images and '
    'GT-final_test.csv',
    # As released; gtsrb.npz, by tracks.
    counts={'gtsrb': ((39_209, 12_630), (10_460, 2_610))},
  ),
  'syn_signs': DataSet(
    what='painted traffic signs (Moiseev et al. 2013)',
    home='http://graphics.cs.msu.ru/en/node/1337 (synthetic_data.zip); or '
    '--make=syn_signs',
    terms='none given',
    layout='synthetic_data/train_labelling.txt; or what --make writes',
    # As released, a tenth of them held out for test; as made here.
    counts={'syn_signs': ((90_000, 10_000), (100_000, 10_000))},
  ),
  'office31': DataSet(
    what='31 objects of an office in three domains (Saenko et al. 2010)',
    home='https://faculty.cc.gatech.edu/~judy/domainadapt',
    terms='research',
    layout='office31/{amazon,dslr,webcam}/CLASS/*, or images/CLASS/*',
    counts=_whole(
      **{
        'office31/amazon': 2_817,
        'office31/dslr': 498,
        'office31/webcam': 795,
      }
    ),
  ),
  'office_home': DataSet(
    what='65 everyday objects in four domains (Venkateswara et al. 2017)',
    home='https://www.hemanthdv.org/officeHomeDataset.html',
    terms='non-commercial research and education',
    layout='office_home/{Art,Clipart,Product,Real World}/CLASS/*',
    counts=_whole(
      **{
        'office_home/Art': 2_427,
        'office_home/Clipart': 4_365,
        'office_home/Product': 4_439,
        'office_home/Real World': 4_357,
      }
    ),
  ),
  'visda2017': DataSet(
    what='12 objects, rendered and photographed (Peng et al. 2017)',
    home='https://github.com/VisionLearningGroup/taskcv-2017-public',
    terms='research',
    layout='visda2017/{train,validation}/image_list.txt and CLASS/*',
    counts=_whole(
      **{'visda2017/train': 152_397, 'visda2017/validation': 55_388}
    ),
  ),
  'icon_home': DataSet(
    what='icons of 63 everyday objects in three styles',
    home='drawn from https://www.npmjs.com/package/@iconify/json 2.2.535',
    terms='permissive, those of each icon set: LICENSES.tsv',
    layout='icon_home/{color,outline,solid}/CLASS/*',
    counts=_whole(
      **{
        'icon_home/color': 1_117,
        'icon_home/outline': 3_431,
        'icon_home/solid': 3_200,
      }
    ),
  ),
}


def of(domain):
  """Returns the DataSet that a domain is of, or None."""
  return DATA_SETS.get(domain.split('/')[0])


def published(domain):
  """Returns what DataSet.counts has of a domain, () if nothing.

  'office_home/Real_World' and 'office_home/RealWorld' are 'Real World' too.
  """
  data_set = of(domain)
  counts = {} if data_set is None else data_set.counts
  for name, forms in counts.items():
    if _squeezed(name) == _squeezed(domain):
      return forms
  return ()


def _squeezed(name):
  return name.replace('_', '').replace(' ', '')


def text():
  """Returns the catalogue for people."""
  lines = []
  for name, data_set in DATA_SETS.items():
    lines.append(name)
    for title in ('what', 'home', 'terms', 'layout'):
      lines.append(f'  {title:8}{getattr(data_set, title)}')
    for domain, forms in data_set.counts.items():
      shown = ' or '.join(_shown(*form) for form in forms)
      lines.append(f'  {"images":8}{domain}: {shown}')
    lines.append('')
  lines.append('Terms are summaries; what counts is the page. In the package')
  lines.append('are mnist_sample, mnist_m_sample, optdigits and optdigits_m.')
  return '\n'.join(lines)


def _shown(train, test):
  return f'{train:,}' if train == test else f'{train:,} train, {test:,} test'
