"""Pure tensor maths of RLHF. Imports torch alone: no config, no models, no state but the KL controller's."""
