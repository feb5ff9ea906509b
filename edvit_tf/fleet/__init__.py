"""What the aggregator runs: discover, deploy, dispatch, fuse."""
