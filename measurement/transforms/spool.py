"""The local sink: rows into the spool."""

import apache_beam as beam

from measurement.io import spool


class WriteSpool(beam.DoFn):
    """(table, Arrow stream) elements to files."""

    def __init__(self, directory: str):
        self._directory = directory

    def process(self, element):
        spool.write(self._directory, *element)
        return ()
