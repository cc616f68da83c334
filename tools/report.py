"""Writes one HTML page that compares finished runs.

  python -m tools.report RUN [RUN ...] [--out=FILE]
  python -m tools.report RUN [RUN ...] --attention=FOLDER [--out=FILE.png]

It opens without a network, and needs nothing but the run directories. Name the
source_only run too, to see the features before and after adaptation. The second
form draws attention maps of any images: of one run those of a method that has
some, of several runs where each of their networks looks.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.evaluation import embeddings
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  out: Optional[str] = setting(
    None,
    'file to write; if not set report.html in the last run, or attention.png',
  )
  seed: int = setting(
    0, 'seed of the maps of the features', minimum=0, maximum=2**32 - 1
  )
  map: str = setting(
    'tsne',
    'how features are mapped; umap needs the package umap-learn',
    choices=embeddings.KINDS,
  )
  points: int = setting(
    300, 'of each domain in a map; a run keeps 1,000', minimum=5
  )
  attention: Optional[str] = setting(
    None, 'folder of images whose attention maps are drawn in place of the page'
  )
  attention_images: int = setting(
    16, 'of the folder at most, the first by name', minimum=1, maximum=64
  )

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'report': ('', Settings)})


def main(arguments):
  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError(
      'name a run directory: python -m tools.report RUN [RUN ...]'
    )
  settings = groups['report']
  if settings.attention is not None:
    from tfda.evaluation import folder_attention

    print(
      folder_attention.write(
        runs, settings.attention, settings.out, settings.attention_images
      )
    )
    return
  from tfda.evaluation import report

  print(
    report.write(
      runs, settings.out, settings.seed, settings.map, settings.points
    )
  )


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
