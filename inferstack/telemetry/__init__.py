"""What every process says about itself: metrics and logs."""
