"""One outline a stage: build the parts, run the loop, save."""
