"""Parts whose worth is not shown yet. They work and are tested, but no experiment runs them.

Their public names are those of `longlag` (`longlag.newton`, `longlag.griffin`, `method="cudnn"`),
and stay the same when a part moves. Nothing else in the library imports from here.

A part moves to a room of its own once

1. an experiment or a benchmark runs it, and the result is recorded;
2. that result shows where it is better than what `longlag` has already: faster, smaller, or more
   accurate, on a machine and a task that are named;
3. README.md says when to choose it.

| part                               | what is missing                                           |
| ---------------------------------- | --------------------------------------------------------- |
| `newton_method` and its solver     | a machine on which it is faster than `unroll`: on a CPU   |
|                                    | it is 7 to 500 times slower (benchmarks/README.md)        |
| `cudnn`                            | a run on a GPU: equal numbers, and a time below `unroll`'s |
| `blocks`                           | an experiment that trains one                             |
"""
