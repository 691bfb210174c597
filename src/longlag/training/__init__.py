"""Training and evaluation, as pure functions of configuration and seed."""

from longlag.training.config import Training
from longlag.training.evaluation import Evaluation, evaluate, evaluation_batch, note_evaluation
from longlag.training.grids import label_states
from longlag.training.loop import train
from longlag.training.meshes import MeshSizes, choose_mesh, fetch, place
from longlag.training.objective import answer_batch, losses, mean_loss, nan_answers, transcript
from longlag.training.optax_by_name import (
    Options,
    check_optimizer,
    freeze,
    optimizer,
    optimizers,
    schedule,
    schedule_names,
    schedule_needs_end,
    schedules,
    takes_weight_decay,
)
from longlag.training.step import (
    TrainState,
    check_streaming,
    compiled_dispatch,
    dispatch,
    init_states,
    map_over_seeds,
)

__all__ = [
    "Evaluation",
    "MeshSizes",
    "Options",
    "TrainState",
    "Training",
    "answer_batch",
    "check_optimizer",
    "check_streaming",
    "choose_mesh",
    "compiled_dispatch",
    "dispatch",
    "evaluate",
    "evaluation_batch",
    "fetch",
    "freeze",
    "init_states",
    "label_states",
    "losses",
    "map_over_seeds",
    "mean_loss",
    "nan_answers",
    "note_evaluation",
    "optimizer",
    "optimizers",
    "place",
    "schedule",
    "schedule_names",
    "schedule_needs_end",
    "schedules",
    "takes_weight_decay",
    "train",
    "transcript",
]
