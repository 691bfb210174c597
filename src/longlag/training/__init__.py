"""How a model is trained and evaluated, as pure functions of configuration and seed."""

from longlag.training.config import Training as Training
from longlag.training.evaluation import Evaluation as Evaluation
from longlag.training.evaluation import evaluate as evaluate
from longlag.training.evaluation import evaluation_batch as evaluation_batch
from longlag.training.evaluation import note_evaluation as note_evaluation
from longlag.training.objective import answered as answered
from longlag.training.objective import losses as losses
from longlag.training.objective import mean_loss as mean_loss
from longlag.training.objective import nan_answers as nan_answers
from longlag.training.objective import transcript as transcript
from longlag.training.optimizers import Options as Options
from longlag.training.optimizers import check_optimizer as check_optimizer
from longlag.training.optimizers import freeze as freeze
from longlag.training.optimizers import optimizer as optimizer
from longlag.training.optimizers import optimizers as optimizers
from longlag.training.optimizers import schedule as schedule
from longlag.training.optimizers import schedule_names as schedule_names
from longlag.training.optimizers import schedule_needs_end as schedule_needs_end
from longlag.training.optimizers import schedules as schedules
from longlag.training.optimizers import takes_weight_decay as takes_weight_decay
from longlag.training.step import TrainState as TrainState
from longlag.training.step import check_streaming as check_streaming
from longlag.training.step import compiled_dispatch as compiled_dispatch
from longlag.training.step import dispatch as dispatch
from longlag.training.step import init_states as init_states
from longlag.training.step import over_seeds as over_seeds
