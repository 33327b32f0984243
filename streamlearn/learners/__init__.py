"""Learners in stream time, by name. Nothing is imported until the configuration asks for it."""

LEARNERS: dict[str, str] = {
    "la-maml": "streamlearn.learners.look_ahead:LaMAML",
    "sliding-look-ahead": "streamlearn.learners.sliding_look_ahead:SlidingLookAhead",
    "sync": "streamlearn.learners.look_ahead:Sync",
    "c-maml": "streamlearn.learners.look_ahead:CMAML",
    "er": "streamlearn.learners.replay:ER",
    "la-er": "streamlearn.learners.replay:LaER",
    "mer": "streamlearn.learners.replay:MER",
    "sgd": "streamlearn.learners.online_sgd:OnlineSGD",
    "pool": "streamlearn.learners.pool:Pool",
    "quantile-ramps": "streamlearn.learners.alone:QuantileRamps",
    "partitions": "streamlearn.learners.alone:Partitions",
    "plastic-mlp": "streamlearn.learners.alone:PlasticMLP",
    "label-law": "streamlearn.learners.alone:LabelLaw",
    "continual-maml": "streamlearn.learners.continual_maml:ContinualMAML",
    "gradient-flow": "streamlearn.learners.gradient_flow:GradientFlow",
    "nearest-mean": "streamlearn.learners.nearest_mean:NearestMean",
    "streaming-lda": "streamlearn.learners.streaming_lda:StreamingLDA",
}
