"""How good an extractor is, measured: warped image pairs with exact truth, metrics, baselines, tables and charts."""
