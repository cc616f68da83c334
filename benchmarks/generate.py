"""How long the generators take for 100,000 images.

  python -m benchmarks.generate [--count=100000]

draws SYN NUMBERS and SYN SIGNS, the latter's published number of images, as
TFRecords by a process a core. Prints seconds and bytes.
"""

import argparse
import json
import os
import platform
import tempfile
import time

from tfda import run_directory
from tfda.data import prepare

_SETS = ('syn_numbers', 'syn_signs')


def _seconds_and_bytes(name, count):
  with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    # A hundredth for test; without any there is no such set.
    prepare.synthetic(name, folder, count, max(1, count // 100))
    seconds = time.perf_counter() - start
    written = [
      entry.stat().st_size for entry in os.scandir(os.path.join(folder, name))
    ]
  return {'seconds': round(seconds, 1), 'megabytes': sum(written) // 2**20}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=100_000)
  count = parser.parse_args().count
  print(
    json.dumps(
      {
        'images': count,
        **{name: _seconds_and_bytes(name, count) for name in _SETS},
        'cores': os.cpu_count(),
        'machine': platform.processor() or platform.machine(),
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
