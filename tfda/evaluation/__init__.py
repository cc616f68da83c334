"""What a trained model does: accuracies, validators, the report."""
