"""Pure tensor maths of RLHF. Imports torch alone: no config, no models; of state, KL controller and moments alone."""
