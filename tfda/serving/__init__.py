"""A trained model outside training: predicting and exporting."""
