"""Gates: the rules that decide which experts, and how many, each token is given; contract in `base`."""
