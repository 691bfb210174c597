"""Experiments and their runs: folders, checkpoints, resuming, sweeps, loading."""

from longlag.runs.architectures import (
    AnyArchitecture,
    Architecture,
    Captioner,
    EncoderDecoder,
    Transcriber,
    architecture_class,
    architecture_name,
)
from longlag.runs.checkpoint import CheckpointError, Restored, checkpoints, restore, save, verify
from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder, run_name
from longlag.runs.jobs import run_job
from longlag.runs.lifecycle import Progress, carry_out, create, devices_of, extend, reopen
from longlag.runs.loading import Loaded, load
from longlag.runs.metric_logs import LogName, MetricLogs, require_log_packages
from longlag.runs.registry import (
    cell_class,
    cell_name,
    cell_names,
    kebab,
    own_line,
    own_sources,
    task_class,
    task_name,
    task_names,
)
from longlag.runs.result_rows import floor_rows, results
from longlag.runs.sweeps import Workers, sweep

__all__ = [
    "AnyArchitecture",
    "Architecture",
    "Captioner",
    "CheckpointError",
    "EncoderDecoder",
    "Experiment",
    "Loaded",
    "LogName",
    "MetricLogs",
    "Progress",
    "Restored",
    "RunFolder",
    "Transcriber",
    "Workers",
    "architecture_class",
    "architecture_name",
    "carry_out",
    "cell_class",
    "cell_name",
    "cell_names",
    "checkpoints",
    "create",
    "devices_of",
    "extend",
    "floor_rows",
    "kebab",
    "load",
    "own_line",
    "own_sources",
    "reopen",
    "require_log_packages",
    "restore",
    "results",
    "run_job",
    "run_name",
    "save",
    "sweep",
    "task_class",
    "task_name",
    "task_names",
    "verify",
]
