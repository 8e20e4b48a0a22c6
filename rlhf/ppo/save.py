"""What PPO leaves behind: model/, and value_model/ where there is one."""

from __future__ import annotations

from rlhf.models import adapters
from rlhf.models.load import torch_dtype
from rlhf.models.save import save_model
from rlhf.models.sharding import gathered
from rlhf.ppo.roles import Roles
from rlhf.ppo.shared_value import SharedValueModel
from rlhf.ppo.training import Training
from rlhf.runtime.distributed import is_main_process
from rlhf.training.context import StageContext


def save(context: StageContext, roles: Roles, training: Training) -> None:
    """Every rank takes part in making weights whole; the first one writes them."""
    with training.saved_policy(), gathered(roles.policy):
        if is_main_process():
            dtype = torch_dtype(context.config.model.dtype)
            save_model(roles.policy, roles.tokenizer, context.folder.model_dir, dtype=dtype)
    if roles.value_model is not None:
        with gathered(roles.value_model):
            if is_main_process():
                _save_value_model(context, roles)


def _save_value_model(context: StageContext, roles: Roles) -> None:
    config, tokenizer = context.config.model, roles.tokenizer
    dtype = torch_dtype(config.dtype)
    value_model, adapter = roles.value_model, None
    if isinstance(value_model, SharedValueModel):
        value_model = value_model.as_classifier(str(context.parents["policy"]), config)
    elif context.config.ppo.share_base:
        adapter = adapters.adapter_of(value_model, context.parents["policy"])
    save_model(value_model, tokenizer, context.folder.path / "value_model", dtype=dtype, adapter=adapter)
