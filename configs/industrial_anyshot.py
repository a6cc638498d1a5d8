"""Defects named from none, one or five images and a description: any-shot classification.

    python -m anyshot_jax.main --config=configs/industrial_anyshot.py --config.data.dir=DIR

DIR holds the metal surface defects (MSD/classes.json and images), of whose 20 classes five are
new: those of class set B (`:b`), or of `:a`, `:c` or `:d`; `:ktd` are Kylberg's textures. Stages:
`embed` whitens frozen features of several levels of EfficientNet-Lite0 by what the seen classes
scatter; `ridge` and `generator` make features of a class from its description; `refine`
classifies with 0, 1 and 5 shots, inductively and by class-centre optimisation (transductive), with
and without what was made. `:gzsl` keeps items of the seen classes of set A back and also names
images among all twenty. All seen classes train (val=0). CHOSEN is what
experiments/choose_anyshot.py chose on the classes that are new in none of the sets A, B and D.
"""

from anyshot_jax.config import defaults, in_stages, variant

PARTS = ('stride8', 'stride16', 'stride32', 'colours')
CHOSEN = {
    'embed': {'shrink': 0.5},  # and all three levels, and roots of the features
    'refine': {
        'graph': False,
        'sharpness': 20.0,
        'step': 0.2,
        'synthesised_weight': 0.0,
    },
}


def get_config(arg: str = ''):
    arg = variant(arg, 'a', 'b', 'c', 'd', 'ktd', 'gzsl')
    embed = defaults(method='lda', data='industrial')
    embed.encoder = 'efficientnet_lite0'
    embed.encoder_parts = PARTS
    embed.eval.tasks = ((5, 1), (5, 5))
    ridge = defaults(method='ridge', data='industrial')
    generator = defaults(method='generator', data='industrial')
    generator.update({'batch_size': 64, 'num_steps': 400, 'steps_per_call': 20, 'log_every': 20})
    generator.update({'eval_every': 0, 'save_every': 200})
    generator.optim.update({'learning_rate': 2e-4, 'b1': 0.5})
    refine = defaults(method='refine', data='industrial')
    refine.method.update({'transductive': True, 'synthesised_from': 'ridge'})
    refine.eval.tasks = ((5, 1), (5, 5), (5, 0))

    stages = {'embed': embed, 'ridge': ridge, 'generator': generator, 'refine': refine}
    for name, stage in stages.items():
        stage.data.update({'classes': {'': 'B', 'ktd': 'A', 'gzsl': 'A'}.get(arg, arg.upper())})
        stage.data.update({'val': 0, 'held_out': arg == 'gzsl'})
        stage.data.set = 'KTD' if arg == 'ktd' else 'MSD'
        stage.describe.update({'by': 'subwords', 'colours': True})
        if name != 'embed':
            stage.features_from = 'embed'
        if name != 'generator':
            stage.num_steps = 0
        stage.method.update(CHOSEN.get(name, {}))
    return in_stages(**stages)
