"""How it moves: Langevin and discrete SGD, both a Markov chain on a batch of replicas."""
