"""Learning rate and width of ProtoNet on Omniglot, on a budget of minutes: see README.md here.

Plain data, read by sweep.py.
"""

CONFIG = 'configs/omniglot_protonet.py:short'
OVERRIDES = (
    'num_steps=300',
    'steps_per_call=10',
    'eval_every=50',
    'save_every=50',
    'log_every=50',
    'optim.warmup_steps=30',
    'train.ways=20',
    'eval.tasks=((5, 1), (20, 1))',
    'eval.episodes=600',
    'eval.val_episodes=200',
)
FIELDS = {'optim.learning_rate': (2e-3, 8e-3, 3.2e-2), 'net.features': (16, 32)}
SEEDS = (0, 1)
