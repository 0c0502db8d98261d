"""The end of a pipeline's branch, in a stage that has an output, though nothing ever goes there.

Prism's loop around a running bundle waits for three channels, of which one says that all outputs have come. Of a stage without
outputs that one is closed from the start, and the loop spins, a core full, for as long as the bundle runs
(runners/prism/internal/stage.go, Execute, in Beam 2.77): as long as a sink waits for its service.
"""

import apache_beam as beam


class End(beam.PTransform):
    """Consumes what a sink gives on."""

    def expand(self, pcollection):
        nothing = pcollection | "Nothing" >> beam.FlatMap(_nothing).with_output_types(int)
        return nothing | "Apart" >> beam.Reshuffle() | "Taken" >> beam.FlatMap(_nothing).with_output_types(int)


def _nothing(_) -> tuple[int, ...]:
    return ()
