"""Configs: their fields, the recipes that fill them, the modules that they name, their JSON."""

from anyshot_jax.config.checks import check_above, check_choices, under
from anyshot_jax.config.fields import SPINE, check, defaults, from_json
from anyshot_jax.config.modules import build_net, check_code, find, net_fields, user_modules
from anyshot_jax.config.recipes import in_stages, keep_asked, recipe_file, variant
from anyshot_jax.config.stored import (
    NOT_HASHED,
    RENAMED,
    config_hash,
    differences,
    renamed,
    to_json,
)

__all__ = [
    'NOT_HASHED', 'RENAMED', 'SPINE', 'build_net', 'check', 'check_above', 'check_choices',
    'check_code', 'config_hash', 'defaults', 'differences', 'find', 'from_json', 'in_stages',
    'keep_asked', 'net_fields', 'recipe_file', 'renamed', 'to_json', 'under', 'user_modules',
    'variant',
]  # fmt: skip
