"""Your own images and a sentence for each class: any-shot classification of new classes.

    python -m anyshot_jax.main --config=configs/folder_anyshot.py --config.data.dir=DIR

DIR is <class>/<image> with a classes.json ({"class": "description"}) beside the class folders, or
train/, val/ and test/ with class folders in each. Tells how well classes that are not in the
training part are named from 0, 1 and 5 images; see industrial_anyshot.py for the stages.
Nothing is trained by steps.
"""

from anyshot_jax.config import defaults, in_stages, variant


def get_config(arg: str = ''):
    variant(arg)
    embed = defaults(method='lda', data='folder')
    embed.encoder = 'efficientnet_lite0'
    embed.encoder_parts = ('stride8', 'stride16', 'stride32', 'colours')
    embed.eval.tasks = ((3, 1), (3, 5))
    ridge = defaults(method='ridge', data='folder')
    refine = defaults(method='refine', data='folder')
    refine.method.update({'transductive': True, 'synthesised_from': 'ridge'})
    # As chosen on metal defects (CHOSEN in industrial_anyshot.py).
    embed.method.shrink = 0.5
    refine.method.update({'sharpness': 20.0, 'synthesised_weight': 0.0})
    refine.eval.tasks = ((3, 1), (3, 5), (3, 0))

    stages = {'embed': embed, 'ridge': ridge, 'refine': refine}
    for name, stage in stages.items():
        stage.num_steps = 0
        stage.fit_tasks = True
        stage.data.size = 224
        stage.describe.update({'by': 'subwords', 'colours': True})
        stage.eval.queries = 5
        if name != 'embed':
            stage.features_from = 'embed'
    return in_stages(**stages)
