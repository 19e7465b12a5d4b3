"""What autonomy_trio costs, as ratios to a reference measured in the same run: ``python -m benchmarks local``."""
