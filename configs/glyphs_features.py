"""Two stages in one command: ProtoNet learns an embedding, then 1-NN works on its features.

    python -m anyshot_jax.main --config=configs/glyphs_features.py

A stage's fields are set by --config.<stage>.<field>, e.g. --config.embed.num_steps=1000.
"""

from anyshot_jax.config import defaults, in_stages, variant


def get_config(arg: str = ''):
    variant(arg)
    embed = defaults(method='protonet', data='glyphs', net='conv4')
    embed.train.ways = 20
    embed.train.queries = 5
    embed.batch_size = 2
    embed.num_steps = 300
    embed.steps_per_call = 20
    embed.log_every = 20
    embed.eval_every = 100
    embed.save_every = 200
    embed.optim.learning_rate = 2e-3
    embed.optim.schedule = 'cosine'

    nearest = defaults(method='knn', data='glyphs')
    nearest.features_from = 'embed'
    nearest.num_steps = 0

    return in_stages(embed=embed, nearest=nearest)
