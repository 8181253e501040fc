"""A training step explained: the phase and the layer of every op, and the op of which a gradient op is the gradient."""
